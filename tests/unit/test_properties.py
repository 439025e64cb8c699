"""
What holds for every input: replies of any shape, arguments of any kind, connections of any content.

All of these are pure functions, so that many examples cost little: 40 s of a core for the repeatable profile
of ``conftest``.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL as AiohttpsUrl

from airflow_provider_modelslab._http.connection import read_connection
from airflow_provider_modelslab._polling.schedule import DurationModel
from airflow_provider_modelslab._polling.waits import JobWait
from airflow_provider_modelslab._protocol.arguments import parse_jobs
from airflow_provider_modelslab._protocol.outcomes import HttpReply, retry_after_seconds
from airflow_provider_modelslab._protocol.replies import (
    LONGEST_PAUSE,
    MAX_MESSAGE_LENGTH,
    Reply,
    Verdict,
    read_balance_reply,
    read_fetch_reply,
    read_submission_reply,
)
from airflow_provider_modelslab.endpoints import (
    OFFICIAL_HOSTS,
    FetchEndpoint,
    JobAddress,
    fetch_request,
    parse_endpoint,
    parse_fetch_url,
    parse_job_id,
    parse_submission_path,
    submission_url,
)
from airflow_provider_modelslab.jobs import Job
from tests.support.pacing import SimulatedClock, simulated
from tests.support.reply_table import QUEUED, REPLIES

JOB = Job(id="147", endpoint="v6/video")
KEY = "secret-key"

# --- replies ---

FIELDS = sorted({name for row in REPLIES.values() if isinstance(row[1], dict) for name in row[1]} | {"retry_after"})
DOCUMENTS = [row[1] for row in REPLIES.values() if isinstance(row[1], dict)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(FIELDS), inner),
    max_leaves=8,
)
words = st.sampled_from(["success", "Success ", "error", "failed", "processing", "queued", ""])
made_up_documents = st.dictionaries(st.sampled_from(FIELDS), json_values | words)


@st.composite
def mutated_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A real reply of which some fields are gone and others hold anything."""
    document = dict(draw(st.sampled_from([*DOCUMENTS, QUEUED])))
    for name in draw(st.sets(st.sampled_from(FIELDS), max_size=3)):
        document.pop(name, None)
    return document | draw(st.dictionaries(st.sampled_from(FIELDS), json_values | words, max_size=3))


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    """A real reply in which some bytes have been replaced."""
    body = json.dumps(draw(st.sampled_from(DOCUMENTS))).encode()
    start = draw(st.integers(0, len(body)))
    return body[:start] + draw(st.binary(max_size=4)) + body[start + draw(st.integers(0, 8)) :]


documents = made_up_documents | mutated_documents()
bodies = (documents | json_values).map(lambda value: json.dumps(value).encode()) | mutated_bytes() | st.binary()
statuses = st.sampled_from([200, 201, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503]) | st.integers(-1, 1000)
headers = st.none() | st.text() | st.floats().map(str) | st.integers().map(str)
received = st.builds(HttpReply, statuses, bodies, headers.map(lambda header: retry_after_seconds(header, 0.0)))


def check_reply(reply: Reply) -> None:
    record = reply.job.to_dict()
    json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
    assert "\\u0000" not in json.dumps(record)
    assert Job.from_dict(record) == Job.from_dict(reply.job.to_compact_dict()) == reply.job
    assert (reply.job.status == "success") == (reply.verdict is Verdict.SUCCESS)
    assert bool(reply.job.outputs) == (reply.verdict is Verdict.SUCCESS)
    assert all(output.strip() if isinstance(output, str) else output for output in reply.job.outputs)
    assert (reply.job.status == "failed") <= bool(reply.job.message)
    assert len(reply.job.message) <= MAX_MESSAGE_LENGTH
    assert reply.retry_after is None or 0 <= reply.retry_after <= LONGEST_PAUSE
    assert reply.job.eta is None or 0 <= reply.job.eta < math.inf


@given(received)
def test_reading_a_fetch_is_total_and_success_has_an_output(received):
    reply = read_fetch_reply(received, JOB, KEY)
    check_reply(reply)
    assert (reply.job.id, reply.job.endpoint) == (JOB.id, JOB.endpoint)
    read_balance_reply(received, KEY)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_the_key_is_removed_in_any_encoding(encoding):
    body = json.dumps({"status": "failed", "message": f"no {KEY}"}).encode(encoding)
    assert KEY not in str(read_fetch_reply(HttpReply(200, body), JOB, KEY))


