"""The sensor's own steps: arguments, the first poll, deferral, the end of it. Whole runs are in test_modes."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseOperator,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_modelslab._polling import worker_poller
from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY
from airflow_provider_modelslab._polling.worker_poller import POLLS_AT_A_TIME
from airflow_provider_modelslab._tasks.deferral import TRIGGER_GRACE
from airflow_provider_modelslab.endpoints import FetchEndpoint
from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabTimeout,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply
from tests.support.tasks import RecordingTaskInstance, StateStore, deferral_of, event_after

VIDEO = "v6/video/text2video"
PROMPT = {"prompt": "a lighthouse at dusk"}


@pytest.fixture
def context() -> dict[str, RecordingTaskInstance]:
    return {"ti": RecordingTaskInstance()}


def sensor(jobs: object, **kwargs: Any) -> ModelsLabJobSensor:
    return ModelsLabJobSensor(**{"task_id": "wait", "endpoint": "v6/video", "deferrable": True, "jobs": jobs, **kwargs})


def submitted(sandbox: Sandbox, count: int = 1) -> list[int]:
    return [sandbox.submit(VIDEO, PROMPT)["id"] for _ in range(count)]


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": ""}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"jobs": None}, "jobs"),
        ({"jobs": [None]}, "jobs"),
        ({"jobs": True}, "jobs"),
        ({"jobs": 1.5}, "jobs"),
        ({"jobs": [[1], "../x"]}, "jobs"),
        ({"jobs": object()}, "jobs"),
        ({"jobs": {"id": BaseOperator(task_id="up")}}, "the task 'up' itself: pass its output"),
        ({"jobs": {"fetch_result": "https://user@modelslab.com/api/v3/fetch/1"}}, "fetch_result"),
        ({"jobs": 5, "endpoint": None}, "endpoint"),
        ({"jobs": {"id": 5}, "endpoint": None}, "endpoint"),
        ({"jobs": 5, "endpoint": "a b"}, "endpoint"),
        ({"jobs": "{{ x }}", "endpoint": 7}, "endpoint"),
        ({"jobs": 5, "endpoint": "v6/images/text2img"}, "fetched under 'v6/images'"),
        ({"jobs": "https://cdn.example/a.png"}, "the URL of an output"),
        ({"jobs": 5, "timeout": 0}, "timeout"),
        ({"jobs": 5, "timeout": timedelta()}, "timeout"),
        ({"jobs": 5, "poke_interval": 0}, "poke_interval"),
        ({"jobs": 5, "poke_interval": 1e300}, "poke_interval"),
        ({"jobs": 5, "poke_interval": "5"}, "poke_interval"),
        ({"jobs": 5, "output_path": "out/today"}, "output_path"),
        ({"jobs": 5, "output_path": "file://tmp/out"}, "output_path"),
        ({"jobs": 5, "if_exists": "replace"}, "if_exists"),
        ({"jobs": 5, "return_files": True}, "return_files needs an output_path"),
        ({"jobs": 5, "exponential_backoff": True}, "exponential_backoff has no effect"),
        ({"jobs": 5, "max_wait": 60}, "max_wait has no effect"),
        ({"jobs": 5, "silent_fail": True}, "silent_fail has no effect"),
    ],
)
def test_bad_arguments_are_refused_when_the_dag_is_parsed(arguments, name):
    with pytest.raises(ModelsLabArgumentError, match=name):
        sensor(**arguments)


@pytest.mark.parametrize(
    ("jobs", "endpoint"),
    [
        (5, "v6/video"),
        ("5", FetchEndpoint.V6_VIDEO),
        ("{{ params.id }}", "{{ params.endpoint }}"),
        (["{{ params.id }}", 5], None),
        ({"id": "{{ params.id }}"}, None),
        (5, "{{ params.endpoint }}"),
        (lambda context, jinja_env: 5, "v3"),
        ("[[ params.id ]]", "v3"),
        ({"fetch_result": "http://127.0.0.1:8787/api/v6/video/fetch/1"}, None),
    ],
)
def test_what_may_be_right_is_left_to_the_run(jobs, endpoint):
    assert sensor(jobs, endpoint=endpoint).jobs == jobs


def test_arguments_that_come_with_the_run_are_refused_then(sandbox: Sandbox, context):
    waiting = sensor("{{ x }}")
    for rendered in ("", "a b", [True], {"fetch_result": "https://evil.example/api/v3/fetch/1"}):
        waiting.jobs = rendered
        with pytest.raises(ModelsLabArgumentError, match="jobs"):
            waiting.execute(context)
    assert not sandbox.requests


@pytest.mark.parametrize("soft_fail", [True, False])
def test_a_wrong_argument_is_no_soft_failure(sandbox: Sandbox, context, soft_fail):
    waiting = sensor("{{ x }}", soft_fail=soft_fail)
    waiting.jobs = True
    with pytest.raises(ModelsLabArgumentError):
        waiting.execute(context)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("rendered", [[], "[]", (), [[], []]])
def test_no_jobs_at_run_time_are_no_outputs(sandbox: Sandbox, context, log, deferrable, rendered):
    waiting = sensor("{{ x }}", deferrable=deferrable)
    waiting.jobs = rendered
    assert waiting.execute(context) == []
    assert context["ti"].xcoms == {"jobs": []}
    assert not sandbox.requests


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_skipped_upstream_is_left_out(sandbox: Sandbox, context, log, deferrable):
    (job,) = submitted(sandbox)
    sandbox.finish_all()
    waiting = sensor("{{ x }}", deferrable=deferrable)
    waiting.jobs = [None, job]
    assert len(waiting.execute(context)) == 1
    assert "Left out 1 of 2 jobs: skipped upstream tasks" in log.messages
    waiting.jobs = [None, [None]]
    with pytest.raises(AirflowSkipException, match="all jobs were skipped"):
        waiting.execute(context)


def test_a_task_where_its_output_is_meant_is_refused():
    task = sensor(5)
    with pytest.raises(
        ModelsLabArgumentError, match=r"jobs(\[0\])? is the task 'wait' itself: pass its output, wait.output"
    ):
        sensor([task])


def test_the_delimiters_of_the_dag_are_heeded():
    with DAG("other_delimiters", schedule=None, jinja_environment_kwargs={"variable_start_string": "[["}):
        assert sensor("[[ params.ids ]]").jobs == "[[ params.ids ]]"
        with pytest.raises(ModelsLabArgumentError, match="jobs"):
            sensor("{{ params.ids }}", task_id="no_template_here")


# --- the first poll and the deferral ---


@pytest.mark.parametrize(("count", "more"), [(20, []), (23, ["The XComs have 3 outputs more"])])
def test_the_log_names_the_first_outputs_and_counts_the_rest(sandbox: Sandbox, context, log, count, more):
    ids = submitted(sandbox, count)
    sandbox.finish_all()
    urls = sensor(ids).execute(context)
    lines = [record.getMessage() for record in log.records]
    assert [line for line in lines if line.startswith("Output: ")] == [f"Output: {url}" for url in urls[:20]]
    assert [line for line in lines if "outputs more" in line] == more


@pytest.mark.parametrize("deferrable", [True, False])
def test_finished_jobs_return_at_the_first_poll(sandbox: Sandbox, context, deferrable):
    ids = submitted(sandbox, 3)
    sandbox.finish_all()
    urls = sensor(ids, deferrable=deferrable).execute(context)
    assert [record["id"] for record in context["ti"].xcoms["jobs"]] == [str(job_id) for job_id in ids]
    assert urls == [record["outputs"][0] for record in context["ti"].xcoms["jobs"]]
    assert len(sandbox.requests) == 3


def test_a_hundred_jobs_are_one_trigger_one_deferral_and_one_event(sandbox: Sandbox, context):
    ids = submitted(sandbox, 100)
    sandbox.finish(ids[7])
    waiting = sensor(ids, poke_interval=0.01)
    deferred = deferral_of(waiting, context)
    sandbox.finish_all()
    urls = waiting.execute_complete(context, event_after(deferred))
    assert len(urls) == 100
    assert [record["id"] for record in context["ti"].xcoms["jobs"]] == [str(job_id) for job_id in ids]
    # The worker stops looking where it has seen that it must defer: at the first job.
    assert sandbox.state()["requests"]["fetch"] == 1 + 100


def test_the_first_poll_goes_on_while_all_are_done(sandbox: Sandbox, context):
    ids = submitted(sandbox, 5 * POLLS_AT_A_TIME)
    for job_id in ids[: 2 * POLLS_AT_A_TIME]:
        sandbox.finish(job_id)
    deferred = deferral_of(sensor(ids), context)
    assert sum(job.get("status") == "success" for job in deferred.trigger.jobs) == 2 * POLLS_AT_A_TIME
    assert sandbox.state()["requests"]["fetch"] == 1 + 2 * POLLS_AT_A_TIME


def test_the_record_is_the_same_deferred_or_not(sandbox: Sandbox):
    job = submitted(sandbox)
    here, there = RecordingTaskInstance(), RecordingTaskInstance()
    waiting = sensor(job, poke_interval=0.01)
    deferred = deferral_of(waiting, {"ti": there})
    sandbox.finish_all()
    deferred_urls = waiting.execute_complete({"ti": there}, event_after(deferred))
    assert sensor(job).execute({"ti": here}) == deferred_urls
    assert here.xcoms == there.xcoms


def test_what_is_stored_holds_no_secret(sandbox: Sandbox, context):
    deferred = deferral_of(sensor(submitted(sandbox)), context)
    assert sandbox.key not in json.dumps(deferred.trigger.serialize())


def test_the_deadline_is_the_shorter_of_both_timeouts(sandbox: Sandbox, context):
    job = submitted(sandbox)
    for timeouts, allowed in (
        ({"timeout": 1000}, 1000),
        ({"timeout": 1000, "execution_timeout": timedelta(seconds=500)}, 500),
        ({"timeout": 300, "execution_timeout": timedelta(seconds=500)}, 300),
    ):
        deferred = deferral_of(sensor(job, **timeouts), context)
        kwargs = deferred.trigger.serialize()[1]
        # No Airflow must break off a wait that ends in time. Airflow 2 counts from the start of the try, and needs time
        # to resume the task.
        before = kwargs["started"] - context["ti"].start_date.timestamp()
        low = min(allowed, 499 if AIRFLOW_V_3_0_PLUS else 480 - before)
        assert low - 0.1 <= kwargs["deadline"] - kwargs["started"] <= allowed + 0.001
        assert timedelta() < deferred.timeout - TRIGGER_GRACE <= timedelta(seconds=allowed)


def test_the_pace_is_the_users_only_when_given(sandbox: Sandbox, context):
    job = submitted(sandbox)
    assert deferral_of(sensor(job), context).trigger.poke_interval is None
    assert deferral_of(sensor(job, poke_interval=7), context).trigger.poke_interval == 7
    assert deferral_of(sensor(job, poke_interval=timedelta(seconds=8)), context).trigger.poke_interval == 8


def test_the_trigger_learns_when_the_job_was_submitted(sandbox: Sandbox, context):
    before = time.time()
    job = ModelsLabHook().submit("v6/images/text2img", {"prompt": "a lighthouse"})
    trigger = deferral_of(sensor(job.to_dict()), context).trigger
    assert before - 0.001 <= trigger.jobs[0]["submitted"] <= time.time()


def test_what_was_rendered_when_the_wait_began_counts_when_it_ends(sandbox: Sandbox, context, tmp_path):
    waiting = sensor(submitted(sandbox), output_path=tmp_path / "first", poke_interval=0.01)
    deferred = deferral_of(waiting, context)
    sandbox.finish_all()
    rendered_again = sensor(1, output_path="/dev/null/second", modelslab_conn_id="another", fail_on_partial_error=False)
    rendered_again.execute_complete(context, event_after(deferred))
    assert [Path(file).parent for file in context["ti"].xcoms["files"]] == [tmp_path / "first"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_paths_of_files_may_be_the_result(sandbox: Sandbox, context, tmp_path, deferrable):
    jobs = submitted(sandbox, 2)
    sandbox.finish_all()
    files = sensor(jobs, output_path=tmp_path, return_files=True, deferrable=deferrable).execute(context)
    assert files == context["ti"].xcoms["files"]
    assert all(Path(file).is_file() for file in files)


def test_a_timeout_that_is_over_at_once(sandbox: Sandbox, context):
    with pytest.raises(ModelsLabTimeout):
        sensor(submitted(sandbox), timeout=1e-6).execute(context)


# --- failures ---


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_failed_job_fails_the_task_with_its_reason_and_keeps_the_others(sandbox: Sandbox, context, deferrable):
    good, bad = submitted(sandbox, 2)
    sandbox.finish(good)
    sandbox.fail(bad, "No GPU left")
    with pytest.raises(ModelsLabJobFailed, match=rf"1 of 2 jobs failed: v6/video:{bad} \(No GPU left\)") as caught:
        sensor([good, bad], deferrable=deferrable).execute(context)
    assert isinstance(caught.value, AirflowFailException)
    assert [record["status"] for record in context["ti"].xcoms["jobs"]] == ["success", "failed"]
    assert context["ti"].xcoms["jobs"][0]["outputs"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_partial_errors_may_be_tolerated(sandbox: Sandbox, context, deferrable):
    good, bad = submitted(sandbox, 2)
    sandbox.finish(good)
    sandbox.fail(bad)
    urls = sensor([bad, good], deferrable=deferrable, fail_on_partial_error=False).execute(context)
    assert len(urls) == 1
    assert [record["status"] for record in context["ti"].xcoms["jobs"]] == ["failed", "success"]


@pytest.mark.parametrize("switch", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_failed_jobs_may_be_skipped(sandbox: Sandbox, context, log, deferrable, switch):
    (bad,) = submitted(sandbox)
    sandbox.fail(bad, "No GPU left")
    with pytest.raises(AirflowSkipException):
        sensor(bad, deferrable=deferrable, **{switch: True}).execute(context)
    assert context["ti"].xcoms["jobs"][0]["status"] == "failed"
    assert (
        f"Skipped instead of failed: Generate again, or from other input: 1 of 1 job failed: v6/video:{bad} (No GPU left)"
        in log.messages
    )


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_refused_key_fails_the_task(raw_server: RawServer, monkeypatch, context, deferrable):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(reply({"status": "error", "message": "Invalid API key the-api-key"}, 401))
    with pytest.raises(ModelsLabAuthError, match=r"modelslab_default.*\*\*\*"):
        sensor([1, 2], deferrable=deferrable).execute(context)


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_is_done_is_kept_when_the_account_is_refused(
    sandbox: Sandbox, raw_server: RawServer, monkeypatch, context, deferrable
):
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    monkeypatch.setattr(worker_poller, "POLLS_AT_A_TIME", 1)  # one thread: the order is known
    done = reply({"status": "success", "output": ["https://cdn/a"]})
    refused = reply({"status": "error", "message": "Insufficient credits"}, 402)
    raw_server.answer(done, refused, done, refused)
    with pytest.raises(ModelsLabCreditsError):
        sensor([1, 2, 3], deferrable=deferrable).execute(context)
    outputs = [record["outputs"] for record in context["ti"].xcoms["jobs"]]
    assert outputs == [["https://cdn/a"], [], ["https://cdn/a"]]


def test_a_timeout_while_poking_keeps_what_is_known(sandbox: Sandbox, context):
    first, second = submitted(sandbox, 2)
    sandbox.finish(first)
    with pytest.raises(
        ModelsLabTimeout, match=f"1 of 2 jobs not done within its timeout of .*: v6/video:{second}"
    ) as caught:
        sensor([first, second], deferrable=False, timeout=1e-6, poke_interval=0.01).execute(context)
    assert isinstance(caught.value, AirflowSensorTimeout)
    assert [record["status"] for record in context["ti"].xcoms["jobs"]] == ["success", "processing"]


@pytest.mark.parametrize("switch", ["soft_fail", "never_fail"])
def test_a_timeout_while_poking_may_be_skipped(sandbox: Sandbox, context, switch):
    with pytest.raises(AirflowSkipException):
        sensor(submitted(sandbox), deferrable=False, timeout=1e-6, poke_interval=0.01, **{switch: True}).execute(
            context
        )
    assert context["ti"].xcoms["jobs"][0]["status"] == "processing"


# --- events ---


def test_events_of_each_kind(context):
    done = {"id": "1", "endpoint": "v6/video", "status": "success", "outputs": ["https://cdn/a"]}
    waiting = sensor([1])
    assert waiting.execute_complete(context, {"status": "finished", "jobs": [done]}) == ["https://cdn/a"]
    with pytest.raises(ModelsLabTimeout, match="v6/video:2"):
        waiting.execute_complete(context, {"status": "timeout", "jobs": [done, {"id": "2", "endpoint": "v6/video"}]})
    assert [record["status"] for record in context["ti"].xcoms["jobs"]] == ["success", "processing"]
    error = {"status": "error", "verdict": "INVALID_KEY", "message": "Invalid API key", "jobs": [done]}
    with pytest.raises(ModelsLabAuthError, match="Invalid API key"):
        waiting.execute_complete(context, error)
    with pytest.raises(AirflowException, match="its log says why"):
        waiting.execute_complete(context, {**error, "verdict": None, "message": "broke; its log says why"})


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"status": "finished"},
        {"status": "triumph", "jobs": []},
        {"status": "finished", "jobs": None},
        "finished",
    ],
)
def test_an_unknown_event_never_counts_as_success(context, event):
    with pytest.raises(AirflowException, match="not understood"):
        sensor([1]).execute_complete(context, event)


@pytest.mark.parametrize("switch", ["soft_fail", "never_fail"])
def test_a_deferred_failure_may_be_skipped(context, log, switch):
    failed = {"id": "1", "endpoint": "v6/video", "status": "failed", "message": "No GPU left"}
    with pytest.raises(AirflowSkipException, match="No GPU left"):
        sensor([1], **{switch: True}).execute_complete(context, {"status": "finished", "jobs": [failed]})
    assert (
        "Skipped instead of failed: Generate again, or from other input: 1 of 1 job failed: v6/video:1 (No GPU left)"
        in log.messages
    )


# --- poking ---


def test_poking_survives_faults_and_asks_only_for_what_is_unfinished(sandbox: Sandbox, context):
    first, second = submitted(sandbox, 2)
    sandbox.finish(first)
    waiting = sensor([first, second], deferrable=False, poke_interval=0.01)
    assert not waiting.poke(context)
    sandbox.script("fetch", ["http_500", "drop", "html", "rate_limit_200"])
    for _ in range(4):
        assert not waiting.poke(context)
    assert all(request.path.endswith(str(second)) for request in sandbox.requests[2:])


def test_poking_waits_out_a_rate_limit(sandbox: Sandbox, context):
    waiting = sensor(submitted(sandbox), deferrable=False)
    sandbox.script("fetch", ["rate_limit"])
    for _ in range(5):
        assert not waiting.poke(context)
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize("fault", ["not_found", "empty_error", "empty_output"])
def test_an_inconclusive_reply_does_not_hold_up_a_poke(sandbox: Sandbox, context, mode, fault):
    (job,) = submitted(sandbox)
    sandbox.finish(job)
    sandbox.script("fetch", [fault] * 2)
    waiting = sensor(job, deferrable=False, mode=mode)
    assert [bool(waiting.poke(context)) for _ in range(3)] == [False, False, True]
    assert len(sandbox.requests) == 3


def reschedules(store: StateStore | None, job: int, counts: range) -> None:
    """Poke as often, each time in a new process, as the mode "reschedule" does."""
    for count in counts:
        context: Any = {"ti": RecordingTaskInstance(), "task_reschedule_count": count, "task_state_store": store}
        assert not sensor(job, deferrable=False, mode="reschedule").poke(context)


def test_what_counts_only_when_it_persists_is_remembered_between_pokes(sandbox: Sandbox, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.0)
    (job,) = submitted(sandbox)
    sandbox.set_faults({"empty_output": 1.0})
    store = StateStore()
    limit = DEFAULT_POLICY.no_output_limit
    reschedules(store, job, range(limit - 1))
    with pytest.raises(ModelsLabJobFailed, match=f"without any output' {limit} times in a row"):
        reschedules(store, job, range(limit - 1, limit))
    reschedules(None, job, range(limit + 1))


def test_a_pause_is_kept_between_pokes(sandbox: Sandbox):
    (job,) = submitted(sandbox)
    sandbox.script("fetch", ["rate_limit"])
    reschedules(StateStore(), job, range(3))
    assert len(sandbox.requests) == 1


def test_polls_that_only_fail_show_in_the_log_between_pokes(sandbox: Sandbox, log):
    (job,) = submitted(sandbox)
    sandbox.set_faults({"http_500": 1.0})
    reschedules(StateStore(), job, range(5))
    lines = [message for message in log.messages if "cannot be polled now" in message]
    assert [re.findall(r"\d+ failed polls", line) for line in lines] == [["3 failed polls"]]


def test_the_host_of_the_connection_is_kept_between_pokes(sandbox: Sandbox, monkeypatch):
    """Another host may have a job of the same id."""
    (job,) = submitted(sandbox)
    store = StateStore()
    reschedules(store, job, range(1))
    with Sandbox(instant=1.0) as other:
        assert submitted(other) == [job]
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", other.connection)
        with pytest.raises(ModelsLabArgumentError, match="Put the host back"):
            reschedules(store, job, range(1, 2))


def test_data_is_not_fetched_from_another_host(raw_server: RawServer, context, monkeypatch):
    """Data does not travel through the database: the worker that resumes fetches it."""
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", raw_server.connection)
    raw_server.answer(
        reply({"status": "processing", "id": 7, "eta": 0.1}),
        reply({"status": "success", "id": 7, "output": ["iVBORw0KGgo" * 1_000]}),
    )
    waiting = sensor(7, poke_interval=0.1)
    event = event_after(deferral_of(waiting, context))
    with Sandbox() as other:
        monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", other.connection)
        with pytest.raises(ModelsLabArgumentError, match="Put the host back"):
            waiting.execute_complete(context, event)
        assert not other.requests


def test_success_without_output_fails_in_the_end(sandbox: Sandbox, context, monkeypatch):
    set_policy(monkeypatch, **FAST, inconclusive_grace=0.05)
    (job,) = submitted(sandbox)
    sandbox.set_faults({"empty_output": 1.0})
    with pytest.raises(ModelsLabJobFailed, match="without any output"):
        sensor(job, deferrable=False, poke_interval=0.01).execute(context)
