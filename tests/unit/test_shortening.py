"""Embedded data made short: nothing that is stored or logged holds a file."""

from __future__ import annotations

import base64
import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import read_fetch_reply
from airflow_provider_modelslab._protocol.shortening import MAX_DATA, MAX_FIELDS, MAX_TEXT, shorten, shorten_fields
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


@given(st.dictionaries(st.text(), json_values) | st.integers(0, 20_000).map(lambda n: {str(i): i for i in range(n)}))
def test_foreign_fields_have_a_limit(fields):
    short = shorten_fields(fields)
    texts = [name + json.dumps(item, ensure_ascii=False) for name, item in short.items()]
    assert sum(map(len, texts)) <= MAX_FIELDS + 2 * len(texts) + 100
    if sum(len(name + json.dumps(item)) for name, item in fields.items()) < MAX_TEXT:
        assert short == shorten(fields)


def test_an_echoed_picture_is_cut_when_a_reply_is_read():
    body = {"status": "processing", "meta": {"prompt": "a fox", "init_image": PICTURE}}
    reply = read_fetch_reply(HttpReply(200, json.dumps(body).encode()), Job("1", "v6/images"))
    assert reply.job.meta == {"prompt": "a fox", "init_image": shorten(PICTURE)}