@given(received)
def test_reading_a_submission_is_total_and_what_was_accepted_can_be_polled(received):
    reply = read_submission_reply(received, "v6/video/text2video", None, KEY)
    check_reply(reply)
    if reply.verdict is Verdict.PROCESSING:
        assert parse_job_id(reply.job.id) == reply.job.id
        assert parse_endpoint(reply.job.endpoint) == reply.job.endpoint


id_fields = st.sampled_from(
    ["id", "request_id", "training_id", "execution_id", "voice_id", "uuid", "jobId", "status_url", "fetch_result"]
)
ids = st.text("abcdefXYZ0123456789-_:/.", min_size=1, max_size=40) | st.integers(0, 2**63 - 1)


@given(st.dictionaries(id_fields, ids), st.dictionaries(st.sampled_from(["data", "execution"]), st.dictionaries(id_fields, ids)))  # fmt: skip
def test_no_id_of_a_reply_that_was_paid_for_is_lost(at_top, nested):
    body = json.dumps({"status": "success", "output": ["https://cdn/a.png"], **at_top, **nested}).encode()
    job = read_submission_reply(HttpReply(200, body), "v6/video/text2video").job
    kept = set(texts_in(job.to_dict()))
    assert {str(value) for document in (at_top, *nested.values()) for value in document.values()} <= kept


def believing_etas() -> DurationModel:
    durations = DurationModel()
    for eta in (1.0, 10.0, 100.0, 1000.0) * 100:
        durations.observe(eta, eta * 1.5)
    return durations


@given(st.lists(received, max_size=5), st.booleans())
@example([HttpReply(200, b'{"status":"processing","eta":1.7e308}')], True)
def test_a_wait_takes_any_replies(of_polls, experienced):
    clock = SimulatedClock()
    durations = believing_etas() if experienced else DurationModel()
    wait = JobWait(JOB, simulated(clock, jitter=0.1), clock.wall(), durations=durations)
    for received_then in of_polls:
        if wait.job.finished:
            break
        wait.take(read_fetch_reply(received_then, wait.job, KEY))
        assert (wait.job.status == "success") == bool(wait.job.outputs)
        assert 0 <= wait.delay() <= 2 * LONGEST_PAUSE
        assert wait.delay(clock.monotonic() + 3600) >= 0
        clock.move(wait.delay())


# --- the key ---

# What is promised: no spelling of a key of five characters or more besides backslashes, without blanks and asterisks,
# is in any text that comes of a reply, even where that mangles words or addresses that happen to hold it. (Numbers are left as they are,
# and so is what is known of a job without its replies: its id and its endpoint.)
key_characters = st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="*")
keys = (
    st.text(key_characters, min_size=5, max_size=60)
    | st.text("""ab1"'\\&<>/+%é€""", min_size=5, max_size=12)
    | st.sampled_from(["https", "output", "success", "message", "generations", "a" * 60])
).filter(lambda key: len(unquote(html.unescape(key.replace("\\", "")))) >= 5)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "in a URL": lambda key: quote(key, safe=""),
    "in a form": quote_plus,
    "in HTML": html.escape,
    "in the HTML of PHP": lambda key: html.escape(key).replace("&#x27;", "&#039;"),
    "in HTML without quotes": lambda key: html.escape(key, quote=False),
    "in HTML of Jinja": lambda key: html.escape(key).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "in a URL of a browser": lambda key: quote(key, safe="!'()*~"),
    "in a path": quote,
    "in JSON": lambda key: json.dumps(key)[1:-1],
    "in JSON of PHP": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "in JSON of Go": lambda key: json.dumps(key)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c"),
    "in JSON within JSON": lambda key: json.dumps(json.dumps(json.dumps(key)))[5:-5],
    "in JSON of Unicode": lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
}


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


