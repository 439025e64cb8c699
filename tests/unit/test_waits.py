from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_modelslab._polling.schedule import MIN_DELAY
from airflow_provider_modelslab._polling.waits import (
    EMPTY_ERROR_LIMIT,
    LAST_POLLS,
    NO_OUTPUT_LIMIT,
    NOT_FOUND_GRACE,
    JobWait,
    JobWaits,
)
from airflow_provider_modelslab._protocol.replies import Reply, Verdict
from airflow_provider_modelslab.jobs import Job

JOB = Job(id="1", endpoint="v6/video", eta=20.0)
START = 1_000_000.0


def poll(wait: JobWait, verdict: Verdict, now: float = START, retry_after: float | None = None) -> None:
    job = replace(wait.job, status="success", outputs=["https://cdn/a"]) if verdict is Verdict.SUCCESS else wait.job
    wait.take(Reply(verdict, job, retry_after), now)


def test_success_ends_a_wait():
    wait = JobWait(JOB, START)
    poll(wait, Verdict.PROCESSING)
    assert not wait.job.finished
    poll(wait, Verdict.SUCCESS)
    assert wait.job.outputs == ["https://cdn/a"]


def test_not_found_is_not_believed_at_first():
    wait = JobWait(JOB, START)
    poll(wait, Verdict.NOT_FOUND, START + NOT_FOUND_GRACE - 1)
    assert not wait.job.finished
    poll(wait, Verdict.NOT_FOUND, START + NOT_FOUND_GRACE)
    assert wait.job.status == "failed"
    assert "v6/video" in wait.job.message


@pytest.mark.parametrize(
    ("verdict", "limit"), [(Verdict.NO_OUTPUT, NO_OUTPUT_LIMIT), (Verdict.EMPTY_ERROR, EMPTY_ERROR_LIMIT)]
)
def test_doubtful_replies_count_when_they_persist(verdict, limit):
    wait = JobWait(JOB, START)
    for _ in range(limit - 1):
        poll(wait, verdict)
    assert not wait.job.finished
    poll(wait, Verdict.PROCESSING)
    for _ in range(limit - 1):
        poll(wait, verdict)
    assert not wait.job.finished
    poll(wait, verdict)
    assert wait.job.status == "failed"
    assert str(limit) in wait.job.message


def test_trouble_never_ends_a_wait():
    wait = JobWait(JOB, START)
    for second in range(10_000):
        poll(wait, Verdict.TRANSIENT if second % 2 else Verdict.RATE_LIMITED, START + second)
    assert not wait.job.finished


def test_a_pause_is_kept_whatever_the_pace():
    for poke_interval in (None, 0.1):
        for verdict in (Verdict.RATE_LIMITED, Verdict.TRANSIENT):
            wait = JobWait(JOB, START, poke_interval)
            poll(wait, verdict, START, retry_after=45)
            assert wait.due >= START + 45


def test_a_fixed_pace_is_kept():
    wait = JobWait(JOB, START, poke_interval=7)
    assert wait.due == START + 7
    poll(wait, Verdict.PROCESSING, START + 7)
    assert wait.due == START + 14


@pytest.mark.parametrize("verdict", [Verdict.PROCESSING, Verdict.TRANSIENT, Verdict.RATE_LIMITED])
def test_jobs_submitted_together_are_not_asked_for_together(verdict):
    waits = [JobWait(JOB, START) for _ in range(20)]
    for wait in waits:
        poll(wait, verdict, START, retry_after=30 if verdict is Verdict.RATE_LIMITED else None)
    assert len({wait.due for wait in waits}) == 20


def test_faults_back_off():
    wait = JobWait(JOB, START)
    gaps = []
    for _ in range(8):
        poll(wait, Verdict.TRANSIENT)
        gaps.append(wait.due - START)
    assert gaps[0] < 3
    assert 50 < gaps[-1] < 70


def test_the_last_polls_come_every_second_before_the_deadline():
    wait = JobWait(JOB, START, poke_interval=60)
    assert wait.delay(START, deadline=START + 10) == 10 - LAST_POLLS
    assert wait.delay(START + 8, deadline=START + 10) == MIN_DELAY
    assert wait.delay(START + 9.5, deadline=START + 10) == MIN_DELAY
    assert wait.delay(START, deadline=START + 600) == 60
    poll(wait, Verdict.RATE_LIMITED, START, retry_after=30)
    assert wait.delay(START, deadline=START + 10) >= 30


def test_a_fault_leaves_the_doubts_as_they_are():
    wait = JobWait(JOB, START)
    for _ in range(NO_OUTPUT_LIMIT):
        assert not wait.job.finished
        poll(wait, Verdict.TRANSIENT)
        poll(wait, Verdict.NO_OUTPUT)
    assert wait.job.status == "failed"


def test_the_first_eta_counts_when_later_replies_have_none():
    wait, without = JobWait(JOB, START), JobWait(replace(JOB, eta=None), START)
    for each in (wait, without):
        each.take(Reply(Verdict.PROCESSING, replace(each.job, eta=None)), START)
    assert wait.due != pytest.approx(without.due, rel=1e-12)


def test_a_job_named_twice_is_waited_for_once():
    done = Job(id="", endpoint="", status="success", outputs=["https://cdn/x"])
    waits = JobWaits([JOB, JOB, done, done], START)
    assert len(waits.unfinished()) == 1
    assert waits.summary() == "2 of 3 jobs done, longest ETA 20 s"
    poll(waits.unfinished()[0], Verdict.SUCCESS)
    assert [job.outputs for job in waits.jobs()] == [["https://cdn/a"]] * 2 + [["https://cdn/x"]] * 2
    assert not waits.unfinished()


def test_one_who_keeps_his_own_pace_waits_out_a_rate_limit():
    wait = JobWait(JOB, START)
    assert wait.may_poll(START)
    poll(wait, Verdict.RATE_LIMITED, START, retry_after=30)
    assert not wait.may_poll(START + 29)
    assert wait.may_poll(START + 100)


def test_the_schedule_counts_from_the_submission():
    eta = 300.0
    fresh = JobWait(Job("1", "v6/video", eta=eta), START)
    half_way = JobWait(Job("1", "v6/video", eta=eta, submitted=START - (fresh.due - START) / 2), START)
    assert half_way.due - START == pytest.approx((fresh.due - START) / 2)
    long_ago = JobWait(Job("1", "v6/video", eta=eta, submitted=START - 86_400), START)
    assert long_ago.due - START == MIN_DELAY
    from_the_future = JobWait(Job("1", "v6/video", eta=eta, submitted=START + 86_400), START)
    assert from_the_future.due == fresh.due


def test_a_duration_counts_from_the_submission():
    wait = JobWait(Job("1", "v6/video", eta=60.0, submitted=START - 100), START)
    poll(wait, Verdict.PROCESSING, START + 20)
    poll(wait, Verdict.SUCCESS, START + 25)
    assert wait.duration is not None
    assert 120 <= wait.duration <= 125


def test_what_a_request_is_worth_moves_the_gaps():
    waits = [JobWait(JOB, START, seconds_per_request=seconds) for seconds in (1.0, 4.0)]
    for wait in waits:
        poll(wait, Verdict.PROCESSING, START + 20)
    near, far = (wait.due - START - 20 for wait in waits)
    assert far == pytest.approx(2 * near, rel=0.25)  # with a tenth of jitter each
