"""
How far a generation task has come: its items, their jobs, its deadline; and how all that travels with a wait.

Between two executions, the trigger carries what is small, and an XCom carries the items as they were rendered. A
payload longer than :data:`~airflow_provider_modelslab._protocol.shortening.MAX_FIELDS`, or with a secret in it, does
not travel: while one is not submitted, the task stays on its worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_modelslab._ledger.identity import ReceiptName
from airflow_provider_modelslab._ledger.ledger import Ledger, Payer
from airflow_provider_modelslab._ledger.receipts import StoredFile
from airflow_provider_modelslab._ledger.stores import ReceiptStore
from airflow_provider_modelslab._polling.queue_slots import QueueSlots
from airflow_provider_modelslab._polling.waits import is_inferred
from airflow_provider_modelslab._protocol.kinds import is_cancelled
from airflow_provider_modelslab._protocol.shortening import is_long_output
from airflow_provider_modelslab._tasks.batches import Item
from airflow_provider_modelslab._tasks.events import job_records
from airflow_provider_modelslab._tasks.inputs import Uploads
from airflow_provider_modelslab.jobs import Job

_LISTED_JOBS = 10


@dataclass(slots=True)
class Progress:
    """
    How far a task has come.

    :param items: what is to be generated, as it was rendered when the try began.
    :param ledger: what has been submitted.
    :param deadline: when to give up, in seconds since the epoch.
    :param batch: whether the items are a batch.
    :param slots: how many jobs may be in flight.
    :param refusals: how many times in a row ModelsLab has taken nothing.
    :param refusal: why, the last time.
    :param resumed: whether the items stand in an XCom already.
    :param uploads: the files that were uploaded for the items.
    :param submitted: the items whose present jobs this try has submitted.
    :param retry_failed: how often an item is generated again whose generation has failed.
    :param renewed: the failed jobs of the items that are to be submitted once more, and how their receipts are called.
    :param killed: whether the task is being killed, and submits nothing more.
    """

    items: Sequence[Item]
    ledger: Ledger
    deadline: float
    batch: bool
    slots: QueueSlots = field(default_factory=QueueSlots)
    refusals: int = 0
    refusal: str = ""
    resumed: bool = False
    uploads: Uploads = field(default_factory=Uploads)
    submitted: set[int] = field(default_factory=set)
    retry_failed: int = 0
    renewed: dict[int, tuple[Job, ReceiptName]] = field(default_factory=dict)
    killed: bool = False

    def left(self) -> list[int]:
        """Return the positions of the items that are not submitted yet."""
        return [position for position in range(len(self.items)) if position not in self.ledger.jobs]

    def may_retry(self, position: int) -> bool:
        """Whether an item may be generated once more, should its generation fail: the ledger counts them."""
        return not self.killed and self.ledger.failures(position) <= self.retry_failed

    def failed(self) -> list[int]:
        """Return the positions of the items whose generation has failed, as ModelsLab says, and may be repeated."""
        failed = [position for position, job in self.ledger.jobs.items() if _has_failed_by_itself(job)]
        return [position for position in failed if self.may_retry(position)]

    def renew(self, position: int) -> Job:
        """Let an item be submitted once more, and return its former job."""
        former, name = self.ledger.jobs[position], self.ledger.names[position]
        self.ledger.settle("failed", [position])
        self.ledger.renew(position)
        self.resumed = False  # Its receipt has another name now.
        self.renewed[position] = former, name
        self.submitted.discard(position)
        return former

    def is_left_only_renewed(self) -> bool:
        """Whether each item that is left to submit was submitted before, and failed."""
        return self.renewed.keys() >= set(self.left())

    def leave_failed(self) -> list[int]:
        """
        Give up submitting items once more, those to come included: what was to be submitted again stays failed.

        :return: the positions of the items that have their failed jobs back.
        """
        positions = [position for position in self.left() if position in self.renewed]
        for position in positions:
            self.ledger.jobs[position], self.ledger.names[position] = self.renewed.pop(position)
        self.resumed = self.resumed and not positions  # Their receipts have their former names.
        self.retry_failed = 0
        return positions

    def unfinished(self) -> list[Job]:
        """Return the jobs in progress."""
        return [job for job in self.ledger.jobs.values() if not job.finished]

    def jobs(self) -> list[Job]:
        """Return the jobs of all items that were submitted, in the order of the items."""
        return [self.ledger.jobs[position] for position in sorted(self.ledger.jobs)]

    def name_of(self, position: int) -> str:
        """Return what log lines call an item, as the beginning of a sentence."""
        return f"Item {self.items[position]}" if self.batch else "The generation"

    def names(self) -> list[str]:
        """Return what the user calls the items of a batch; nothing for a single one."""
        return [f"item {item}" for item in self.items] if self.batch else []

    def describe(self, jobs: Sequence[Job]) -> str:
        """Name some of the task's jobs, the first ten: items of a batch by their names."""
        names = dict(zip(map(str, self.ledger.jobs.values()), self.item_names(), strict=False))
        shown = [f"item {names[str(job)]} ({job})" if str(job) in names else str(job) for job in jobs[:_LISTED_JOBS]]
        more = [f"and {len(jobs) - _LISTED_JOBS} more"] if len(jobs) > _LISTED_JOBS else []
        return ", ".join([*shown, *more])

    def item_names(self) -> list[str]:
        """Return the items of a batch, in the order of ``ledger.jobs``; nothing for a single one."""
        return [str(self.items[position]) for position in self.ledger.jobs] if self.batch else []

    def replace_jobs(self, jobs: Sequence[Job]) -> None:
        """Take the jobs as they stand now, in the order of ``ledger.jobs``."""
        self.ledger.jobs |= dict(zip(self.ledger.jobs, jobs, strict=True))

    def may_travel(self) -> bool:
        """Whether all that the task still needs may stand in Airflow's database."""
        payloads_fit = all(self.items[position].may_travel for position in self._to_submit())
        # The output of a job without an id cannot be fetched again.
        outputs_fit = not any(is_long_output(output) for job in self.jobs() if not job.id for output in job.outputs)
        return payloads_fit and outputs_fit

    def _to_submit(self) -> set[int]:
        """Return the positions of the items whose payloads are, or may be, still needed."""
        jobs = self.ledger.jobs
        running = {each for each, job in jobs.items() if job.status != "success" and self.may_retry(each)}
        return running | set(self.left())

    def item_records(self) -> list[dict[str, Any]]:
        """Return the items as an XCom keeps them: the payloads of those already submitted are shortened."""
        to_submit, ledger = self._to_submit(), self.ledger
        records = []
        for position, item in enumerate(self.items):
            record = item.to_record(whole=position in to_submit)
            record["receipt"] = str(ledger.names[position])
            if position in self.renewed and position not in ledger.jobs:
                former, name = self.renewed[position]
                record["former"] = [*job_records([former]), str(name)]
            if succeeded := ledger.succeeded.get(position):
                record["succeeded"] = succeeded
            if files := ledger.files.get(position):
                record["stored"] = [[file.path, file.size] for file in files]
            records.append(record)
        return records

    def to_state(self) -> dict[str, Any]:
        """Return what the trigger carries, beside the jobs in the order of ``ledger.jobs``."""
        return {
            "positions": list(self.ledger.jobs),
            "deadline": self.deadline,
            "batch": self.batch,
            "slots": self.slots.to_record(),
            "refusals": self.refusals,
            "refusal": self.refusal,
            "uploads": self.uploads.urls,
            "unkept": sorted(self.ledger.unkept),
            "submitted": sorted(self.submitted),
            "retry_failed": self.retry_failed,
        }

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        records: Sequence[Mapping[str, Any]],
        jobs: Sequence[Job],
        payer: Payer,
        store: ReceiptStore | None,
        wall: Callable[[], float],
    ) -> Progress:
        """
        Return how far a task that resumes has come.

        :param state: what :meth:`to_state` returned.
        :param records: what :meth:`item_records` returned.
        :param jobs: the jobs that the trigger has returned.
        :param payer: who pays.
        :param store: where receipts are kept; they are not read again until one of them is to be written.
        :param wall: tells the time, in seconds since the epoch.
        """
        items = [Item.from_record(record) for record in records]
        names = [ReceiptName.parse(record["receipt"]) for record in records]
        ledger = Ledger(items, payer, store, [name for name in names if name is not None], wall)
        ledger.jobs = dict(zip(state["positions"], jobs, strict=True))
        ledger.unkept = set(state.get("unkept", ()))
        for position, record in enumerate(records):
            if "stored" in record:
                ledger.files[position] = tuple(StoredFile(path, size) for path, size in record["stored"])
            if "succeeded" in record:
                ledger.succeeded[position] = record["succeeded"]
        former = {position: record["former"] for position, record in enumerate(records) if "former" in record}
        return cls(
            items,
            ledger,
            state["deadline"],
            state["batch"],
            QueueSlots.from_record(state["slots"]),
            state["refusals"],
            state.get("refusal", ""),
            resumed=True,
            uploads=Uploads(dict(state.get("uploads", {}))),
            submitted=set(state.get("submitted", ())),
            retry_failed=state.get("retry_failed", 0),
            renewed={
                position: (Job.from_dict(job), name)
                for position, (job, text) in former.items()
                if (name := ReceiptName.parse(text)) is not None
            },
        )


def _has_failed_by_itself(job: Job) -> bool:
    return job.status == "failed" and bool(job.id) and not is_inferred(job) and not is_cancelled(job)
