"""
What the receipts of a ledger say about money: which jobs were paid for, by which task, which may have been billed,
and which were paid for twice.

Pure. Receipts are read as they are found: of another version, broken, or not ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow_provider_modelslab._ledger.receipts import STATES, Receipt
from airflow_provider_modelslab._protocol.formatting import count, one_line
from airflow_provider_modelslab._protocol.prices import Prices, price_of

UNKNOWN_DAY = "unknown"
"""The day of a receipt that does not say when its job was submitted."""

IN_DOUBT = ("in_doubt", "intended")
"""The states of jobs that may have been billed, or not."""


@dataclass(frozen=True, slots=True)
class PaidJob:
    """
    A receipt, and where it stands.

    :param name: its path relative to the ledger.
    :param receipt: what it says.
    """

    name: str
    receipt: Receipt

    @property
    def day(self) -> str:
        """The UTC day of the submission."""
        return self.moment[:10] or UNKNOWN_DAY

    @property
    def moment(self) -> str:
        """The time of the submission in UTC, such as ``2026-11-28 03:11:52``; empty where it is not known."""
        submitted = self.receipt.submitted_at
        return "" if submitted is None else f"{datetime.fromtimestamp(submitted, timezone.utc):%Y-%m-%d %H:%M:%S}"

    @property
    def task(self) -> str:
        """The task instance, such as ``gallery.draw[3] of manual__2026-11-28``."""
        task = self.receipt.task
        mapped = f"[{task.map_index}]" if task.map_index >= 0 else ""
        return one_line(f"{task.dag_id or '?'}.{task.task_id or '?'}{mapped} of {task.run_id or '?'}")

    @property
    def job_id(self) -> str:
        """The id of the job; empty where no reply has named it."""
        return one_line(self.receipt.job.id) if self.receipt.job else ""

    def to_dict(self, prices: Prices) -> dict[str, Any]:
        """Return the receipt as JSON, with its path and what it may have cost."""
        return {"receipt": self.name, **self.receipt.to_dict(), "estimate": price_of(self.receipt.endpoint, prices)}


@dataclass(slots=True)
class Sum:
    """
    What was paid for on one day at one endpoint.

    :param states: how many jobs are in each state.
    :param estimate: what they may have cost; ``None`` where the price table does not say.
    """

    day: str
    endpoint: str
    states: dict[str, int]
    estimate: float | None

    @property
    def jobs(self) -> int:
        """How many there are."""
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class Repetition:
    """
    Jobs of which one may have been enough.

    :param reason: what they have in common.
    :param jobs: the jobs, the oldest first.
    """

    reason: str
    jobs: Sequence[PaidJob]


@dataclass(frozen=True, slots=True)
class Report:
    """
    What a ledger says.

    :param jobs: all jobs of the time asked for, the oldest first.
    :param sums: by day and endpoint.
    :param in_doubt: the jobs that may have been billed, or not.
    :param repetitions: what was paid for more than once, with at least one job of the time asked for.
    :param not_read: the files that are no receipts.
    """

    jobs: Sequence[PaidJob]
    sums: Sequence[Sum]
    in_doubt: Sequence[PaidJob]
    repetitions: Sequence[Repetition]
    not_read: Sequence[str]

    @classmethod
    def of(
        cls, records: Mapping[str, Any], prices: Prices, since: float | None = None, until: float | None = None
    ) -> Report:
        """
        Report on the receipts of a ledger.

        :param records: what stands in its files, by their paths.
        :param prices: what one job costs, by endpoint.
        :param since: leave out what was submitted before, in seconds since the epoch.
        :param until: leave out what was submitted then or later.
        """
        found = [PaidJob(name, Receipt.from_dict(record)) for name, record in records.items() if _is_receipt(record)]
        found.sort(key=lambda job: (job.receipt.submitted_at or 0.0, job.name))
        chosen = [job for job in found if _is_within(job.receipt.submitted_at, since, until)]
        names = {job.name for job in chosen}
        return cls(
            jobs=chosen,
            sums=_sums(chosen, prices),
            in_doubt=[job for job in chosen if job.receipt.state in IN_DOUBT],
            repetitions=[
                repetition for repetition in _repetitions(found) if any(job.name in names for job in repetition.jobs)
            ],
            not_read=sorted(one_line(name) for name, record in records.items() if not _is_receipt(record)),
        )

    def to_dict(self, prices: Prices) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "jobs": [job.to_dict(prices) for job in self.jobs],
            "days": [
                {
                    "day": each.day,
                    "endpoint": each.endpoint,
                    "jobs": each.jobs,
                    **each.states,
                    "estimate": each.estimate,
                }
                for each in self.sums
            ],
            "in_doubt": [job.name for job in self.in_doubt],
            "paid_more_than_once": [
                {"reason": each.reason, "receipts": [job.name for job in each.jobs]} for each in self.repetitions
            ],
            "not_read": list(self.not_read),
        }

    def lines(self) -> Iterable[str]:
        """Yield the report as people read it."""
        yield from _table(_JOB_HEADINGS, map(_job_row, self.jobs))
        yield from ("", "By UTC day and endpoint:")
        yield from _table(_SUM_HEADINGS, [*map(_sum_row, self.sums), _sum_row(_total(self.sums))])
        if self.in_doubt:
            yield from ("", f"In doubt: {count(len(self.in_doubt), 'job')} may have been billed, or not:")
            yield from (f"  {job.moment} {job.task}, {_item(job)}: {_why_in_doubt(job)}" for job in self.in_doubt)
        yield ""
        if not self.repetitions:
            yield "Nothing was paid for twice: no payload, and no item of a task"
        for repetition in self.repetitions:
            yield f"Paid for {len(repetition.jobs)} times: {repetition.reason}:"
            yield from (
                f"  {job.moment} {job.task}, {_item(job)}: {job.receipt.state} {job.job_id}".rstrip()
                for job in repetition.jobs
            )
        if self.not_read:
            yield from ("", f"Not read, as no receipts: {count(len(self.not_read), 'file')}:")
            yield from (f"  {name}" for name in self.not_read)


def _is_receipt(record: Any) -> bool:
    return isinstance(record, Mapping) and record.get("state") in STATES


def _is_within(moment: float | None, since: float | None, until: float | None) -> bool:
    """Tell whether a moment is in the time asked for; one that is not known may be."""
    if moment is None:
        return True
    return (since is None or moment >= since) and (until is None or moment < until)


def _sums(jobs: Iterable[PaidJob], prices: Prices) -> list[Sum]:
    grouped: dict[tuple[str, str], list[PaidJob]] = defaultdict(list)
    for job in jobs:
        grouped[job.day, job.receipt.endpoint].append(job)
    sums = []
    for (day, endpoint), members in sorted(grouped.items()):
        price = price_of(endpoint, prices)
        states: dict[str, int] = {state: sum(job.receipt.state == state for job in members) for state in STATES}
        sums.append(Sum(day, one_line(endpoint), states, None if price is None else price * len(members)))
    return sums


def _total(sums: Sequence[Sum]) -> Sum:
    estimates = [each.estimate for each in sums if each.estimate is not None]
    states: dict[str, int] = {state: sum(each.states[state] for each in sums) for state in STATES}
    return Sum("all", "", states, sum(estimates) if estimates else None)


def _repetitions(jobs: Iterable[PaidJob]) -> list[Repetition]:
    by_payload: dict[tuple[str, ...], list[PaidJob]] = defaultdict(list)
    by_item: dict[tuple[Any, ...], list[PaidJob]] = defaultdict(list)
    for job in jobs:
        receipt, task = job.receipt, job.receipt.task
        if receipt.payload_digest:
            by_payload[receipt.account, receipt.endpoint, receipt.payload_digest].append(job)
        if task.task_id:
            by_item[task.dag_id, task.run_id, task.task_id, task.map_index, receipt.item].append(job)
    return [
        *(
            Repetition(f"the same payload, at {one_line(endpoint)}", members)
            for (_, endpoint, _), members in by_payload.items()
            if len(members) > 1
        ),
        *(
            Repetition("the same item of a task, with another payload, endpoint or account", members)
            for members in by_item.values()
            if len({(job.receipt.account, job.receipt.endpoint, job.receipt.payload_digest) for job in members}) > 1
        ),
    ]


# --- tables -----------------------------------------------------------------------------------------------

_JOB_HEADINGS = ("submitted (UTC)", "endpoint", "task", "item", "state", "job", "outputs", "files")

_SUM_HEADINGS = ("day", "endpoint", "jobs", *(state.replace("_", " ") for state in STATES), "estimate")


def _job_row(job: PaidJob) -> Sequence[str]:
    receipt = job.receipt
    counts = (str(len(receipt.outputs) or ""), str(len(receipt.files) or ""))
    state = receipt.state.replace("_", " ")
    return (job.moment or "?", one_line(receipt.endpoint), job.task, one_line(receipt.item), state, job.job_id, *counts)


def _sum_row(each: Sum) -> Sequence[str]:
    counts = (str(count) for count in each.states.values())
    return (each.day, each.endpoint, str(each.jobs), *counts, "–" if each.estimate is None else f"{each.estimate:.4g}")


def _item(job: PaidJob) -> str:
    return f"item {one_line(job.receipt.item)}"


def _why_in_doubt(job: PaidJob) -> str:
    if job.receipt.state == "intended":
        return "a worker submits it at this moment, or died meanwhile"
    return one_line(job.receipt.message) or "no usable reply came"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Yield the lines of a table, each column as wide as it must be."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
