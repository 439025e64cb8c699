"""The pace of a session, and of several that share an account without knowing of each other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Event

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_modelslab._client import Client
from airflow_provider_modelslab._http.connection import ClientOptions
from airflow_provider_modelslab._polling.pace import CLIMB, FLOOR, KEPT, RECOVERY, Pace
from airflow_provider_modelslab._polling.worker_poller import WorkerPoller
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.jobs import Job
from tests.support.pacing import SimulatedClock, simulated
from tests.support.shared_account import (
    Account,
    Bucket,
    Session,
    Shares,
    SlidingWindow,
    Windows,
    shares,
    simulate,
)

HOUR = 3600.0


def test_the_ceiling_holds_while_nothing_is_refused():
    pace = Pace(10.0)
    started = []
    now = 0.0
    while now < 60.0:
        if pace.delay(now) <= 0:
            pace.start(now)
            started.append(now)
        now += max(0.001, pace.delay(now))
    assert len(started) == pytest.approx(600, abs=2)


def test_after_a_rate_limit_it_pauses_resumes_at_half_the_pace_and_climbs_back_slowly():
    pace = Pace(10.0)
    pace.refuse(started=99.8, now=100.0, pause=30.0)
    assert pace.delay(100.0) == 30.0
    assert pace.rate(130.0) == 5.0
    climb = [pace.rate(130.0 + seconds) for seconds in range(2 * 3600)]
    assert climb == sorted(climb)
    assert climb[int(RECOVERY)] == pytest.approx(10.0 * KEPT)
    assert climb[600] < 9.2
    assert climb[-1] == 10.0


def test_a_session_that_is_left_alone_is_back_at_its_ceiling_within_an_hour():
    pace = Pace(10.0)
    for now in range(0, 2000, 100):
        pace.refuse(started=now, now=now, pause=30.0)
    assert pace.rate(pace.quiet_until) < 1.0
    assert pace.rate(pace.quiet_until + RECOVERY + CLIMB) == 10.0


def test_requests_that_were_under_way_together_slow_it_down_once():
    pace = Pace(10.0)
    paused = [pace.refuse(started, now=100.0, pause=30.0) for started in (99.7, 99.8, 99.9)]
    paused.append(pace.refuse(started=99.95, now=101.0, pause=30.0))
    assert pace.rate(131.0) == 5.0
    assert pace.delay(101.0) == 30.0
    assert paused == [30.0, 0.0, 0.0, 1.0]


def test_a_late_refusal_with_a_short_pause_does_not_hasten_the_climb():
    pace, alone = Pace(10.0), Pace(10.0)
    for each in (pace, alone):
        each.refuse(started=99.9, now=100.0, pause=30.0)
    pace.refuse(started=99.8, now=129.0, pause=1.0)
    assert [pace.rate(130.0 + seconds) for seconds in range(600)] == [
        alone.rate(130.0 + seconds) for seconds in range(600)
    ]


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 3600), st.floats(0, 30)), max_size=50), st.floats(0.01, 1e4))
@example([(0.0, 30.0, 0.1)] * 50, 10.0)
def test_no_refusals_stop_it_or_bring_it_above_its_ceiling(refusals, ceiling):
    pace, now = Pace(ceiling), 0.0
    for gap, pause, took in refusals:
        started = max(now, pace.quiet_until) + gap
        now = started + took
        pace.refuse(started, now, pause)
        assert FLOOR * ceiling <= pace.rate(now) <= ceiling
        assert pace.delay(now) == pytest.approx(pause, abs=1e-6)


# --- several sessions ---


def together(
    sessions: list[Session],
    begin: float,
    *,
    pause: float = 30.0,
    seed: int = 1,
    limit: float = 10.0,
    account: Account | None = None,
) -> Shares:
    """Return what comes of an account in the three hours from a moment on."""
    end = begin + 3 * HOUR
    simulate(sessions, account or Bucket(limit, pause), ceiling=10.0, seconds=end, seed=seed)
    return shares(sessions, limit, begin, end)


def check(outcome: Shares, pause: float = 30.0) -> None:
    assert outcome.used >= 0.9
    assert outcome.refused <= 0.02
    assert outcome.ratio <= 2.0
    assert outcome.longest_gap <= 2 * pause + 10.0


@pytest.mark.parametrize("pause", [1.0, 30.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_sessions_that_start_at_different_times_share_an_account_fairly(count, pause):
    random = Random(count)
    sessions = [Session(random.uniform(0, 900)) for _ in range(count)]
    check(together(sessions, begin=HOUR, pause=pause), pause)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    ("limiter", "used"),
    [
        (lambda: Windows(10.0, 60.0), 0.95),
        (lambda: Windows(10.0, 60.0, 30.0), 0.89),
        (lambda: Windows(10.0, 1.0, 1.0), 0.84),
        (lambda: SlidingWindow(10.0, 60.0, 30.0), 0.9),
    ],
    ids=["a minute", "a minute, asking for 30 s", "a second", "any minute"],
)
def test_accounts_that_count_in_windows_are_shared_too(limiter, used, count):
    sessions = [Session(100.0 * number) for number in range(count)]
    outcome = together(sessions, begin=HOUR, account=limiter())
    assert outcome.used >= used
    assert outcome.refused <= 0.02
    assert outcome.ratio <= 2.0
    assert outcome.longest_gap <= 60.0


def test_after_short_pauses_sessions_settle_within_minutes():
    sessions = [Session(), Session(1.0), Session(2.0)]
    simulate(sessions, Bucket(10.0, 1.0), ceiling=10.0, seconds=600.0, seed=1)
    outcome = shares(sessions, 10.0, 300.0, 600.0)
    assert outcome.used >= 0.95
    assert outcome.refused <= 0.02
    assert outcome.ratio <= 2.0


def test_a_loop_that_is_late_now_and_then_exceeds_the_ceiling_in_no_second():
    pace, random, now = Pace(10.0), Random(1), 0.0
    starts: list[float] = []
    while now < 60.0:
        now += max(0.0, pace.delay(now)) + random.uniform(0.0, 0.015)
        pace.start(now)
        starts.append(now)
    assert all(later - earlier >= 1.0 - 1e-9 for earlier, later in zip(starts, starts[10:], strict=False))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_when_one_leaves_the_others_take_over_its_share(count):
    sessions = [Session(100.0 * number) for number in range(count)]
    sessions[0].leaves = 2 * HOUR
    check(together(sessions, begin=3 * HOUR))


def test_a_session_that_comes_late_gets_its_share():
    check(together([Session(), Session(), Session(starts=2 * HOUR)], begin=3 * HOUR))


def test_an_account_that_takes_far_less_than_the_ceiling_is_shared_too():
    check(together([Session(), Session(60.0), Session(120.0)], begin=HOUR, limit=3.0))


# --- a worker ---


RUNNING = Job(id="1", endpoint="v6/video")


def replying(*replies: Reply) -> Callable[[], Reply]:
    """Return what sends a request: it is answered by one reply after the other, and by the last one for ever."""
    left = list(replies)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def worker(clock: SimulatedClock) -> WorkerPoller:
    options = ClientOptions("key", base_url="http://127.0.0.1:1", requests_per_second=2.0)
    return WorkerPoller(Client(options), "modelslab_default", simulated(clock), logging.getLogger())


def test_a_worker_sends_as_requests_come_until_the_first_rate_limit():
    clock = SimulatedClock()
    poller = worker(clock)
    verdicts = [poller.send(replying(Reply(Verdict.PROCESSING, RUNNING)), RUNNING).verdict for _ in range(100)]
    assert verdicts == [Verdict.PROCESSING] * 100
    assert clock.naps == []


def test_after_a_rate_limit_a_worker_sends_nothing_until_the_pause_is_over_and_then_at_half_the_pace():
    clock = SimulatedClock()
    poller = worker(clock)
    limited = Reply(Verdict.RATE_LIMITED, RUNNING, retry_after=30.0, http_status=429)
    sent = []

    def request() -> Reply:
        sent.append(clock.monotonic())
        return limited if len(sent) == 1 else Reply(Verdict.PROCESSING, RUNNING)

    assert poller.send(request, RUNNING) is limited
    refused = poller.send(request, RUNNING)
    assert (refused.verdict, refused.retry_after, refused.http_status) == (Verdict.RATE_LIMITED, 30.0, None)
    assert len(sent) == 1
    clock.move(30.0)
    for _ in range(5):
        assert poller.send(request, RUNNING).verdict is Verdict.PROCESSING
    assert sent[1] - sent[0] == 30.0
    assert sent[5] - sent[1] == pytest.approx(4 / 1.0, rel=0.2)


def test_a_request_that_waits_for_its_turn_is_not_sent_once_another_one_is_refused():
    asleep, refused, clock = Event(), Event(), SimulatedClock()

    def sleep(seconds: float) -> None:
        asleep.set()
        assert refused.wait(60)
        clock.move(seconds)

    def be_refused() -> Reply:
        assert asleep.wait(60)
        return Reply(Verdict.RATE_LIMITED, RUNNING, retry_after=30.0, http_status=429)

    clock.sleep = sleep  # type: ignore[method-assign]
    poller = worker(clock)
    poller.send(replying(Reply(Verdict.RATE_LIMITED, RUNNING, retry_after=1.0, http_status=429)), RUNNING)
    clock.move(1.0)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(poller.send, be_refused, RUNNING)
        second = pool.submit(poller.send, replying(Reply(Verdict.PROCESSING, RUNNING)), RUNNING)
        assert first.result().verdict is Verdict.RATE_LIMITED
        refused.set()
        waited = second.result()
    assert (waited.verdict, waited.http_status) == (Verdict.RATE_LIMITED, None)
    assert 20 < (waited.retry_after or 0.0) < 30


def test_a_full_queue_does_not_slow_a_worker_down():
    clock = SimulatedClock()
    poller = worker(clock)
    full = Reply(Verdict.RATE_LIMITED, RUNNING, retry_after=30.0, http_status=429, queue_slots=5)
    for _ in range(3):
        assert poller.send(replying(full), RUNNING) is full
    assert clock.naps == []
