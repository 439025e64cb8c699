"""Where the link "Output" leads."""

from __future__ import annotations

import pytest

from airflow_provider_modelslab.links import first_address

GOOD = "https://cdn.example/a.png?signature=1%202"


def records(*outputs: object) -> list[dict[str, object]]:
    return [{"outputs": list(outputs), "proxy_links": []}]


@pytest.mark.parametrize("address", [GOOD, "HTTPS://cdn.example/a.png", "http://127.0.0.1:8787/files/1.png"])
def test_it_leads_to_the_first_output(address):
    assert first_address(records("iVBORw0KGgo=", address, "https://cdn.example/b.png")) == address


def test_while_there_is_no_output_it_leads_to_where_one_is_announced():
    assert first_address([{"outputs": [], "proxy_links": ["https://cdn.example/soon.png"]}]).endswith("soon.png")
    assert first_address([{"outputs": [], "future_links": ["https://cdn.example/soon.png"]}]).endswith("soon.png")
    assert first_address([{"outputs": [{"text": "A walk"}, "A walk", GOOD]}]) == GOOD
    assert first_address([{"outputs": [], "proxy_links": ["https://cdn.example/x"]}, *records(GOOD)]) == GOOD


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        " https://cdn.example/a.png",
        "data:text/html,<script>alert(1)</script>",
        "//evil.example/x",
        "https:///path",
        "https://modelslab.com@evil.example/login",
        "https://modelslab.com\\@evil.example/login",
        "https://evil.example\\.modelslab.com/login",
        "https://cdn\n.example/a",
        "https://a\x00b",
        "https://[::1/a",
        'https://x" onclick=alert(1) x="',
        "https://cdn.example/\u202egnp.exe",
        "https://cdn.example/a.png\n::group::hidden",
    ],
)
def test_it_leads_nowhere_else(address):
    assert first_address(records(address)) == ""
    assert first_address(records(address, GOOD)) == GOOD


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "x",
        5,
        {"outputs": [GOOD]},
        [5],
        [None],
        [{}],
        [{"outputs": GOOD}],
        [{"outputs": [5]}],
        [{"proxy_links": 5}],
    ],
)
def test_an_xcom_of_any_shape_leads_nowhere(odd):
    assert first_address(odd) == ""
