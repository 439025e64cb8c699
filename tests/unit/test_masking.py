"""Secrets in payloads: which names mean one, and what is left of its value."""

from __future__ import annotations

import json
import time

import pytest

from airflow_provider_modelslab._protocol.masking import is_secret_name, mask_secrets, secrets_in
from airflow_provider_modelslab._protocol.shortening import shorten_fields

HF_TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT" * 2


@pytest.mark.parametrize(
    "name",
    "hf_token token HF_TOKEN hfToken access-token s3.secret secret_key aws_secret_access_key password db_password passwd "
    "api_key apikey apiKey x-api-key authorization tokens private_key credentials client_secret passphrase "
    "hf_key token1 password2 db_pwd bearer my.long\nname:mytokens".split(" "),
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "prompt",
        "tokenizer",
        "key_frames",
        "monkey",
        "seed",
        "model_id",
        "secretary",
        "keyword",
        "passes",
        "track_id",
        "image_key",
    ],
)
def test_names_of_no_secrets(name):
    assert not is_secret_name(name)


@pytest.mark.parametrize("part", ["_", "token", "a-", "api_key_", "tOKEN"])
def test_the_work_grows_with_the_name(part):
    """Of eight times the name, it takes less than four times as long as by proportion: a square would take eight."""

    def seconds(size: int) -> float:
        name, best = part * (size // len(part)) + "x", float("inf")
        for _ in range(3):
            started = time.process_time()
            assert not is_secret_name(name)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(16_000) < 32 * max(seconds(2_000), 0.0005)


def test_texts_under_such_names_are_masked_however_deep():
    payload = {"a": [{"hf_token": "x"}], "credentials": {"user": "me", "parts": ["p", 1]}, "max_token": 5, "token": ""}
    masked = {
        "a": [{"hf_token": "***"}],
        "credentials": {"user": "***", "parts": ["***", 1]},
        "max_token": 5,
        "token": "",
    }
    assert mask_secrets(payload) == masked
    assert mask_secrets(masked) == masked
    assert list(secrets_in(payload)) == ["x", "me", "p"]


def test_tokens_of_hugging_face_are_masked_in_any_text():
    assert mask_secrets([f"401 for {HF_TOKEN}."]) == ["401 for ***."]
    assert mask_secrets("hf_space and a_hf_model") == "hf_space and a_hf_model"
    assert list(secrets_in({"config": [f"--hf_token {HF_TOKEN} --fp16"]})) == [HF_TOKEN]


def test_what_is_kept_of_parameters_has_no_secrets():
    kept = shorten_fields({"hf_token": HF_TOKEN, "config": {"password": "hunter2", "steps": 5}})
    assert json.loads(json.dumps(kept)) == {"hf_token": "***", "config": {"password": "***", "steps": 5}}