@given(keys, st.sampled_from(list(SPELLINGS)), st.sampled_from(FIELDS), statuses, documents, st.text(max_size=5), st.text(max_size=5))  # fmt: skip
def test_no_spelling_of_the_key_is_kept(key, spelling, name, status, document, before, after):
    spelt = SPELLINGS[spelling](key)
    echo = f"{before}{spelt}{after}"
    echoes = {name: echo, "meta": {echo: [echo, {"deep": echo}]}, "proxy_links": [echo], "tips": {"key": [echo]}}
    answer = HttpReply(status, json.dumps({**document, **echoes}).encode())
    record = read_fetch_reply(answer, JOB, key).job.to_dict()
    # An id and an endpoint are the user's own.
    submitted = read_submission_reply(answer, "v6/video/text2video", None, key).job.to_dict()
    for job in (record, submitted):
        for text in texts_in([item for field, item in job.items() if field not in ("id", "endpoint", "status")]):
            assert spelt not in text
    assert spelt not in read_balance_reply(answer, key).message


# --- ids and addresses ---


def check_naming(error: ValueError, names: str) -> None:
    """See an argument refused by its name: a pattern."""
    assert re.search(names, str(error))


nasty_ids = st.sampled_from(
    "../wallet_balance ..%2fwallet_balance %2e%2e . .. ~ -1 1/2 1?x=1 1#x 1;x 1\\2 １２ ١٢ 12202888.0 1e5 0x10 1_0 None nan".split()
)
urlish_text = st.text("abz019./%\\?#@:;&=~_- \t\n\u202e１é")
ids = st.one_of(
    st.text(), urlish_text, nasty_ids, st.integers(), st.integers(0, 10**140), st.floats(), st.binary(), st.none(), st.booleans(),
    st.integers(0, 2**60).map(float), nasty_ids.map(lambda text: f" {text}\n"),
)  # fmt: skip
endpoints = st.sampled_from([member.value for member in FetchEndpoint] + ["v9/holograms"])


@given(ids, endpoints)
def test_an_id_is_refused_or_stays_in_its_own_segment(value, endpoint):
    try:
        job_id = parse_job_id(value)
    except ValueError as error:
        check_naming(error, "job id")
        return
    assert re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*", job_id)
    assert parse_job_id(job_id) == job_id
    if isinstance(value, (int, float)):
        assert int(job_id) == value
        assert isinstance(value, int) or value < 2**53  # up to there floats are exact
    url, body = fetch_request(endpoint, job_id, "k")
    path = f"/api/{endpoint}/fetch" if "request_id" in body else f"/api/{endpoint}/fetch/{job_id}"
    # As the clients will send it: they tidy up URLs.
    assert requests.Request("POST", url).prepare().path_url == AiohttpsUrl(url).raw_path_qs == path
    assert body.get("request_id", job_id) == job_id


@given(urlish_text | st.text() | endpoints | ids)
def test_an_endpoint_is_refused_or_made_of_plain_segments(value):
    for parse, name in ((parse_endpoint, "endpoint"), (parse_submission_path, "path")):
        try:
            family = parse(value)
        except ValueError as error:
            check_naming(error, name)
            continue
        assert parse(family) == family
        url = submission_url(family)
        assert AiohttpsUrl(url).raw_path_qs == requests.Request("POST", url).prepare().path_url == f"/api/{family}"


@given(urlish_text | st.text() | nasty_ids)
def test_a_fetch_url_is_refused_or_leads_to_a_host_that_may_know_the_key(text):
    base_url = "http://127.0.0.1:8787/gateway"
    for url in (
        text,
        f"https://{text}/api/v6/video/fetch/1",
        f"https://modelslab.com{text}/api/v6/video/fetch/1",
        f"https://modelslab.com/api/{text}/fetch/1",
        f"https://modelslab.com/api/v6/video/fetch/{text}",
        f"{text}{base_url}/api/v6/video/fetch/1",
    ):
        try:
            address = parse_fetch_url(url, base_url)
        except ValueError as error:
            check_naming(error, "fetch_result|job id|endpoint")
            continue
        assert urlsplit(url.strip()).hostname in {*OFFICIAL_HOSTS, "127.0.0.1"}
        assert parse_endpoint(address.endpoint) == address.endpoint
        assert address.job_id is None or parse_job_id(address.job_id) == address.job_id
        official, _ = fetch_request(address.endpoint, address.job_id or "1", "k")
        assert urlsplit(official).hostname in OFFICIAL_HOSTS


