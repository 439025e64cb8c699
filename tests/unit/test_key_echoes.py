"""Echoes of the key: parts, base64, any escapes; and work that grows no faster than the text."""

from __future__ import annotations

import json
import random
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._protocol.key_echoes import SHORTEST_PART, redact
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab._protocol.replies import Verdict, read_fetch_reply, read_submission_reply
from airflow_provider_modelslab._protocol.sanitizing import MAX_VALUES, parse_json
from airflow_provider_modelslab.jobs import Job

KEY = "_Kq7ZpX2mVb9TrLw4HsNc8JyFd3GaUe6P"


def percent_encoded(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": percent_encoded,
    "percent-encoded in capitals": lambda text: percent_encoded(text).upper(),
    "percent-encoded twice": lambda text: quote(percent_encoded(text)),
    "in JSON by code": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "in JSON within JSON by code": lambda text: json.dumps("".join(f"\\u{ord(char):04x}" for char in text))[1:-1],
    "in HTML by code": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "in HTML by hexadecimal code": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "in Python by long code": lambda text: "".join(f"\\U{ord(char):08x}" for char in text),
    "in Python": lambda text: "".join(f"\\x{ord(char):02x}" for char in text),
}

encodings = pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)


@encodings
@given(
    st.integers(0, len(KEY) - SHORTEST_PART),
    st.integers(SHORTEST_PART, len(KEY)),
    st.sampled_from(["", "!", "é", '="']),
)
def test_a_long_part_of_the_key_is_taken_out(encode, start, length, around):
    part = KEY[start : start + max(length, SHORTEST_PART)]
    assert redact(f"{around}{encode(part)}{around}", KEY) == f"{around}***{around}"


@encodings
def test_a_short_part_stays(encode):
    text = encode(KEY[: SHORTEST_PART - 1])
    assert redact(text, KEY) == text


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "me", "joe", "user:", "\xff\xfe"])
@pytest.mark.parametrize("key", [KEY, "\xff\xfe>?" * 8])
def test_the_keys_base64_is_taken_out(encode, before, key):
    told = redact(f"Basic {encode((before + key + ':x').encode()).decode()}", key)
    assert "***" in told
    assert len(told) < len("Basic ***") + 20


def test_what_stands_around_an_echo_stays():
    text = f'a%20b {percent_encoded(KEY)} &amp; {KEY[3:22]}\\n "{KEY}"'
    assert redact(text, KEY) == 'a%20b *** &amp; ***\\n "***"'


@pytest.mark.parametrize("key", ["", "abcd", "a"])
def test_a_key_of_few_letters_is_not_looked_for(key):
    assert redact("abcd", key) == "abcd"


HOSTILE = {
    "backslashes": lambda size: "\\" * size,
    "backslashes and the start of a code": lambda size: "\\u" * (size // 2),
    "halves of pairs": lambda size: "\\ud83d" * (size // 6),
    "entities without end": lambda size: "&#" + "0" * size,
    "ampersands": lambda size: "&#" * (size // 2),
    "percents": lambda size: "%25" * (size // 3),
    "percents of percents": lambda size: "%" + "25" * (size // 2),
    "the key but for its end": lambda size: KEY[: SHORTEST_PART - 1] * (size // 15),
    "a block of the key": lambda size: KEY[8:16] * (size // 8),
    "the key": lambda size: KEY * (size // len(KEY)),
    "one letter": lambda size: "_" * size,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("key", [KEY, "_" * 40], ids=["a key", "one letter"])
def test_the_work_grows_with_the_text(text, key):
    """Of eight times the text, it takes less than four times as long as by proportion: a square would take eight."""

    def seconds(size: int) -> float:
        value, best = text(size), float("inf")
        for _ in range(5):
            started = time.thread_time()
            redact(value, key)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(64_000) < 32 * max(seconds(8_000), 0.0005)


@pytest.mark.parametrize("part", [b"[", b"[],", b"{},", b"1,"], ids=["deep", "lists", "objects", "numbers"])
def test_a_document_of_too_many_values_is_not_read(part):
    whole = b'{"status": "success", "output": [' + part * MAX_VALUES + b"1]}"
    assert parse_json(whole, KEY) is None
    reply = read_fetch_reply(HttpReply(200, whole), Job("1", "v6/video"), KEY)
    assert reply.verdict is Verdict.TRANSIENT
    assert read_submission_reply(HttpReply(200, whole), "v6/video/text2video", None, KEY).verdict is Verdict.AMBIGUOUS


@pytest.mark.parametrize(
    "filler",
    [b"\\\\" * 400_000, b"\\u0041" * 700_000, b"%41" * 100_000 + b"&#" * 110_000],
    ids=["backslashes", "escapes", "percents and ampersands"],
)
def test_a_document_of_too_many_escapes_is_not_read(filler):
    assert parse_json(b'{"message": "' + filler + b'"}', KEY) is None


@pytest.mark.parametrize(
    "filler",
    ["1" * 2000, ".0" + "1" * 2000, " " * 2000, "1\n" + " \t" * 1000],
    ids=["whole", "float", "blanks", "both"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
def test_a_document_with_a_number_or_blanks_without_end_is_not_read(filler, encoding):
    for before in ("", "A" * (2**20 - 20)):  # also where it stands across what is checked at a time
        assert parse_json(f'{{"message": "{before}", "a": 1}}'.encode(encoding), KEY) is not None
        assert parse_json(f'{{"message": "{before}", "a": 1{filler}}}'.encode(encoding), KEY) is None


def test_pictures_in_a_document_are_read():
    picture = b64encode(random.Random(1).randbytes(3_000_000)).decode()
    body = json.dumps({"output": [picture]}).replace("/", "\\/").encode()
    assert parse_json(body, KEY) == {"output": [picture]}


@pytest.mark.parametrize("key", [KEY, "A" * 40, "short1"], ids=["a key", "one letter", "a short key"])
def test_a_text_of_nothing_but_echoes_goes_as_a_whole(key):
    assert redact(key[: SHORTEST_PART - 1] * 20_000, key) == "***"


@pytest.mark.parametrize("length", [SHORTEST_PART - 1, SHORTEST_PART])
def test_a_short_text_is_searched_where_it_can_hold_an_echo(length):
    assert (redact(KEY[:length], KEY) == "***") is (length >= SHORTEST_PART)
    assert redact("short1", "short1") == "***"
