"""Embedded data made short: nothing that is stored or logged holds a file."""

from __future__ import annotations

import base64
import hashlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import read_fetch_reply
from airflow_provider_modelslab._protocol.shortening import (
    MAX_DATA,
    MAX_ECHOES,
    MAX_META,
    MAX_TEXT,
    shorten,
    shorten_echoes,
    shorten_fields,
)
from airflow_provider_modelslab.jobs import Job

PICTURE = base64.b64encode(os.urandom(300_000)).decode()
DATA = [
    PICTURE,
    f"data:image/png;base64,{PICTURE}",
    f"DATA:,{'%20' * 1000}",
    "\n".join([PICTURE[:76]] * 1000) + "\n",
    "A" * (MAX_DATA + 1),
    "a prompt, and more of it. " * 1000,
]
SHORT = [
    "",
    "a fox",
    PICTURE[:MAX_DATA],
    "https://cdn/a.png?x=" + "y" * 4000,
    "a long prompt, " * 400,
    5,
    1.5,
    None,
    True,
]


@pytest.mark.parametrize("data", DATA)
def test_data_becomes_its_start_length_and_digest(data):
    short = shorten(data)
    assert short == f"{data[:32]}… ({len(data)} characters, sha256:{hashlib.sha256(data.encode()).hexdigest()})"
    assert shorten(short) == short


@pytest.mark.parametrize("value", SHORT)
def test_what_is_short_stays(value):
    assert shorten(value) == value


def test_shapes_stay():
    value = {"init_image": PICTURE, "loras": [PICTURE, "a"], PICTURE: {"deep": (PICTURE,)}}
    short = shorten(value)
    assert list(short) == ["init_image", "loras", shorten(PICTURE)]
    assert short["loras"] == [shorten(PICTURE), "a"]
    assert short[shorten(PICTURE)] == {"deep": [shorten(PICTURE)]}


json_values = st.recursive(
    st.none() | st.integers() | st.text() | st.integers(0, 20_000).map(lambda count: "x " * count),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


foreign_fields = st.dictionaries(st.text(), json_values) | st.integers(0, 20_000).map(
    lambda n: {str(i): i for i in range(n)}
)


@given(foreign_fields, st.integers(0, MAX_TEXT))
def test_foreign_fields_have_a_limit(fields, limit):
    short = shorten_fields(fields, limit)
    assert len(json.dumps(short)) <= limit + 100
    text = json.dumps([{name: item} for name, item in fields.items()])
    if len(text) + 16 * (text.count("[") + text.count("{")) < limit:
        assert short == shorten(fields)


@given(foreign_fields, st.text(), st.lists(st.text()), st.sampled_from([1, 100, 1000]), st.booleans())
@settings(max_examples=20)
def test_the_echoes_of_all_jobs_have_a_limit(meta, message, links, count, finished):
    meta = shorten_fields(meta, MAX_META)
    job = Job("1", "v6/images", "failed" if finished else "processing", message=message, proxy_links=links, meta=meta)
    short = shorten_echoes([job] * count)
    echoes = [(each.message, each.meta, [] if finished else each.proxy_links) for each in short]
    assert len(json.dumps(echoes)) < MAX_ECHOES + 120 * len(short)
    assert shorten_echoes([short[0]] * len(short))[0].message == short[0].message


def test_more_jobs_than_characters_for_their_echoes_come_to_an_end():
    assert shorten_echoes([Job("1", "v6/images", message="m")] * (MAX_ECHOES // 4 + 1))[0].message == ""


def test_the_echoes_of_a_usual_batch_stay():
    meta = {"prompt": "a fox, " * 200, "model_id": "flux", "W": 1024, "seed": 5, "loras": ["a", "b"]}
    jobs = [Job(str(number), "v6/images", meta=meta, message="m" * 300) for number in range(60)]
    assert shorten_echoes(jobs) == jobs


def test_an_echoed_picture_is_cut_when_a_reply_is_read():
    body = {"status": "processing", "meta": {"prompt": "a fox", "init_image": PICTURE}}
    reply = read_fetch_reply(HttpReply(200, json.dumps(body).encode()), Job("1", "v6/images"))
    assert reply.job.meta == {"prompt": "a fox", "init_image": shorten(PICTURE)}
