"""The hook against the sandbox and against a raw server, over real sockets, on workers' and event loops' side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_modelslab._polling.waits import JobWaits
from airflow_provider_modelslab._polling.worker_poller import POLLS_AT_A_TIME
from airflow_provider_modelslab._protocol.replies import Verdict
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabPlanError,
    ModelsLabRateLimited,
    ModelsLabRequestError,
    ModelsLabTimeout,
    ModelsLabTransientError,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sandbox.shapes import TEXT, TRANSCRIPT
from tests.support.pacing import SimulatedClock, simulate, simulated
from tests.support.raw_server import RESET, RawServer, reply
from tests.support.waiting import wait_until

VIDEO = "v6/video/text2video"
PROMPT = {"prompt": "a lighthouse at dusk"}


class Workers:
    """The hook as worker code uses it."""

    fetch = staticmethod(lambda *args: ModelsLabHook().fetch(*args))
    submit = staticmethod(lambda *args, **more: ModelsLabHook().submit(*args, **more))


class EventLoops:
    """The hook as asynchronous code uses it."""

    fetch = staticmethod(lambda *args: asyncio.run(ModelsLabHook().afetch(*args)))
    submit = staticmethod(lambda *args, **more: asyncio.run(ModelsLabHook().asubmit(*args, **more)))


both = pytest.mark.parametrize("client", [Workers, EventLoops])


@pytest.fixture
def server(raw_server: RawServer, monkeypatch: pytest.MonkeyPatch) -> RawServer:
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    return raw_server


# --- fetching and submitting ---


@both
def test_a_job_from_submission_to_success(sandbox: Sandbox, client):
    job = client.submit(VIDEO, PROMPT)
    assert (job.status, job.endpoint) == ("processing", "v6/video")
    assert job.eta is None or job.eta > 0
    assert client.fetch(job.id, job.endpoint).status == "processing"
    sandbox.finish(job.id)
    done = client.fetch(int(job.id), job.endpoint)
    assert done.status == "success"
    assert done.outputs[0].startswith(f"{sandbox.url}/files/")


@both
def test_a_misspelt_generation_endpoint_is_answered_with_the_one_that_is_meant(server: RawServer, client):
    server.answer(reply({"status": "error", "message": "The route could not be found."}, 404))
    with pytest.raises(ModelsLabRequestError, match=r"did you mean 'v6/video/text2video'\?"):
        client.submit("v6/video/text2vidoe", PROMPT)


@both
def test_a_failed_job_is_a_job(sandbox: Sandbox, client):
    job = client.submit(VIDEO, PROMPT)
    sandbox.fail(job.id, "No GPU left")
    failed = client.fetch(job.id, job.endpoint)
    assert (failed.status, failed.message, failed.outputs) == ("failed", "No GPU left", [])


@both
@pytest.mark.parametrize(
    "shape", ["output_in_proxy_links", "output_in_links", "output_url", "output_objects", "output_nested"]
)
def test_urls_are_found_wherever_they_stand(sandbox: Sandbox, client, shape):
    job = client.submit(VIDEO, PROMPT)
    sandbox.finish(job.id)
    sandbox.script("fetch", [shape])
    (url,) = client.fetch(job.id, job.endpoint).outputs
    assert str(url).startswith(f"{sandbox.url}/files/")


@both
@pytest.mark.parametrize(
    ("shape", "output"),
    [("output_text", TEXT), ("output_transcript", TRANSCRIPT), ("output_in_meta", TRANSCRIPT)],
)
def test_texts_and_structured_results_are_outputs(sandbox: Sandbox, client, shape, output):
    job = client.submit(VIDEO, PROMPT)
    sandbox.finish(job.id)
    sandbox.script("fetch", [shape])
    assert client.fetch(job.id, job.endpoint).outputs == [output]


@both
@pytest.mark.parametrize(
    ("shape", "host"),
    [
        ("id_as_request_id", ""),
        ("id_in_fetch_result", ""),
        ("processing_error", ""),
        ("foreign_fetch_result", ""),
        ("official_fetch_result", "modelslab.com"),
    ],
)
def test_a_job_is_polled_whatever_its_reply_calls_the_id(sandbox: Sandbox, client, shape, host):
    sandbox.script("submit", [shape])
    job = client.submit(VIDEO, PROMPT)
    sandbox.finish_all()
    assert (int(job.id), job.host) == (*sandbox.jobs, host)
    assert client.fetch(job).status == client.fetch(job.to_dict()).status == "success"


@both
def test_an_unusable_reply_names_every_id_that_it_has(sandbox: Sandbox, client):
    sandbox.script("submit", ["id_elsewhere"])
    with pytest.raises(ModelsLabAmbiguousSubmission, match="names order_id '3") as raised:
        client.submit(VIDEO, PROMPT)
    assert raised.value.ids == {"order_id": str(*sandbox.jobs)}


@both
def test_an_unknown_id_is_a_failed_job(sandbox: Sandbox, client):
    job = client.fetch(999, "v6/video")
    assert (job.status, job.message) == ("failed", "Request not found")


@both
@pytest.mark.parametrize("endpoint", ["v1/enterprise", "v4/dreambooth", "v3", "v6/images"])
def test_both_wire_forms(sandbox: Sandbox, client, endpoint):
    job = sandbox.submit(f"{endpoint}/text2img", PROMPT)
    sandbox.finish(job["id"])
    assert client.fetch(job["id"], endpoint).status == "success"


@both
@pytest.mark.parametrize(
    "answer", [b"", RESET, b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{", b"garbage\r\n\r\n", reply(b"<html>", 502)]
)
def test_a_fault_that_stays_is_raised_as_transient(server: RawServer, client, answer):
    server.answer(answer)
    with pytest.raises(ModelsLabTransientError, match="could not be asked"):
        client.fetch(1, "v6/video")


@both
def test_a_fault_without_words_is_told_by_its_status(server: RawServer, client):
    server.answer(reply({}, 308, {"Location": "/elsewhere"}))
    with pytest.raises(ModelsLabTransientError, match="HTTP 308 without a reason"):
        client.fetch(1, "v6/video")


@both
def test_a_server_that_is_not_there(monkeypatch, client):
    server = RawServer()  # has a port, on which it does not listen
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", server.connection)
    with pytest.raises(ModelsLabTransientError, match="no connection"):
        client.fetch(1, "v6/video")
    with pytest.raises(ModelsLabTransientError, match="no connection"):
        client.submit(VIDEO, PROMPT)


@both
@pytest.mark.parametrize("fault", ["drop", "drop_midway", "truncated", "html", "http_500", "http_502", "empty_error"])
def test_a_submission_is_never_repeated_when_it_may_have_arrived(sandbox: Sandbox, client, fault):
    sandbox.script("submit", [fault])
    with pytest.raises(ModelsLabAmbiguousSubmission, match="may have been billed"):
        client.submit(VIDEO, PROMPT)
    assert sandbox.state()["requests"]["submit"] == 1


@both
@pytest.mark.parametrize(
    ("status", "message", "error", "advice"),
    [
        (400, "Invalid API Request", ModelsLabRequestError, "Correct"),
        (401, "Invalid API key", ModelsLabAuthError, "valid key"),
        (402, "Insufficient credits", ModelsLabCreditsError, "Top up"),
        (403, "This feature requires a premium subscription", ModelsLabPlanError, "plan"),
        (422, {"prompt": ["missing"]}, ModelsLabRequestError, "prompt: missing"),
        (200, "Invalid API key", ModelsLabAuthError, "modelslab_default"),
        (200, "Your monthly limit exceeded", ModelsLabCreditsError, "monthly limit"),
    ],
)
def test_errors_that_are_not_about_the_job(server: RawServer, client, status, message, error, advice):
    server.answer(reply({"status": "error", "message": message}, status))
    for call, args in ((client.fetch, (1, "v6/video")), (client.submit, (VIDEO, PROMPT))):
        with pytest.raises(error, match=advice):
            call(*args)
    # At a submission, a refusal of the account is believed once a second request says so.
    of_the_account = issubclass(error, (ModelsLabAuthError, ModelsLabCreditsError, ModelsLabPlanError))
    assert len(server.requests) == (3 if of_the_account else 2)


@both
@pytest.mark.parametrize(
    "queue_timeout", [0, timedelta(), 29], ids=["no wait", "none, as a timedelta", "a wait too short for another try"]
)
def test_a_full_queue_at_submission(sandbox: Sandbox, client, queue_timeout):
    sandbox.script("submit", ["rate_limit"])
    with pytest.raises(ModelsLabRateLimited, match="nothing was accepted") as caught:
        client.submit(VIDEO, PROMPT, queue_timeout=queue_timeout)
    assert caught.value.retry_after == 30
    assert sandbox.state()["submissions"] == {"accepted": 0, "rejected": 1}


@pytest.fixture
def full_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(duration=0.3, queue_limit=5, retry_after=1) as full:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", full.connection)
        yield full


@both
def test_a_submission_waits_for_a_queue_slot(full_sandbox: Sandbox, client, log):
    full_sandbox.script("submit", ["rate_limit"] * 2)
    assert client.submit(VIDEO, PROMPT).status == "processing"
    assert full_sandbox.state()["submissions"] == {"accepted": 1, "rejected": 2}
    (line,) = [each for each in log.messages if "queue slot" in each]
    assert line.startswith("Waiting up to 1 hour for a queue slot: Rate limit exceeded")


@both
def test_a_lost_reply_after_the_wait_for_a_queue_slot_is_not_repeated(full_sandbox: Sandbox, client):
    full_sandbox.script("submit", ["rate_limit", "drop"])
    with pytest.raises(ModelsLabAmbiguousSubmission):
        client.submit(VIDEO, PROMPT)
    assert full_sandbox.state()["submissions"] == {"accepted": 1, "rejected": 1}


def test_after_a_rate_limit_a_worker_asks_for_none_of_its_other_jobs(server: RawServer, monkeypatch):
    simulate(monkeypatch)
    server.answer(reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 30}, 429))
    jobs = [Job(id=str(number), endpoint="v6/video") for number in range(200)]
    replies = ModelsLabHook().poller.poll_many(jobs)
    assert [each.verdict for each in replies] == [Verdict.RATE_LIMITED] * 200
    assert [each.retry_after for each in replies] == pytest.approx([30] * 200)
    assert [each.job.id for each in replies] == [job.id for job in jobs]
    assert len(server.requests) <= POLLS_AT_A_TIME


def test_after_a_rate_limit_a_worker_submits_nothing_until_the_pause_is_over(server: RawServer, monkeypatch):
    clock = simulate(monkeypatch)
    server.answer(
        reply({"status": "error", "message": "Too Many Attempts.", "retry_after": 30}, 429),
        reply({"status": "processing", "id": 1, "eta": 5}),
    )
    hook = ModelsLabHook()
    for _ in range(2):
        with pytest.raises(ModelsLabRateLimited) as refused:
            hook.submit(VIDEO, PROMPT, queue_timeout=0)
        assert refused.value.retry_after == pytest.approx(30)
    assert len(server.requests) == 1
    clock.move(30)
    assert hook.submit(VIDEO, PROMPT, queue_timeout=0).id == "1"


@both
def test_25_submissions_at_once_pass_5_queue_slots(client, monkeypatch):
    prompts = [f"prompt {number}" for number in range(25)]
    with Sandbox(duration=float("inf"), queue_limit=5, retry_after=1) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection)
        with ThreadPoolExecutor(25) as pool:
            submissions = [
                pool.submit(client.submit, VIDEO, {"prompt": prompt}, queue_timeout=600) for prompt in prompts
            ]
            for accepted in range(5, 26, 5):
                wait_until(lambda: len(sandbox.jobs) == accepted)  # noqa: B023
                wait_until(lambda: accepted == 25 or sandbox.state()["submissions"]["rejected"] > 0)  # noqa: B023
                sandbox.finish_all()
        jobs = [submission.result() for submission in submissions]
        assert [sandbox.jobs[int(job.id)].request.meta["prompt"] for job in jobs] == prompts
        assert sandbox.state()["max_in_flight"] == 5


@both
@pytest.mark.parametrize(
    ("job_id", "endpoint", "name"),
    [
        (True, "v3", "^job_id: a job id"),
        ("a/b", "v3", "^job_id: job id 'a/b'"),
        (1, None, "endpoint"),
        (1, "", "endpoint"),
        (1, VIDEO, "generation endpoint"),
    ],
)
def test_bad_arguments_of_fetch(server: RawServer, client, job_id, endpoint, name):
    with pytest.raises(ModelsLabArgumentError, match=name):
        client.fetch(job_id, endpoint)


@both
@pytest.mark.parametrize(
    ("path", "payload", "name"),
    [
        ("", PROMPT, "path"),
        (VIDEO, None, "payload"),
        (VIDEO, [1], "payload"),
        (VIDEO, {"key": "mine"}, "payload must not hold 'key'"),
        (VIDEO, {"prompt": object()}, "payload"),
        (VIDEO, {"strength": float("nan")}, "payload"),
        ("v6/video", PROMPT, "family under which jobs are fetched"),
    ],
)
def test_bad_arguments_of_submit(client, path, payload, name):
    with pytest.raises(ModelsLabArgumentError, match=name):
        client.submit(path, payload)


def test_many_jobs_are_polled_together(server: RawServer):
    server.together = POLLS_AT_A_TIME  # answers nobody until so many ask at the same time
    jobs = [Job(id=str(number), endpoint="v6/video") for number in range(POLLS_AT_A_TIME)]
    replies = ModelsLabHook().poller.poll_many(jobs)
    assert [each.verdict for each in replies] == [Verdict.PROCESSING] * POLLS_AT_A_TIME
    assert [each.job.id for each in replies] == [job.id for job in jobs]


@both
def test_the_environments_proxy_is_used(server: RawServer, monkeypatch, client, request):
    host = f"{request.node.callspec.id.lower()}.modelslab.invalid"
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", server.connection.replace(server.url, f"http://{host}"))
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    assert client.fetch(1, "v6/video").status == "processing"
    assert server.requests[0].startswith(f"POST http://{host}/api/v6/video/fetch/1 HTTP/1.1".encode())


def test_concurrent_fetches_do_not_disturb_each_other(sandbox: Sandbox):
    async def poll_at_many() -> list[Job]:
        hook = ModelsLabHook()
        return await asyncio.gather(*(hook.afetch(147, "v1/enterprise/video") for _ in range(20)))

    sandbox.script("fetch", ["slow", None] * 5)
    assert {job.status for job in asyncio.run(poll_at_many())} == {"success"}
    assert len(sandbox.requests) == 20


@both
def test_tls_where_there_is_none_has_sent_nothing(sandbox: Sandbox, client, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection.replace("http://", "https://"))
    with pytest.raises(ModelsLabTransientError, match="TLS"):
        client.submit(VIDEO, PROMPT)


@both
def test_a_host_that_cannot_be_addressed(client, monkeypatch):
    connection = '{"conn_type": "modelslab", "host": "http://a..b", "password": "the-api-key", "extra": {"retries": 0}}'
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", connection)
    with pytest.raises(ModelsLabTransientError):
        client.submit(VIDEO, PROMPT)


REFUSALS = {
    401: {"status": "error", "message": "Invalid API key"},
    402: {"status": "error", "message": "Insufficient credits."},
    403: {"status": "error", "message": "This feature requires a premium subscription"},
}


@both
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_of_the_account_is_not_believed_before_a_second_one(server: RawServer, client, status):
    refused = reply(REFUSALS[status], status)
    server.answer(refused, reply({"status": "processing", "id": 1}))
    assert client.submit(VIDEO, PROMPT).id == "1"
    server.answer(refused)
    with pytest.raises((ModelsLabAuthError, ModelsLabCreditsError, ModelsLabPlanError)):
        client.submit(VIDEO, PROMPT)
    assert len(server.requests) == 4


@both
def test_a_refusal_that_names_a_job_may_be_none(server: RawServer, client):
    server.answer(reply({"id": 7, **REFUSALS[401]}, 401))
    with pytest.raises(ModelsLabAmbiguousSubmission, match="7"):
        client.submit(VIDEO, PROMPT)
    assert len(server.requests) == 1


@both
def test_a_submission_has_a_connection_of_its_own(server: RawServer, client):
    """One that was kept alive may die with the request half sent."""
    server.answer(reply({"status": "processing", "id": 1}))
    hook = ModelsLabHook()
    hook.fetch(1, "v6/video")
    hook.submit(VIDEO, PROMPT)
    hook.submit(VIDEO, PROMPT)
    assert server.connections == 3


@both
@pytest.mark.parametrize(("pause", "requests"), [("1", 2), ("30", 1)])
def test_a_requested_pause_is_kept(server: RawServer, client, monkeypatch, pause, requests):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", server.connection.replace('"retries": 0', '"retries": 1'))
    server.answer(reply({}, 503, {"Retry-After": pause}))
    with pytest.raises(ModelsLabTransientError) as caught:
        client.fetch(1, "v6/video")
    assert caught.value.retry_after == float(pause)
    assert len(server.requests) == requests


@both
def test_an_ambiguous_reply_names_the_job_that_it_names(server: RawServer, client):
    server.answer(reply({"status": "error", "message": "Internal server error.", "id": 4711}, 500))
    with pytest.raises(ModelsLabAmbiguousSubmission, match="v6/video:4711"):
        client.submit(VIDEO, PROMPT)


# --- waiting ---


def test_wait_returns_the_successful_job(sandbox: Sandbox):
    hook = ModelsLabHook()
    job = hook.submit(VIDEO, PROMPT)
    sandbox.script("fetch", [None, "http_503", "html", "not_found", "empty_output", "empty_error"])
    ending = threading.Thread(target=finish_after_requests, args=(sandbox, job.id, 6))
    ending.start()
    assert hook.wait(job, poke_interval=0.01).outputs
    ending.join()


def finish_after_requests(sandbox: Sandbox, job_id: str, count: int) -> None:
    wait_until(lambda: sandbox.state()["requests"].get("fetch", 0) >= count)
    sandbox.finish(job_id)


def test_wait_takes_an_id_and_an_endpoint(sandbox: Sandbox):
    assert ModelsLabHook().wait(147, "v1/enterprise/video").outputs


def test_wait_takes_a_record_or_a_reply(sandbox: Sandbox):
    reply_of_submission = sandbox.submit(VIDEO, PROMPT)
    sandbox.finish_all()
    assert ModelsLabHook().wait(reply_of_submission).outputs
    assert ModelsLabHook().wait(Job(id="147", endpoint="v1/enterprise/video").to_dict()).outputs


def test_wait_polls_once_more_at_its_end(sandbox: Sandbox, monkeypatch):
    """A job that is done between the last poll that was due and the end of the time is not lost."""

    class Meanwhile(SimulatedClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            sandbox.finish_all()

    monkeypatch.setattr(ModelsLabHook, "pacing", simulated(clock := Meanwhile()))
    job = sandbox.submit(VIDEO, PROMPT)
    assert ModelsLabHook().wait(job["id"], "v6/video", timeout=1, poke_interval=600).outputs
    assert clock.naps == [1]


@pytest.mark.parametrize("jobs", [[], [1, 2], None, "a b"])
def test_wait_takes_one_job(sandbox: Sandbox, jobs):
    with pytest.raises(ModelsLabArgumentError, match="job"):
        ModelsLabHook().wait(jobs, "v6/video")


def test_wait_returns_a_job_that_is_done_without_asking(sandbox: Sandbox):
    done = Job(id="", endpoint="v6/images", status="success", outputs=["https://cdn/a.png"])
    assert ModelsLabHook().wait(done) is done
    assert not sandbox.requests


def test_wait_raises_for_a_failed_job(sandbox: Sandbox):
    job = sandbox.submit(VIDEO, PROMPT)
    sandbox.fail(job["id"], "No GPU left")
    with pytest.raises(ModelsLabJobFailed, match="No GPU left") as caught:
        ModelsLabHook().wait(job["id"], "v6/video")
    assert [failed.message for failed in caught.value.jobs] == ["No GPU left"]


@pytest.mark.parametrize("wrong", [-1, "5", True, False, float("nan"), timedelta(seconds=-1), None])
def test_wrong_times_are_refused_before_anything_is_sent(sandbox: Sandbox, wrong):
    hook = ModelsLabHook()
    with pytest.raises(ModelsLabArgumentError, match="queue_timeout must be"):
        hook.submit(VIDEO, PROMPT, queue_timeout=wrong)
    with pytest.raises(ModelsLabArgumentError, match="timeout must be"):
        hook.wait(1, "v6/video", timeout=wrong)
    with pytest.raises(ModelsLabArgumentError, match="poke_interval must be"):
        hook.wait(1, "v6/video", poke_interval=wrong or 0)
    assert not sandbox.requests


def test_the_timeout_of_a_wait_says_that_it_could_not_poll(sandbox: Sandbox, monkeypatch):
    simulate(monkeypatch)
    job = ModelsLabHook().submit(VIDEO, PROMPT)
    sandbox.set_faults({"http_500": 1.0})
    with pytest.raises(ModelsLabTimeout, match=r"\(Internal server error.*failed polls in a row"):
        ModelsLabHook().wait(job, timeout=timedelta(minutes=5), poke_interval=timedelta(minutes=1))


def test_wait_ends_at_its_timeout(sandbox: Sandbox):
    job = sandbox.submit(VIDEO, PROMPT)
    with pytest.raises(ModelsLabTimeout, match=r"not done within 0\.05 s"):
        ModelsLabHook().wait(job["id"], "v6/video", timeout=0.05, poke_interval=0.01)


@pytest.mark.parametrize("poke_interval", [None, 3.0, 600.0])
def test_wait_never_sleeps_beyond_its_deadline(sandbox: Sandbox, monkeypatch, poke_interval):
    clock = simulate(monkeypatch)
    job = sandbox.submit(VIDEO, PROMPT)
    with pytest.raises(ModelsLabTimeout):
        ModelsLabHook().wait(job["id"], "v6/video", timeout=10, poke_interval=poke_interval)
    assert sum(clock.naps) == pytest.approx(10)
    assert sandbox.state()["requests"]["fetch"] <= 8


def test_wait_ends_when_the_key_is_refused(server: RawServer):
    server.answer(reply({"status": "processing"}), reply({"status": "error", "message": "Invalid API key"}, 401))
    with pytest.raises(ModelsLabAuthError):
        ModelsLabHook().wait(1, "v6/video", poke_interval=0.01)


# --- the connection ---


def test_the_environment_variable_serves_where_there_is_no_connection(monkeypatch):
    monkeypatch.setenv("MODELSLAB_API_KEY", "key-from-outside")
    assert ModelsLabHook().options.key == "key-from-outside"
    assert redact("the key is key-from-outside") == "the key is ***"
    assert asyncio.run(ModelsLabHook().aoptions()).base_url is None


def test_the_key_of_the_environment_is_masked_on_an_event_loop_too(monkeypatch):
    monkeypatch.setenv("MODELSLAB_API_KEY", "another-key-from-outside")
    asyncio.run(ModelsLabHook().aoptions())
    assert redact("the key is another-key-from-outside") == "the key is ***"


def test_the_connection_comes_before_the_environment_variable(sandbox: Sandbox, monkeypatch):
    monkeypatch.setenv("MODELSLAB_API_KEY", "key-from-outside")
    assert ModelsLabHook().options.key == sandbox.key


def test_a_misspelt_connection_is_not_replaced_by_the_environment_variable(monkeypatch):
    monkeypatch.setenv("MODELSLAB_API_KEY", "key-from-outside")
    with pytest.raises(ModelsLabArgumentError, match=r"'modelslab_prod' .* is not defined"):
        _ = ModelsLabHook("modelslab_prod").options


def test_no_connection_at_all():
    with pytest.raises(ModelsLabArgumentError, match="MODELSLAB_API_KEY"):
        _ = ModelsLabHook().options
    with pytest.raises(ModelsLabArgumentError, match="MODELSLAB_API_KEY"):
        asyncio.run(ModelsLabHook().aoptions())


def test_a_connection_without_a_key(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", '{"conn_type": "modelslab"}')
    with pytest.raises(ModelsLabArgumentError, match="Correct connection 'modelslab_default': it has no API key"):
        _ = ModelsLabHook().options


def test_test_connection(sandbox: Sandbox, monkeypatch):
    assert ModelsLabHook().test_connection() == (
        True,
        f"{sandbox.url.removeprefix('http://')} accepts the API key. Balance of its account: 43.6 USD",
    )
    assert sandbox.state()["submissions"]["accepted"] == 0
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", sandbox.connection.replace(sandbox.key, "another-key"))
    good, message = ModelsLabHook().test_connection()
    assert not good
    assert "Invalid API key" in message
    assert "enterprise" in message


def test_test_connection_with_an_enterprise_key(monkeypatch):
    with Sandbox(enterprise_key="enterprise-key") as sandbox:
        connection = sandbox.connection.replace(sandbox.key, "enterprise-key")
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", connection)
        good, message = ModelsLabHook().test_connection()
        assert not good
        assert "enterprise key" in message
        assert ModelsLabHook().fetch(147, "v1/enterprise/video").status == "success"


def test_test_connection_never_raises(monkeypatch):
    assert ModelsLabHook().test_connection()[0] is False
    server = RawServer()  # has a port, on which it does not listen
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", server.connection)
    good, message = ModelsLabHook().test_connection()
    assert not good
    assert "no connection" in message


@both
def test_nothing_of_a_request_is_logged(sandbox: Sandbox, client, log):
    job = client.submit(VIDEO, {"prompt": "a secret picture"})
    client.fetch(job.id, job.endpoint)
    assert sandbox.key not in log.text
    assert "a secret picture" not in log.text
    assert f"Polled job v6/video:{job.id}: processing" in log.text


# --- refusals of the account ---

REFUSED = reply({"status": "error", "message": "Invalid API key"}, 401)


def test_a_wait_goes_on_after_one_refusal_of_the_account(server: RawServer):
    server.answer(REFUSED, reply({"status": "success", "output": ["https://cdn/a"]}))
    assert ModelsLabHook().wait(1, "v6/video").outputs == ["https://cdn/a"]


def test_a_second_refusal_of_the_account_ends_a_wait_at_once(server: RawServer):
    server.answer(REFUSED)
    with pytest.raises(ModelsLabAuthError):
        ModelsLabHook().wait(1, "v6/video")
    assert len(server.requests) == 2


def test_a_job_that_was_polled_early_to_confirm_a_refusal_and_is_done_is_not_polled_again(
    server: RawServer, monkeypatch
):
    clock = SimulatedClock()
    pacing = simulated(clock)
    monkeypatch.setattr(ModelsLabHook, "pacing", pacing)
    server.answer(REFUSED, reply({"status": "success", "output": ["https://cdn/a"]}))
    waits = JobWaits([Job("1", "v6/video", eta=2.0), Job("2", "v6/video", eta=600.0)], pacing)
    ModelsLabHook().poller.wait(waits, clock.monotonic() + 3600)
    assert [job.status for job in waits.jobs()] == ["success"] * 2
    assert len(server.requests) == 3
    assert clock.monotonic() - 500.0 < 60
