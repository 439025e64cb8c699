"""
What a task remembers of its submissions, so that nothing is paid for twice.

Before a submission an intent is written; of two that try at the same moment only one can, and the other finds it. After
the reply the job is written, and at the end what became of it. A later try that finds a job re-attaches to it; one that
finds an intent without a job knows that the job may have been billed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from airflow_provider_modelslab._ledger.claims import claims_of, former_jobs, last_successes
from airflow_provider_modelslab._ledger.identity import (
    SHARED_FOLDER,
    ReceiptName,
    TaskTry,
    has_seed,
    job_digest,
)
from airflow_provider_modelslab._ledger.receipts import Receipt, StoredFile
from airflow_provider_modelslab._ledger.spending import SpendingGuard
from airflow_provider_modelslab._ledger.stores import ReceiptStore, Records
from airflow_provider_modelslab.exceptions import ModelsLabLedgerError
from airflow_provider_modelslab.jobs import Job

Reuse = Literal["task", "always"]
"""Who may take up a job: the task that paid for it, or every task that generates the same."""

OnClear = Literal["reuse", "regenerate"]
"""What a finished task does when it is cleared."""

REUSES: tuple[Reuse, ...] = get_args(Reuse)
ON_CLEARS: tuple[OnClear, ...] = get_args(OnClear)


class PaidItem(Protocol):
    """What the ledger needs to know of an item."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def payload(self) -> Mapping[str, Any]:
        """The parameters of the generation."""

    @property
    def digest(self) -> str:
        """The payload's digest."""


@dataclass(frozen=True, slots=True)
class Payer:
    """
    Who pays, and for what.

    :param account: the host and the account.
    :param endpoint: the path of the generation endpoint.
    :param task: this try.
    """

    account: str
    endpoint: str
    task: TaskTry

    def first_names(self, items: Sequence[PaidItem], reuse: Reuse) -> list[ReceiptName]:
        """Return how the items' first receipts are called."""
        digests = [job_digest(self.account, self.endpoint, item.digest) for item in items]
        if reuse == "always":
            return list(map(ReceiptName.shared, digests))
        pairs = zip(items, digests, strict=True)
        return [ReceiptName.of_item(self.task, item.name, digest) for item, digest in pairs]


