"""Where the outputs of a finished job stand, in every shape that ModelsLab's replies have."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_modelslab._protocol.outputs import (
    as_text,
    find_copies,
    find_future_links,
    find_other_links,
    find_outputs,
)

URL = "https://pub-3626.r2.dev/generations/a.png"
OTHER = "https://pub-3626.r2.dev/generations/b.png"
COPY = "https://cdn2.stablediffusionapi.com/generations/a.png"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TRANSCRIPT = {"text": "Good night", "timestamps": [{"word": "Good", "start": 0.2, "end": 0.4}]}
WORDS = [{"word": "Good", "start": 0.2, "end": 0.4}, {"word": "night", "start": 0.5, "end": 0.9}]
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

DOCUMENTS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a list of URLs": ({"output": [URL, OTHER]}, [URL, OTHER]),
    "one URL": ({"output": f" {URL} "}, [URL]),
    "gaps in a list": ({"output": ["", None, 7, True, [], {}, URL]}, [URL]),
    "lists in lists": ({"output": [[URL], [[OTHER]]]}, [URL, OTHER]),
    "an object of URLs": ({"output": {"a": URL, "b": [OTHER]}}, [URL, OTHER]),
    "a list of objects": ({"output": [{"url": URL, "seed": 7, "prompt": "a fox"}]}, [URL]),
    "URLs and words": ({"output": {"images": [URL, OTHER], "prompt": "a fox", "model": "flux"}}, [URL, OTHER]),
    "URLs and a long prompt": ({"output": {"url": URL, "prompt": "a fox in the snow " * 9}}, [URL]),
    "URLs and a digest": ({"output": {"url": URL, "sha256": DIGEST}}, [URL]),
    "embedded data": ({"output": [PICTURE]}, [PICTURE]),
    "an object with embedded data": ({"output": {"image": PICTURE, "kind": "png"}}, [PICTURE]),
    "links without output": ({"links": [URL], "proxy_links": [COPY]}, [URL]),
    "links with an empty output": ({"output": [], "links": [URL], "proxy_links": [COPY]}, [URL]),
    "output before links": ({"output": [URL], "links": [OTHER]}, [URL]),
    "proxy links alone": ({"output": [], "proxy_links": [COPY]}, [COPY]),
    "one proxy link": ({"output": "", "proxy_links": COPY}, [COPY]),
    "output_url": ({"output_url": URL}, [URL]),
    "output_url after output": ({"output": [URL], "output_url": OTHER}, [URL]),
    "an empty output_url": ({"output_url": "", "proxy_links": [COPY]}, [COPY]),
    "link": ({"link": URL, "request_id": 2398}, [URL]),
    "words where addresses stand": ({"links": ["soon"], "output_url": "none yet"}, []),
    "a text": ({"output": "Some words."}, ["Some words."]),
    "a text in a list": ({"output": ["Some words."]}, ["Some words."]),
    "a transcript": ({"output": TRANSCRIPT}, [TRANSCRIPT]),
    "a transcript in a list": ({"output": [TRANSCRIPT]}, [TRANSCRIPT]),
    "two transcripts": ({"output": [TRANSCRIPT, {"text": "Bye"}]}, [TRANSCRIPT, {"text": "Bye"}]),
    "the words of a transcript": ({"output": WORDS}, [WORDS]),
    "one word of a transcript": ({"output": WORDS[:1]}, [WORDS[:1]]),
    "words and times in lists": ({"output": [["Good", 0.2, 0.4], ["night", 0.5, 0.9]]}, [[["Good", 0.2, 0.4], ["night", 0.5, 0.9]]]),
    "a silent piece of a transcript": ({"output": [{"text": "", "words": [], "start": 0}]}, []),
    "words with their sounds": ({"output": [{**WORDS[0], "audio": URL}]}, [[{**WORDS[0], "audio": URL}], URL]),
    "files with times": ({"output": [{"url": URL, "timestamp": 1}, {"url": OTHER, "start": 2, "end": 4}]}, [URL, OTHER]),
    "a transcript where addresses stand": ({"links": [TRANSCRIPT], "output": ""}, [TRANSCRIPT]),
    "the words of a transcript where addresses stand": ({"output_url": WORDS}, [WORDS]),
    "an object of words where addresses stand": ({"links": {"state": "soon"}}, []),
    "captions": ({"output": [{"caption": "a fox"}, {"caption": "a cat"}]}, [{"caption": "a fox"}, {"caption": "a cat"}]),
    "a transcript with its sound": ({"output": {**TRANSCRIPT, "audio": URL}}, [{**TRANSCRIPT, "audio": URL}, URL]),
    "a transcript in meta": ({"meta": {"transcription": TRANSCRIPT}}, [TRANSCRIPT]),
    "a text in meta": ({"output": "", "meta": {"transcription": "Good night"}}, ["Good night"]),
    "a result without known fields": ({"output": {"label": "fox", "score": 0.9}}, [{"label": "fox", "score": 0.9}]),
    "a workflow's object": ({"output": {"output": [URL], "proxy_links": [COPY], "status": "success"}}, [URL]),
    "a workflow's object with copies only": ({"output": {"output": [], "proxy_links": [COPY], "status": "success"}}, [COPY]),
    "a workflow's object without a file": ({"output": {"output": [], "status": "success"}}, []),
    "words on the state alone": ({"output": {"status": "success", "message": "done", "id": 5}}, []),
    "a silent transcript": ({"output": {"text": "", "timestamps": []}}, []),
    "future links": ({"output": [], "future_links": [URL]}, []),
    "nothing": ({"message": "Operation completed successfully"}, []),
    "an object of nothing": ({"output": {"url": ""}}, []),
}  # fmt: skip


@pytest.mark.parametrize(("document", "outputs"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_outputs_stand_in_many_places(document, outputs):
    assert find_outputs(document) == outputs


def test_copies_stand_beside_the_outputs():
    assert find_copies({"output": [URL], "proxy_links": COPY}) == [COPY]
    assert find_copies({"output": {"output": [URL], "proxy_links": [COPY]}}) == [COPY]
    assert find_copies({"output": [URL], "proxy_links": None}) == []


def test_what_is_neither_output_nor_copy_is_kept():
    document = {"output": [URL], "links": [OTHER, URL], "output_url": COPY, "proxy_links": [COPY]}
    assert find_other_links(document) == [OTHER]
    assert find_other_links({"output": {"output_url": URL, "thumbnail": OTHER}}) == [OTHER]
    assert find_other_links({"output": TRANSCRIPT}) == []


def test_the_work_for_further_links_does_not_grow_with_the_outputs():
    """By a product of both, one reply of 4 MB would cost a triggerer seconds of CPU."""
    links = [f"https://cdn/{number}" for number in range(20_000)]

    def seconds(outputs: int) -> float:
        document = {"output": [f"https://cdn/output-{number}" for number in range(outputs)], "links": links}
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            assert find_other_links(document) == links
            best = min(best, time.process_time() - started)
        return best

    assert seconds(1000) < 5 * seconds(1)


def test_future_links_are_kept():
    assert find_future_links({"future_links": ["", URL, None]}) == [URL]


def test_an_output_is_one_text_whatever_the_order_of_its_fields():
    assert as_text({"b": 1, "a": "ü"}) == as_text({"a": "ü", "b": 1}) == '{"a": "ü", "b": 1}'
    assert as_text(URL) == URL


PLACES = ("output", "links", "output_url", "link", "proxy_links", "future_links")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([URL, OTHER, COPY]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["output", "text", "words", "start", "status", "url"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def urls_in(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value} & {URL, OTHER, COPY}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {url for part in parts for url in urls_in(part)}


@given(st.dictionaries(st.sampled_from(PLACES), json_values))
def test_any_value_is_read_and_no_url_is_lost(document):
    outputs = find_outputs(document)
    assert all(isinstance(output, (str, dict, list)) and output for output in outputs)
    kept = [*outputs, *find_copies(document), *find_other_links(document), *find_future_links(document)]
    assert urls_in(document) <= urls_in(kept)