# --- jobs ---

replies_of_others = st.fixed_dictionaries(
    {},
    optional={
        "id": ids,
        "fetch_result": st.none() | urlish_text.map(lambda text: f"https://modelslab.com/api/v6/video/fetch/{text}") | ids,
        "status": words | json_values,
        "output": json_values,
        "outputs": json_values,
        "endpoint": st.none() | endpoints | urlish_text,
        "meta": json_values | st.dictionaries(st.text(), ids),
        "eta": json_values,
    },
)  # fmt: skip
single_jobs = ids | replies_of_others | documents | st.builds(Job, id=st.just("1"), endpoint=endpoints)
nested_jobs = st.recursive(single_jobs, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner), max_leaves=6)


def as_text(value: Any) -> Any:
    """Return what a template makes of a value: its JSON, or else its Python literal."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


@given(
    nested_jobs | nested_jobs.map(as_text) | nested_jobs.map(str) | st.lists(single_jobs.map(as_text)),
    st.none() | endpoints,
)
@example(12202888.0, "v3")
@example(float(2**60), "v3")
@example([[1, "2", [" 3 "]], '["4", {"id": 5}]', 6.0], "v3")
def test_anything_is_jobs_or_refused_by_name(value, endpoint):
    try:
        jobs = parse_jobs(value, endpoint, key=KEY)
    except ValueError as error:
        check_naming(error, "jobs|endpoint")
        return
    for job in jobs:
        json.dumps(job.to_dict(), allow_nan=False, ensure_ascii=False).encode()
        assert (job.status == "success") == bool(job.outputs)
        if not job.finished:
            assert parse_job_id(job.id) == job.id
            assert parse_endpoint(job.endpoint) == job.endpoint
        assert parse_jobs([job.to_dict()]) == [job]


# --- connections ---

hosts = (
    st.none() | st.text() | urlish_text
    | st.builds("{}://{}{}".format, st.sampled_from(["http", "https", "ftp", "HTTP"]), urlish_text, urlish_text)
    | st.sampled_from(["modelslab.com", "https://gateway.example/lab/api/", "http://[::1]:8787", "127.0.0.1:8787", "a b", "http://x:0"])
)  # fmt: skip
option_values = json_values | st.sampled_from(["12.5", "1e400", "１", " 3 ", "", "nan", 1e300, 10**400, True, [1]])
options = st.dictionaries(
    st.sampled_from(["request_timeout", "retries", "requests_per_second", "other"]), option_values
)
extras = st.none() | st.text() | json_values.map(json.dumps) | options.map(json.dumps)


@given(st.none() | st.text() | st.just(KEY), hosts, st.none() | st.integers(0, 70000), st.none() | st.sampled_from(["http", "https", ""]) | st.text(), extras)  # fmt: skip
def test_a_connection_is_refused_by_the_name_of_its_field_or_can_be_used(password, host, port, schema, extra):
    fields = SimpleNamespace(password=password, host=host, port=port, schema=schema, extra=extra)
    try:
        client = read_connection(fields)
    except ValueError as error:
        check_naming(error, "host|extra|request_timeout|retries|requests_per_second|API key")
        return
    assert client.key
    assert client.key == client.key.strip()
    assert 0 < client.request_timeout <= 86400
    assert isinstance(client.retries, int)
    assert 0 <= client.retries <= 100
    assert 0 < client.requests_per_second < math.inf
    if client.base_url is not None:
        parts = urlsplit(client.base_url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert (parts.username, parts.password, parts.query, parts.fragment) == (None, None, "", "")
        assert client.base_url.isprintable()
        assert not any(char.isspace() or char == "\\" for char in client.base_url)
        # What is asked for there is known as its own when a reply names it.
        url, _ = fetch_request("v6/video", "147", client.key, client.base_url)
        assert parse_fetch_url(url, client.base_url) == JobAddress("v6/video", "147", "", "path")


@pytest.mark.parametrize("key", ["8charkey", "k" * 60])
def test_a_key_is_not_shown_by_what_holds_it(key):
    assert key not in repr(read_connection(SimpleNamespace(password=key, host="", port=None, schema=None, extra="")))
