"""The API key stays where it belongs: a server echoes it wherever it can, and what comes of that is searched for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_modelslab._protocol.arguments import parse_jobs
from airflow_provider_modelslab._protocol.outcomes import HttpReply
from airflow_provider_modelslab.endpoints import FetchEndpoint, fetch_request, parse_fetch_url
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.dag_runs import AIRFLOW_3_0, TEST_DAGS, Run, load_dags
from tests.support.echoes import KEYS, EchoServer, traces, traces_in_database, traces_in_files
from tests.support.pacing import FAST, set_policy, simulate
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance
from tests.support.triggers import event_of, make_trigger

TO_MASK = "msg=MaskSecret("
"""In lines of Airflow 3.0 itself, at its level DEBUG: it passes on what is to be masked, and says what that is."""

every_key = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@pytest.fixture
def everything_logged(log: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What any logger says at any level: ours, Airflow's, aiohttp's, urllib3's, asyncio's."""
    log.set_level(logging.DEBUG)
    return log


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def connect(connection: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", connection)

    return connect


@pytest.fixture
def echoing(key: str, connect) -> Iterator[EchoServer]:
    with EchoServer(key) as server:
        connect(server.connection)
        yield server


def told_by(error: BaseException | None) -> Iterator[str]:
    """Yield all that an exception, and those behind it, may tell a person."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)), *getattr(each, "__notes__", ()))
        waiting += [each.__cause__, each.__context__]
    if error is not None:
        yield "".join(traceback.format_exception(error))


def outcome(call: Callable[[], Any]) -> list[str]:
    """Return all that a call tells: its result in every form, or its exception."""
    try:
        result = call()
    except Exception as error:
        return list(told_by(error))
    return [repr(result), str(result), json.dumps(result.to_dict() if isinstance(result, Job) else result)]


def hooks_calls() -> dict[str, Callable[[], Any]]:
    submission = ("v6/video/text2video", {"prompt": "a fox"})
    return {
        "fetch": lambda: ModelsLabHook().fetch(1, "v6/video"),
        "submit": lambda: ModelsLabHook().submit(*submission),
        "wait": lambda: ModelsLabHook().wait(1, "v6/video", timeout=0.05, poke_interval=0.01),
        "test_connection": lambda: ModelsLabHook().test_connection(),
        "afetch": lambda: asyncio.run(ModelsLabHook().afetch(1, "v6/video")),
        "asubmit": lambda: asyncio.run(ModelsLabHook().asubmit(*submission)),
    }


@every_key
@pytest.mark.parametrize("call", hooks_calls())
def test_no_reply_makes_the_hook_tell_the_key(echoing: EchoServer, key, call, everything_logged, connect):
    connect(echoing.connection.replace('"retries": 1', '"retries": 0'))
    replies = [echoing.reply(*each) for each in (*echoing.troubles(), *echoing.refusals(), (echoing.success(), 200))]
    for answer in (*replies, *echoing.broken()):
        echoing.server.answer_to = lambda request, answer=answer: answer  # type: ignore[misc]
        told = outcome(hooks_calls()[call])
        assert not [trace for text in told for trace in traces(text, key)], answer
    assert echoing.server.requests
    assert all(key_is_only_in_the_body(request, key) for request in echoing.server.requests)
    assert not traces(everything_logged.text, key)


def key_is_only_in_the_body(request: bytes, key: str) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    return not traces(head.decode("utf-8", "replace"), key) and json.loads(body)["key"] == key


@every_key
def test_what_is_done_comes_out_with_stars(echoing: EchoServer, key):
    """An output URL that contains the key is of no use without it; it was no secret any more, and is none of ours."""
    echoing.server.answer_to = lambda request: echoing.reply(echoing.success())
    job = ModelsLabHook().fetch(1, "v6/video")
    assert job.outputs == ["https://cdn.example/a.png?key=***", "https://cdn.example/b.png"]
    assert job.meta["request"]["key"] == "***"
    assert job.meta["request"]["***"][0].startswith("*** | ")


def deferred_wait(jobs: Any) -> tuple[list[Any], list[str]]:
    """Wait as a deferred task does; return what is stored meanwhile and afterwards, and what exceptions tell."""
    task_instance = RecordingTaskInstance()
    sensor = ModelsLabJobSensor(task_id="wait", jobs=jobs, endpoint="v6/video", deferrable=True, poke_interval=0.01)
    stored: list[Any] = [task_instance.xcoms]

    try:
        try:
            sensor.execute({"ti": task_instance})
        except TaskDeferred as deferral:
            stored += [deferral.trigger.serialize(), deferral.kwargs, repr(deferral.trigger), vars(deferral.trigger)]
            stored.append(event := event_of(deferral.trigger))
            stored.append(sensor.execute_complete({"ti": task_instance}, event))
    except Exception as error:
        return stored, list(told_by(error))
    return stored, []


@every_key
@pytest.mark.parametrize("ending", ["success", "failed", "refused"])
def test_a_deferred_wait_stores_no_key(echoing: EchoServer, key, ending, everything_logged, monkeypatch):
    set_policy(monkeypatch, **FAST)
    echoing.ending = ending
    job = ModelsLabHook().submit("v6/video/text2video", {"prompt": "a fox"}).to_dict()
    if ending == "refused":
        answers = iter([echoing.reply(echoing.document("processing"))] * 3)
        refused = echoing.reply(echoing.document("error"), 401)
        echoing.server.answer_to = lambda request: next(answers, refused)
    stored, told = deferred_wait(job)
    assert bool(told) == (ending != "success")
    assert "jobs" in stored[0]
    assert not traces(json.dumps([repr(each) for each in stored], ensure_ascii=False), key)
    assert not [trace for text in told for trace in traces(text, key)]
    assert not traces(everything_logged.text, key)
    assert all(key_is_only_in_the_body(request, key) for request in echoing.server.requests)


@pytest.fixture(scope="module")
def dags(airflow_database):
    return load_dags(TEST_DAGS / "echoes.py")


@pytest.mark.parametrize("ending", ["success", "failed"])
@pytest.mark.parametrize("mode", ["deferrable", "poke", "reschedule"])
@pytest.mark.parametrize("key", [KEYS["quotes"]], ids=["quotes"])
def test_a_whole_run_leaves_no_key(dags, connect, key, mode, ending, capfd, caplog, monkeypatch):
    """``dag.test()`` masks nothing: what is not there was never written."""
    if mode == "reschedule" and AIRFLOW_3_0:
        pytest.skip("dag.test() of Airflow 3.0 cannot resume a sensor that was rescheduled twice")
    set_policy(monkeypatch, **FAST)
    caplog.set_level(logging.DEBUG)
    with EchoServer(key, ending, trouble=6) as server:
        connect(server.connection)
        run = Run(dags[f"echoes_{mode}"])
    assert run.state == ending, run.states
    assert run.xcom("wait", "jobs")[0]["status"] == ending
    output = capfd.readouterr()
    lines = [
        line for line in (output.out + output.err + caplog.text).splitlines() if not (AIRFLOW_3_0 and TO_MASK in line)
    ]
    assert any("echoes_" in line for line in lines)
    assert not traces("\n".join(lines), key)
    home = Path(os.environ["AIRFLOW_HOME"])
    database = next(home.glob("*.db"))
    assert not traces_in_database(f"sqlite:///{database}", key)
    # SQLite holds locks on its files: this process would lose them by closing what it has opened for reading.
    assert not traces_in_files(home, key, leave_out=home.glob(f"{database.name}*"))


def test_the_search_finds_what_is_there(dags, connect, tmp_path: Path):
    """What the tests above trust in."""
    key = KEYS["unicode"]
    for spelling in (key, json.dumps({"a": key}), repr([key]), f"x{json.dumps(json.dumps(key))}"):
        assert traces(spelling, key)
    (tmp_path / "a.log").write_text(json.dumps(key))
    assert traces_in_files(tmp_path, key) == [tmp_path / "a.log"]
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (a TEXT, b BLOB)"))
        connection.execute(sqlalchemy.text("INSERT INTO t VALUES (:a, :b)"), {"a": "x", "b": key.encode()})
    engine.dispose()
    assert traces_in_database(f"sqlite:///{tmp_path / 'a.db'}", key) == {("t", "b")}


@every_key
def test_what_is_wrong_with_a_job_is_said_without_the_key(key):
    wrong = [
        f"Invalid key {key}",
        {"id": f"no id: {key}"},
        {"id": 1, "fetch_result": f"https://evil.example/{key}"},
        {"id": 1, "fetch_result": f"https://{key}.evil.example/api/v6/video/fetch/1"},
        {"id": 1, "endpoint": f"a b {key}"},
        {"id": 1, "endpoint": "v6/video", "status": key},
        {key: key},
        f"https://{key}@modelslab.com/api/v6/video/fetch/1",
        f"https://modelslab.com/{key}",
    ]
    for job in wrong:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is polled
            parse_jobs([job], "v6/video", None, key)
        assert not [trace for text in told_by(caught.value) for trace in traces(text, key)], job


def test_a_reply_shows_no_body():
    assert "the-api-key" not in repr(HttpReply(200, b"the-api-key"))


# --- other hosts ---

FOREIGN = [
    "https://evil.example/api/v6/video/fetch/1",
    "https://modelslab.com@evil.example/api/v6/video/fetch/1",
    "https://modelslab.com:443@evil.example/api/v6/video/fetch/1",
    "https://user:pass@modelslab.com/api/v6/video/fetch/1",
    "https://modelslab.com.evil.example/api/v6/video/fetch/1",
    "https://evil-modelslab.com/api/v6/video/fetch/1",
    "https://evilmodelslab.com/api/v6/video/fetch/1",
    "https://api.modelslab.com/api/v6/video/fetch/1",
    "https://modelslab.com./api/v6/video/fetch/1",
    "https://modelslab.com:8443/api/v6/video/fetch/1",
    "https://modelslab.com:80/api/v6/video/fetch/1",
    "http://modelslab.com:443/api/v6/video/fetch/1",
    "https://modelslab.com:x/api/v6/video/fetch/1",
    "ftp://modelslab.com/api/v6/video/fetch/1",
    "file:///api/v6/video/fetch/1",
    "gopher://modelslab.com/api/v6/video/fetch/1",
    "javascript://modelslab.com/api/v6/video/fetch/1",
    "//evil.example/api/v6/video/fetch/1",
    "https:///api/v6/video/fetch/1",
    "https:evil.example/api/v6/video/fetch/1",
    "https://modelslab.com\\@evil.example/api/v6/video/fetch/1",
    "https://evil.example\\@modelslab.com/api/v6/video/fetch/1",
    "https://evil.example\\.modelslab.com/api/v6/video/fetch/1",
    "https:\\\\evil.example/api/v6/video/fetch/1",
    "https://evil.example#@modelslab.com/api/v6/video/fetch/1",
    "https://evil.example?@modelslab.com/api/v6/video/fetch/1",
    "https://evil.example;@modelslab.com/api/v6/video/fetch/1",
    "https://evil.example %00@modelslab.com/api/v6/video/fetch/1",
    "https://modelslab.com%2eevil.example/api/v6/video/fetch/1",
    "https://modelslab%2ecom/api/v6/video/fetch/1",
    "https://modelslab.com /api/v6/video/fetch/1",
    "https://modelslab.com\u3002evil.example/api/v6/video/fetch/1",
    "https://modelslab\uff0ecom/api/v6/video/fetch/1",
    "https://m\u043edelslab.com/api/v6/video/fetch/1",
    "https://\uff4dodelslab.com/api/v6/video/fetch/1",
    "https://modelslab.com\u2100evil.example/api/v6/video/fetch/1",
    "https://modelslab.com\uff20evil.example/api/v6/video/fetch/1",
    "https://xn--mdelslab-0fb.com/api/v6/video/fetch/1",
    "https://[::ffff:127.0.0.1]/api/v6/video/fetch/1",
    "https://[modelslab.com]/api/v6/video/fetch/1",
    "https://2130706433/api/v6/video/fetch/1",
]

TWISTED = [
    "https://modelslab.com/api/v6/video/fetch/1",
    " https://MODELSLAB.com:443/api/v6/video/fetch/1 ",
    "https://modelslab.com/api/v6/video/fetch/1?next=https://evil.example/#@evil.example",
    "ht\ntps://models\tlab.com/api/v6/video/fetch/1",
    "https://modelslab.com/api/v6/video/fetch/..%2f..%2fevil",
    "https://modelslab.com/api/../../evil.example/api/v6/video/fetch/1",
    "https://modelslab.com//evil.example/api/v6/video/fetch/1",
    "https://modelslab.com/api//evil.example/fetch/1",
    "https://modelslab.com/api/@evil.example/fetch/1",
    "https://modelslab.com/api/v6/video/fetch/1@evil.example",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_a_foreign_fetch_result_is_refused(url):
    with pytest.raises(ValueError, match="fetch_result"):
        parse_fetch_url(url)
    with pytest.raises(ValueError, match="fetch_result"):
        parse_fetch_url(url, "https://gateway.example/modelslab")


@pytest.mark.parametrize("url", [*FOREIGN, *TWISTED])
def test_whatever_a_fetch_result_says_the_request_goes_to_modelslab(url):
    """The URL itself is never asked: only a family and an id are taken from it."""
    try:
        address = parse_fetch_url(url)
    except ValueError:
        return
    target, _ = fetch_request(address.endpoint, address.job_id or "1", "the-api-key")
    assert target.startswith(("https://modelslab.com/api/v", "https://stablediffusionapi.com/api/v"))
    assert not {"@", "\\", "..", "%", "?", "#"} & set(target.replace("..", "\\"))


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    """A server that must hear nothing, and that stands as a proxy before all hosts which are not on this machine."""
    with RawServer() as server:
        server.answer(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n")
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, server.url)
        yield server


@pytest.mark.parametrize("asynchronous", [False, True], ids=["worker", "event loop"])
def test_a_hostile_reply_to_a_submission_leads_nowhere(raw_server: RawServer, stranger, connect, asynchronous):
    connect(raw_server.connection)
    hook = ModelsLabHook()
    for url in [*FOREIGN, f"{stranger.url}/api/v6/video/fetch/1"]:
        queued = reply({"status": "processing", "id": 7, "fetch_result": url}, 200, {"Location": stranger.url})
        raw_server.answer(queued, reply({"status": "success", "output": ["https://cdn.example/a.png"]}))
        if asynchronous:
            job = asyncio.run(hook.asubmit("v6/video/text2video", {}))
            assert asyncio.run(hook.afetch(job.id, job.endpoint)).outputs
        else:
            job = hook.submit("v6/video/text2video", {})
            assert hook.wait(job).outputs
        assert (job.id, job.endpoint) == ("7", "v6/video")
    assert not stranger.requests


@pytest.mark.parametrize("asynchronous", [False, True], ids=["worker", "event loop"])
def test_a_hostile_job_is_refused_before_anything_is_sent(raw_server: RawServer, stranger, connect, asynchronous):
    connect(raw_server.connection)
    for url in [*FOREIGN, f"{stranger.url}/api/v6/video/fetch/1"]:
        for jobs in ({"id": 7, "fetch_result": url}, url):
            sensor = ModelsLabJobSensor(
                task_id="wait", jobs="{{ later }}", endpoint="v6/video", deferrable=asynchronous
            )
            sensor.jobs = jobs
            with pytest.raises(ModelsLabArgumentError):
                sensor.execute({"ti": RecordingTaskInstance()})
    assert not stranger.requests
    assert not raw_server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_the_key_elsewhere(raw_server: RawServer, stranger, connect, status, monkeypatch):
    """Neither hook, nor poke, nor trigger; the second server is named as itself and as a host of the internet."""
    connect(raw_server.connection)
    simulate(monkeypatch)
    for location in (f"{stranger.url}/api/v6/video/fetch/1", "http://evil.example/", "https://evil.example/", "//evil"):
        raw_server.answer(reply({}, status, {"Location": location, "Refresh": f"0; url={location}"}))
        for call in hooks_calls().values():
            outcome(call)
        jobs = [{"id": "1", "endpoint": "v6/video"}]
        event_of(make_trigger(jobs, 0.2))
    assert len(raw_server.requests) > 4 * len(hooks_calls())
    assert not stranger.requests


@pytest.mark.parametrize("endpoint", list(FetchEndpoint))
def test_without_a_host_of_its_own_a_connection_leads_to_modelslab_only(stranger, connect, endpoint):
    """Behind a proxy, which sees where TLS connections go to, and nothing of the key."""
    connect(json.dumps({"conn_type": "modelslab", "password": "the-api-key", "extra": {"retries": 0}}))
    outcome(lambda: ModelsLabHook().fetch(1, endpoint))
    outcome(lambda: asyncio.run(ModelsLabHook().afetch(1, endpoint)))
    heads = {request.rpartition(b" HTTP/")[0] for request in (each.split(b"\r\n")[0] for each in stranger.requests)}
    assert heads <= {b"CONNECT modelslab.com:443", b"CONNECT stablediffusionapi.com:443"}
    assert len(stranger.requests) == 2
    assert b"the-api-key" not in b"".join(stranger.requests)
