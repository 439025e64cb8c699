"""The wait for a job, on simulated time and without jitter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_modelslab._polling.policy import DEFAULT_POLICY as POLICY
from airflow_provider_modelslab._polling.waits import JobWait, JobWaits, enough
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab.jobs import Job
from tests.support.pacing import SimulatedClock, simulated

JOB = Job(id="1", endpoint="v6/video", eta=20.0)
LIMITS = {
    Verdict.NOT_FOUND: POLICY.not_found_limit,
    Verdict.NO_OUTPUT: POLICY.no_output_limit,
    Verdict.EMPTY_ERROR: POLICY.empty_error_limit,
}
inconclusive = pytest.mark.parametrize("verdict", LIMITS)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


def wait_for(clock: SimulatedClock, job: Job = JOB, poke_interval: float | None = None, **numbers: float) -> JobWait:
    return JobWait(job, simulated(clock, **numbers), clock.wall(), poke_interval)


def poll(wait: JobWait, verdict: Verdict, retry_after: float | None = None) -> str:
    job = replace(wait.job, status="success", outputs=["https://cdn/a"]) if verdict is Verdict.SUCCESS else wait.job
    return wait.take(Reply(verdict, job, retry_after))


def poll_after(clock: SimulatedClock, wait: JobWait, seconds: float, *verdicts: Verdict) -> None:
    for verdict in verdicts:
        clock.move(seconds)
        poll(wait, verdict)


def test_success_ends_a_wait(clock):
    wait = wait_for(clock)
    poll(wait, Verdict.PROCESSING)
    assert not wait.job.finished
    poll(wait, Verdict.SUCCESS)
    assert wait.job.outputs == ["https://cdn/a"]


# --- inconclusive replies ---


@inconclusive
def test_an_inconclusive_reply_counts_once_it_has_come_again_and_again_for_the_grace(clock, verdict):
    wait = wait_for(clock)
    gap = POLICY.inconclusive_grace / LIMITS[verdict]
    poll_after(clock, wait, gap, *[verdict] * LIMITS[verdict])
    assert not wait.job.finished
    poll_after(clock, wait, gap, verdict)
    assert wait.job.status == "failed"
    assert f"{LIMITS[verdict] + 1} times in a row, over 30 s" in wait.job.message


@inconclusive
def test_a_stray_inconclusive_reply_late_in_a_wait_does_not_count(clock, verdict):
    wait = wait_for(clock)
    poll_after(clock, wait, 8, *[Verdict.PROCESSING] * 5)
    poll_after(clock, wait, 8, verdict)
    assert not wait.job.finished
    poll_after(clock, wait, 8, Verdict.PROCESSING, Verdict.SUCCESS)
    assert wait.job.status == "success"


@inconclusive
def test_many_inconclusive_replies_at_once_do_not_count(clock, verdict):
    wait = wait_for(clock)
    poll_after(clock, wait, 0.01, *[verdict] * 100)
    assert not wait.job.finished


@inconclusive
@pytest.mark.parametrize("other", [Verdict.PROCESSING, *LIMITS])
def test_another_answer_in_between_begins_the_count_again(clock, verdict, other):
    if other is verdict:
        return
    wait = wait_for(clock)
    for _ in range(5):
        poll_after(clock, wait, 29 / LIMITS[verdict], *[verdict] * LIMITS[verdict], other)
        assert not wait.job.finished


@inconclusive
def test_a_fault_in_between_is_no_answer(clock, verdict):
    wait = wait_for(clock)
    poll_after(clock, wait, 30 / LIMITS[verdict], *[verdict, Verdict.TRANSIENT, Verdict.RATE_LIMITED] * LIMITS[verdict])
    assert wait.job.status == "failed"


@inconclusive
def test_two_replies_far_apart_are_not_again_and_again(clock, verdict):
    wait = wait_for(clock)
    poll_after(clock, wait, 600, verdict, Verdict.TRANSIENT, verdict)
    assert not wait.job.finished


@inconclusive
def test_the_first_inconclusive_reply_in_a_row_is_worth_a_line(clock, verdict):
    wait = wait_for(clock)
    remarks = [poll(wait, each) for each in (verdict, verdict, Verdict.PROCESSING, verdict)]
    assert [bool(remark) for remark in remarks] == [True, False, False, True]
    assert "may be in progress all the same" in remarks[0]


def test_an_unknown_job_names_its_endpoint(clock):
    wait = wait_for(clock)
    poll_after(clock, wait, 20, *[Verdict.NOT_FOUND] * 3)
    assert "'v6/video'" in wait.job.message


def test_an_unknown_job_of_a_misspelt_endpoint_is_answered_with_the_one_that_is_meant(clock):
    wait = wait_for(clock, replace(JOB, endpoint="v6/vidoe"))
    poll_after(clock, wait, 20, *[Verdict.NOT_FOUND] * 3)
    assert "under endpoint 'v6/vidoe' (did you mean 'v6/video'?)" in wait.job.message


# --- faults and pauses ---


def test_trouble_never_ends_a_wait(clock):
    wait = wait_for(clock)
    poll_after(clock, wait, 1, *[Verdict.TRANSIENT, Verdict.RATE_LIMITED] * 5_000)
    assert not wait.job.finished


def test_faults_in_a_row_are_worth_one_line_and_are_counted_in_the_message(clock):
    wait = wait_for(clock)
    faulty = Reply(Verdict.TRANSIENT, replace(JOB, message="no connection to ModelsLab"))
    remarks = [wait.take(faulty) for _ in range(5)]
    assert [bool(remark) for remark in remarks] == [False, False, True, False, False]
    assert wait.job.message == "no connection to ModelsLab (5 failed polls in a row)"
    assert wait.unreachable
    poll(wait, Verdict.PROCESSING)
    assert not wait.unreachable


@pytest.mark.parametrize("poke_interval", [None, 0.1])
@pytest.mark.parametrize("verdict", [Verdict.RATE_LIMITED, Verdict.TRANSIENT])
def test_a_pause_is_kept_whatever_the_pace(clock, poke_interval, verdict):
    wait = wait_for(clock, poke_interval=poke_interval)
    poll(wait, verdict, retry_after=45)
    assert wait.delay() >= 45


def test_faults_back_off(clock):
    wait = wait_for(clock)
    delays = []
    for _ in range(8):
        poll(wait, Verdict.TRANSIENT)
        delays.append(wait.delay())
    assert delays == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_caller_that_keeps_its_own_pace_waits_out_a_rate_limit(clock):
    wait = wait_for(clock)
    assert wait.may_poll()
    poll(wait, Verdict.RATE_LIMITED, retry_after=30)
    clock.move(29)
    assert not wait.may_poll()
    clock.move(1)
    assert wait.may_poll()


@pytest.mark.parametrize(("step", "longest"), [(-7200, 30), (-20, 30), (0, 30), (20, 10), (7200, 0)])
def test_a_pause_that_another_process_goes_on_with_gets_no_longer_by_a_step_of_the_clock(clock, step, longest):
    wait = wait_for(clock)
    poll(wait, Verdict.RATE_LIMITED, retry_after=30)
    record = wait.to_record()
    clock.time += step
    again = wait_for(clock)
    again.recall(record)
    assert again.delay() <= longest
    assert again.may_poll() == (longest == 0)


def test_what_another_process_has_heard_of_a_job_counts_at_its_host_only(clock):
    jobs = [replace(JOB, endpoint="v3", host=host) for host in ("modelslab.com", "stablediffusionapi.com")]
    waits, again = (JobWaits(jobs, simulated(clock)) for _ in range(2))
    poll(waits.unfinished()[0], Verdict.RATE_LIMITED, 30.0)
    again.recall(waits.to_records())
    assert [wait.may_poll() for wait in again.unfinished()] == [False, True]


# --- refusals of the account ---

account = pytest.mark.parametrize("verdict", sorted(ACCOUNT_VERDICTS, key=str))


def batch(clock: SimulatedClock, count: int) -> tuple[JobWaits, list[JobWait]]:
    waits = JobWaits([replace(JOB, id=str(number)) for number in range(count)], simulated(clock))
    return waits, waits.unfinished()


def refusal(waits: JobWaits) -> Verdict | None:
    reply = waits.account_refusal()
    return None if reply is None else reply.verdict


@account
def test_one_refusal_of_the_account_is_not_believed_but_told(clock, verdict):
    waits, (wait, _) = batch(clock, 2)
    assert "is refused, which counts once a second poll says so, too" in poll(wait, verdict)
    assert refusal(waits) is None
    assert not wait.job.finished
    assert wait.delay() == 2


@account
def test_a_refusal_counts_when_another_job_is_refused(clock, verdict):
    waits, (first, second) = batch(clock, 2)
    poll(first, verdict)
    poll(second, Verdict.TRANSIENT)
    assert refusal(waits) is None
    poll(second, verdict)
    assert refusal(waits) is verdict


@account
def test_a_refusal_of_the_only_job_counts_when_it_comes_again(clock, verdict):
    waits, (wait,) = batch(clock, 1)
    poll(wait, verdict)
    assert refusal(waits) is None
    poll(wait, Verdict.RATE_LIMITED)
    poll(wait, verdict)
    assert refusal(waits) is verdict


@account
def test_a_refusal_of_one_job_only_counts_when_the_others_are_finished(clock, verdict):
    waits, (refused, *others) = batch(clock, 20)
    for other in others:
        poll(refused, verdict)
        poll(other, Verdict.PROCESSING)
        assert refusal(waits) is None
        poll(other, Verdict.SUCCESS)
    assert refusal(waits) is verdict


@account
@pytest.mark.parametrize("answer", [Verdict.PROCESSING, *LIMITS])
def test_a_reply_about_the_job_takes_its_refusal_back(clock, verdict, answer):
    waits, (first, second) = batch(clock, 2)
    poll(first, verdict)
    poll(first, answer)
    poll(second, verdict)
    assert refusal(waits) is None


# --- the pace ---


def test_a_fixed_pace_is_kept(clock):
    wait = wait_for(clock, poke_interval=7)
    assert wait.delay() == 7
    poll_after(clock, wait, 7, Verdict.PROCESSING)
    assert wait.delay() == 7


@pytest.mark.parametrize("verdict", [Verdict.PROCESSING, Verdict.TRANSIENT, Verdict.RATE_LIMITED])
def test_jobs_submitted_together_are_not_polled_together(clock, verdict):
    pacing = simulated(clock, jitter=0.1)
    waits = [JobWait(JOB, pacing, clock.wall()) for _ in range(20)]
    for wait in waits:
        poll(wait, verdict, retry_after=30 if verdict is Verdict.RATE_LIMITED else None)
    assert len({wait.delay() for wait in waits}) == 20


def test_the_last_polls_come_every_second_before_the_deadline(clock):
    wait, deadline = wait_for(clock, poke_interval=60), clock.monotonic() + 10
    assert wait.delay(deadline) == 10 - POLICY.last_polls
    assert wait.delay(deadline + 600) == 60
    clock.move(8)
    assert wait.delay(deadline) == POLICY.min_delay
    clock.move(1.5)
    assert wait.delay(deadline) == POLICY.min_delay
    poll(wait, Verdict.RATE_LIMITED, retry_after=30)
    assert wait.delay(deadline) >= 30


def test_the_first_eta_counts_when_later_replies_have_none(clock):
    wait, without = wait_for(clock), wait_for(clock, replace(JOB, eta=None))
    for each in (wait, without):
        each.take(Reply(Verdict.PROCESSING, replace(each.job, eta=None)))
    assert wait.delay() != without.delay()


def test_the_schedule_counts_from_the_submission(clock):
    def first_delay(age: float) -> float:
        return wait_for(clock, Job("1", "v6/video", eta=300.0, submitted=clock.wall() - age)).delay()

    fresh = first_delay(0)
    assert first_delay(fresh / 2) == pytest.approx(fresh / 2)
    assert first_delay(86_400) == POLICY.min_delay
    assert first_delay(-86_400) == fresh  # from the future: the mistake of a clock


def test_a_wait_that_starts_again_goes_on_where_it_was(clock):
    started = clock.wall()
    clock.move(590)
    assert JobWait(JOB, simulated(clock), started, poke_interval=600).delay() == 10


def test_a_clock_that_is_set_disturbs_no_wait(clock):
    wait, deadline = wait_for(clock, poke_interval=60), clock.monotonic() + 600
    for step in (86_400, -2 * 86_400):
        clock.time += step
        assert wait.delay(deadline) == 60
    poll_after(clock, wait, 4, Verdict.PROCESSING)
    poll_after(clock, wait, 1, Verdict.SUCCESS)
    assert wait.duration is not None
    assert 4 <= wait.duration <= 5


def test_a_duration_counts_from_the_submission(clock):
    wait = wait_for(clock, Job("1", "v6/video", eta=60.0, submitted=clock.wall() - 100))
    poll_after(clock, wait, 20, Verdict.PROCESSING)
    poll_after(clock, wait, 5, Verdict.SUCCESS)
    assert wait.duration is not None
    assert 120 <= wait.duration <= 125


@pytest.mark.parametrize("age", [0, 60, 86_400, 999_999])
@pytest.mark.parametrize("verdicts", [[], [Verdict.TRANSIENT], [Verdict.NO_OUTPUT, Verdict.RATE_LIMITED]])
def test_a_job_that_was_never_seen_in_progress_teaches_nothing(clock, age, verdicts):
    wait = wait_for(clock, Job("1", "v6/video", eta=20.0, submitted=clock.wall() - age))
    poll_after(clock, wait, 30, *verdicts, Verdict.SUCCESS)
    assert wait.job.status == "success"
    assert wait.duration is None


@pytest.mark.parametrize("submitted", [1.0, 1_000_000.0 - 86_400])
def test_a_submission_long_before_the_wait_teaches_nothing(clock, submitted):
    wait = wait_for(clock, Job("1", "v6/video", eta=20.0, submitted=submitted))
    poll_after(clock, wait, 5, Verdict.PROCESSING, Verdict.SUCCESS)
    assert wait.duration is None


def test_an_outage_teaches_nothing(clock):
    wait = wait_for(clock)
    poll_after(clock, wait, 20, Verdict.PROCESSING)
    poll_after(clock, wait, 600, *[Verdict.TRANSIENT] * 6, Verdict.SUCCESS)
    assert wait.duration is None


def test_what_a_request_is_worth_moves_the_delays(clock):
    near, far = (wait_for(clock, seconds_per_request=seconds) for seconds in (1.0, 4.0))
    clock.move(20)
    for wait in (near, far):
        poll(wait, Verdict.PROCESSING)
    assert far.delay() == pytest.approx(2 * near.delay())


# --- many jobs ---


def test_a_job_named_twice_is_waited_for_once(clock):
    done = Job(id="", endpoint="", status="success", outputs=["https://cdn/x"])
    waits = JobWaits([JOB, JOB, done, done], simulated(clock))
    assert len(waits.unfinished()) == 1
    assert waits.summary() == "2 of 3 jobs done, the last expected about 13:47:00 UTC"
    poll(waits.unfinished()[0], Verdict.SUCCESS)
    assert [job.outputs for job in waits.jobs()] == [["https://cdn/a"]] * 2 + [["https://cdn/x"]] * 2
    assert not waits.unfinished()


def test_a_summary_names_the_reason_of_failed_polls(clock):
    waits = JobWaits([JOB], simulated(clock))
    (wait,) = waits.unfinished()
    for _ in range(3):
        wait.take(Reply(Verdict.TRANSIENT, replace(JOB, message="HTTP 404 with an HTML page")))
    assert "1 cannot be polled now: HTTP 404 with an HTML page (3 failed polls in a row)" in waits.summary()


@pytest.mark.parametrize(
    ("unfinished", "max_pending", "over"),
    [(0, 0, True), (1, 0, False), (1, 1, True), (0, None, False), (5, None, False)],
)
def test_a_wait_is_over_when_no_more_jobs_are_pending_than_may_be(unfinished, max_pending, over):
    assert enough(unfinished, max_pending) is over