@dataclass(slots=True)
class Ledger:
    """
    The submissions of one task, by the position of their items.

    Every method that keeps something raises ``ModelsLabLedgerError`` where the store does not work.

    :param items: the items.
    :param payer: who pays.
    :param store: where receipts are kept; ``None`` where nothing is remembered.
    :param names: how the receipts of the items are called: those that are there, or that are to be written.
    :param wall: tells the time, in seconds since the epoch.
    :param jobs: the jobs that are known. A failed one without an id stands for a submission that failed.
    :param orphans: whose submission may have been billed: the intent is there, and no job.
    :param reattached: whose jobs an earlier try has submitted.
    :param files: the stored outputs of jobs, as far as they are stored.
    :param former: by the item's name, jobs for another payload, endpoint or account.
    :param guard: what keeps the limits of spending.
    :param unkept: whose receipts could not be written so far.
    :param succeeded: the last generation of an item that has succeeded, where a later one follows it.
    """

    items: Sequence[PaidItem]
    payer: Payer
    store: ReceiptStore | None
    names: list[ReceiptName]
    wall: Callable[[], float]
    jobs: dict[int, Job] = field(default_factory=dict)
    orphans: set[int] = field(default_factory=set)
    reattached: set[int] = field(default_factory=set)
    files: dict[int, tuple[StoredFile, ...]] = field(default_factory=dict)
    former: Mapping[str, Receipt] = field(default_factory=dict)
    guard: SpendingGuard | None = None
    unkept: set[int] = field(default_factory=set)
    succeeded: dict[int, int] = field(default_factory=dict)
    _receipts: dict[int, Receipt] = field(default_factory=dict)

    @classmethod
    def recall(
        cls,
        items: Sequence[PaidItem],
        payer: Payer,
        store: ReceiptStore | None,
        wall: Callable[[], float],
        *,
        reuse: Reuse = "task",
        on_clear: OnClear = "reuse",
    ) -> Ledger:
        """
        Return the ledger of a try that begins: what earlier tries have left is read once.

        :param reuse: see :data:`Reuse`.
        :param on_clear: see :data:`OnClear`.
        """
        names = payer.first_names(items, reuse)
        ledger = cls(items, payer, store, names, wall)
        if store is not None and items:
            records = _shared_records(store, names) if reuse == "always" else store.read_folder(payer.task.folder)
            ledger._take(records, regenerate=on_clear == "regenerate")
        return ledger

    @property
    def survives_retry(self) -> bool:
        """Whether the next try will know of what is submitted now."""
        return self.store is not None

    @property
    def survives_clear(self) -> bool:
        """Whether the next try will know of it after the task was cleared, too."""
        return self.store is not None and self.store.survives_clear

    @property
    def others_may_write(self) -> bool:
        """Whether another try, or another task, may be submitting the same at this moment."""
        return self.store is not None and self.store.others_may_write

    @property
    def is_shared(self) -> bool:
        """Whether every task that generates the same may take up these jobs."""
        return any(name.stem.startswith(f"{SHARED_FOLDER}/") for name in self.names[:1])

    def receipt(self, position: int) -> Receipt | None:
        """Return what is written of an item, as far as this process has read or written it."""
        return self._receipts.get(position)

    def receipts_of_run(self) -> list[Receipt]:
        """Return the receipts of all tasks of the run, as far as they are in the same ledger."""
        records = {} if self.store is None else self.store.read_all(self.payer.task.run_folder)
        return [*map(Receipt.from_dict, records.values()), *self._receipts.values()]

    def may_renew(self, position: int, *, forgotten: bool) -> bool:
        """
        Whether this try may submit an item again whose job has come to no good end.

        :param forgotten: whether ModelsLab does not know the job any more; else it has failed.
        """
        receipt = self._receipts[position]
        if receipt.state == "intended":
            return False  # Not before the user knows that it may have been billed.
        return (forgotten and receipt.state != "in_doubt") or not receipt.is_retried_by(self.payer.task)

    def failures(self, position: int) -> int:
        """Return how many generations of an item have failed in a row, should the present one fail, too."""
        return self.names[position].number - self.succeeded.get(position, 0)

    # --- submitting ---------------------------------------------------------------------------------------

    def intend(self, position: int) -> bool:
        """
        Remember that an item is about to be submitted.

        :return: whether it may be submitted: no other try or task has done so, or is about to.
        :raises ModelsLabBudgetExceeded: it would exceed a limit of spending.
        """
        self.catch_up()
        if self.guard is not None:
            self.guard.admit()
        if self.store is not None:
            receipt = self._intent(position)
            if not self.store.create(str(self.names[position]), receipt.to_dict()):
                return False
            self._receipts[position] = receipt
        if self.guard is not None:
            try:
                self.guard.count(self.names[position])
            except ModelsLabLedgerError:
                self.withdraw(position)  # It is not submitted now.
                raise
        self.orphans.add(position)
        return True

    def accept(self, position: int, job: Job) -> None:
        """Remember the job of an item."""
        self.jobs[position] = job
        self.orphans.discard(position)
        if self.store is not None:
            self._receipts[position] = self._receipts[position].accepted(job)
            self._keep([position])

    def doubt(self, position: int, named: Job | None) -> None:
        """
        Remember that no usable reply came to a submission; the user is told at the end.

        :param named: the job that an unusable reply has named.
        """
        if named is not None and position in self._receipts:
            self._receipts[position] = self._receipts[position].named(named)
            self._keep([position])

    def fail(self, position: int, job: Job) -> None:
        """Remember that ModelsLab took an item and failed at once."""
        self.jobs[position] = job
        self.orphans.discard(position)
        if self.store is not None:
            # In one step: a job without an id that is not known to have failed could not be asked for.
            self._receipts[position] = self._receipts[position].ended(job, self.payer.task, self.wall())
            self._keep([position])

    def withdraw(self, position: int) -> None:
        """Remember that an item was not submitted after all."""
        self.orphans.discard(position)
        if self.guard is not None:
            self.guard.discount(self.names[position])
        if self._receipts.pop(position, None) is not None and self.store is not None:
            self.store.delete(str(self.names[position]))

    def catch_up(self) -> None:
        """Write what could not be written so far, maybe before the task was deferred."""
        owed = self.unkept & self.jobs.keys()
        self._read(owed)
        for position in owed & self._receipts.keys():
            job = self.jobs[position]
            if self._receipts[position].job is None and (job.id or job.status == "success"):
                self._receipts[position] = self._receipts[position].accepted(job)
        self._keep([position for position in owed if position in self._receipts])

    def renew(self, position: int) -> None:
        """Leave the job of an item, which has failed or is gone: the item may be submitted again."""
        job, receipt = self.jobs.pop(position, None), self._receipts.pop(position, None)
        # Of a job that ModelsLab has forgotten, only the receipt knows that it has succeeded.
        if (job is not None and job.status == "success") or (receipt is not None and receipt.state == "succeeded"):
            self.succeeded[position] = self.names[position].number
        self.orphans.discard(position)
        self.reattached.discard(position)
        self.names[position] = self.names[position].next()

    def read_again(self, position: int) -> Receipt | None:
        """Read what another try or task has written of an item, and take its job up, if there is one."""
        self.orphans.discard(position)
        self._receipts.pop(position, None)
        self._read([position])
        return self._take_up(position)

    # --- the end ------------------------------------------------------------------------------------------

    def settle(self, status: Literal["failed", "success"], positions: Iterable[int] | None = None) -> None:
        """
        Remember what became of jobs, now that the user is told of it, or has the result.

        :param status: whether of those that failed, or that succeeded.
        :param positions: of which items; by default of all.
        """
        task, now = self.payer.task, self.wall()
        ended = [p for p in (self.jobs if positions is None else positions) if self.jobs[p].status == status]
        self._read(ended)
        changed = []
        for position in ended:
            receipt, job = self._receipts.get(position), self.jobs[position]
            if receipt is None:
                continue  # It was refused, and not paid for.
            is_doubtful = not job.id and status == "failed" and receipt.state in ("intended", "in_doubt")
            files = self.files.get(position, ())
            after = receipt.doubted(job.message, task, now) if is_doubtful else receipt.ended(job, task, now, files)
            # What other tasks may take up, too, stays as the first one has left it.
            is_new = receipt.state != after.state or (not self.is_shared and receipt.settled_by != task)
            if is_new or receipt.files != after.files:
                self._receipts[position] = after
                changed.append(position)
        self._keep(changed)

    def hand_over(self) -> None:
        """Remember that the task has returned its jobs without waiting for them."""
        submitted = [position for position, job in self.jobs.items() if job.status != "failed"]
        self._read(submitted)
        known = [position for position in submitted if position in self._receipts]
        for position in known:
            self._receipts[position] = self._receipts[position].handed_over(self.payer.task, self.wall())
        self._keep(known)

    # --- inside -------------------------------------------------------------------------------------------

    def _take(self, records: Records, *, regenerate: bool) -> None:
        """Take up what earlier tries, or other tasks, have left."""
        parsed = {ReceiptName.parse(name): Receipt.from_dict(record) for name, record in records.items()}
        found = {name: receipt for name, receipt in parsed.items() if name is not None}
        claims = claims_of(self.names, found, self.payer.task, regenerate)
        self.names = [claim.name for claim in claims]
        self.succeeded = last_successes(claims, found)
        self.former = former_jobs(claims, [item.name for item in self.items], found)
        self._receipts = {position: claim.receipt for position, claim in enumerate(claims) if claim.receipt is not None}
        for position in self._receipts:
            self._take_up(position)

    def _take_up(self, position: int) -> Receipt | None:
        receipt = self._receipts.get(position)
        if receipt is None:
            return None
        job = receipt.known_job()
        if job is None:
            self.orphans.add(position)
        else:
            self.jobs[position] = job
            self.reattached.add(position)
        return receipt

    def _intent(self, position: int) -> Receipt:
        item = self.items[position]
        return Receipt(
            endpoint=self.payer.endpoint,
            account=self.payer.account,
            payload_digest=item.digest,
            has_seed=has_seed(item.payload),
            item=item.name,
            task=self.payer.task,
            nonce=uuid.uuid4().hex,
            submitted_at=self.wall(),
        )

    def _read(self, positions: Iterable[int]) -> None:
        """Read the receipts that this process has neither read nor written."""
        unread = {str(self.names[position]): position for position in positions if position not in self._receipts}
        if self.store is not None and unread:
            for name, record in self.store.read(unread).items():
                self._receipts[unread[name]] = Receipt.from_dict(record)

    def _keep(self, positions: Sequence[int]) -> None:
        """Write receipts; those that cannot be written now are written with the next ones."""
        self.unkept.update(positions)
        if self.store is not None and positions:
            self.store.write({str(self.names[position]): self._receipts[position].to_dict() for position in positions})
        self.unkept.difference_update(positions)


def _shared_records(store: ReceiptStore, names: Sequence[ReceiptName]) -> Records:
    """Return all generations of some receipts, by their names: no listing, since all DAGs have left theirs there."""
    records: Records = {}
    while names:
        found = store.read(str(name) for name in names)
        records |= found
        names = [name.next() for name in names if str(name) in found]
    return records
