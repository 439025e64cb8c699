from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_modelslab.sandbox.state import Account, JobRequest, Ledger, Pace

REQUEST = JobRequest(account="standard", endpoint="v6/video", fetch_endpoint="v6/video", kind="mp4")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new_ledger(clock: Clock) -> Callable[..., Ledger]:
    def new_ledger(**pace: Any) -> Ledger:
        return Ledger({"standard": Account(key="k", balance=1.0, queue_limit=2)}, Pace(**pace), clock)

    return new_ledger


def test_a_job_ends_when_its_time_has_come(new_ledger: Callable[..., Ledger], clock: Clock) -> None:
    ledger = new_ledger(duration=3)
    job_id = ledger.accept(REQUEST).id
    clock.now += 2.999
    assert ledger.jobs[job_id].status == "processing"
    clock.now += 0.001
    assert ledger.jobs[job_id].status == "success"


def test_a_job_noticed_late_has_still_ended_on_time(new_ledger: Callable[..., Ledger], clock: Clock) -> None:
    ledger = new_ledger(duration=3)
    job_id = ledger.accept(REQUEST).id
    clock.now += 500
    assert ledger.jobs[job_id].generation_time == 3


def test_a_held_job_ends_only_when_told_to(new_ledger: Callable[..., Ledger], clock: Clock) -> None:
    ledger = new_ledger(duration=math.inf)
    job = ledger.accept(REQUEST)
    clock.now += 1e9
    assert ledger.jobs[job.id].status == "processing"
    assert job.eta is not None
    assert 1 < job.eta < 10
    ledger.finish(job.id)
    assert ledger.jobs[job.id].status == "success"


def test_fail_ends_only_what_still_runs(new_ledger: Callable[..., Ledger]) -> None:
    ledger = new_ledger()
    job_id = ledger.accept(REQUEST).id
    ledger.fail(job_id, "Out of memory")
    assert (ledger.jobs[job_id].status, ledger.jobs[job_id].failure) == ("failed", "Out of memory")
    with pytest.raises(ValueError, match="ended already: failed"):
        ledger.fail(job_id)
    with pytest.raises(LookupError, match="no job 5"):
        ledger.finish(5)


def test_a_job_leaves_the_queue_when_it_has_ended(new_ledger: Callable[..., Ledger], clock: Clock) -> None:
    ledger = new_ledger(duration=3)
    for _ in range(2):
        ledger.accept(REQUEST)
    assert ledger.account("standard").in_flight == 2
    clock.now += 3
    assert ledger.account("standard").in_flight == 0
    assert (ledger.in_flight, ledger.max_in_flight) == (0, 2)


def test_the_key_of_an_account_is_not_shown() -> None:
    assert "secret" not in repr(Account(key="secret", balance=1))


def test_the_same_seed_gives_a_job_the_same_duration() -> None:
    options: dict[str, Any] = {"duration_sigma": 0.5, "eta_sigma": 0.5, "instant": 0.5}
    draws = [Pace(seed=7, **options).draw("v6/video", job_id) for job_id in range(50)]
    assert draws == [Pace(seed=7, **options).draw("v6/video", job_id) for job_id in range(50)]
    assert draws != [Pace(seed=8, **options).draw("v6/video", job_id) for job_id in range(50)]


def test_a_new_option_leaves_the_other_draws_as_they_were() -> None:
    plain = [Pace(duration=10).draw("v6/video", job_id)[1] for job_id in range(50)]
    assert plain == [Pace(duration=10, instant=0.5).draw("v6/video", job_id)[1] for job_id in range(50)]


def test_durations_and_estimates_are_spread_log_normally() -> None:
    draws = [Pace(duration=60, duration_sigma=0.8, eta_sigma=0.3).draw("v6/video", job_id) for job_id in range(4000)]
    spread = [math.log(duration / 60) for duration, _, _ in draws]
    error = [math.log((eta or 0) / duration) for duration, eta, _ in draws]
    assert (statistics.mean(spread), statistics.stdev(spread)) == pytest.approx((0, 0.8), abs=0.05)
    assert (statistics.mean(error), statistics.stdev(error)) == pytest.approx((0, 0.3), abs=0.02)


@pytest.mark.parametrize(
    "options",
    [{"duration": -1}, {"duration": math.nan}, {"durations": {"v3": -1}}, {"eta_sigma": -1}, {"instant": 1.5}],
    ids=str,
)
def test_impossible_paces_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not negative|probability"):
        Pace(**options)
