"""Submitting the items of a task: as many as there are queue slots, and each remembered before it is paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.worker_poller import WorkerPoller
from airflow_provider_modelslab._protocol.formatting import count, format_moment
from airflow_provider_modelslab._tasks.doubts import describe_candidates
from airflow_provider_modelslab._tasks.ledgers import advise_clear, advise_in_doubt
from airflow_provider_modelslab._tasks.progress import Progress
from airflow_provider_modelslab._tasks.reattaching import await_submission
from airflow_provider_modelslab._telemetry import metrics
from airflow_provider_modelslab.endpoints import endpoint_of_submission
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabBudgetExceeded,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabLedgerError,
    ModelsLabRateLimited,
    ModelsLabRequestError,
    ModelsLabTransientError,
    argument_errors,
)
from airflow_provider_modelslab.jobs import Job


class SubmittingHook(Protocol):
    """What is needed of the hook, which stands above this module."""

    modelslab_conn_id: str

    @property
    def poller(self) -> WorkerPoller:
        """What polls many jobs."""

    def submit(self, path: str, payload: Mapping[str, Any], *, queue_timeout: float, name: str) -> Job:
        """Submit a generation job."""

    def upload(self, file: bytes) -> str:
        """Upload a file as an input."""

    def balance(self) -> float:
        """Return what the account's wallet holds."""

    def requests_in_flight(self) -> int | None:
        """Return how many jobs the account has in its queue, where ModelsLab tells."""


@dataclass(frozen=True, slots=True)
class Submitter:
    """
    What submits the items of a task.

    :param hook: the hook of the connection.
    :param progress: the task.
    :param min_balance: submit nothing when the account's balance is below this.
    :param log: the task's log.
    """

    hook: SubmittingHook
    progress: Progress
    min_balance: float | None
    log: Any

    def fail_orphans(self, list_assets: Callable[..., Any]) -> None:
        """
        Let the items fail during whose submission an earlier try has ended: they may have been billed.

        :param list_assets: asks ModelsLab for the outputs of the account.
        """
        ledger = self.progress.ledger
        advice = advise_in_doubt(ledger.store)
        for position in sorted(ledger.orphans):
            message = f"{advice}: this may have been billed, an earlier try ended during a submission"
            message += describe_candidates(ledger, position, list_assets)
            self._fail(position, ModelsLabAmbiguousSubmission(message))

    def fill_queue_slots(self) -> float | None:
        """
        Submit items while there are queue slots for them.

        :return: when to try again, on the monotonic clock, where ModelsLab refuses for now.
        :raises AirflowException: the account is refused, or a limit of spending is reached.
        """
        progress = self.progress
        slots, left = progress.slots, progress.left()
        in_queue = self.hook.requests_in_flight() if slots.wants_count and left else None
        slots.begin_turn(len(progress.unfinished()), in_queue)
        # What was refused goes to the end: ModelsLab may have refused that item, and not the others.
        turn = progress.refusals % max(1, len(left))
        order = left[turn:] + left[:turn]
        for position in order:
            in_flight = len(progress.unfinished())
            if not slots.has_room(in_flight):
                break
            try:
                self._submit(position)
            except ModelsLabTransientError as error:
                with paid_for(self.log):
                    progress.ledger.withdraw(position)
                return self._back_off(error, in_flight)
            except (ModelsLabRequestError, ModelsLabJobFailed, ModelsLabAmbiguousSubmission) as error:
                progress.submitted.add(position)
                self._fail(position, error)
                order += [position] if position in progress.left() else []
            except (ModelsLabBudgetExceeded, ModelsLabCreditsError) as error:
                if not progress.is_left_only_renewed():
                    self._give_up(position)
                    raise
                with paid_for(self.log):
                    progress.ledger.withdraw(position)
                for each in progress.leave_failed():
                    self.log.warning("%s is not submitted once more: %s", progress.name_of(each), error)
                break
            except AirflowException:
                self._give_up(position)
                raise
            else:
                progress.refusals, progress.refusal = 0, ""
                slots.accept(len(progress.unfinished()))
        if not progress.left() or progress.unfinished():
            return None
        progress.refusals += 1  # No submission was worth trying.
        return self._pause(0.0, "Waiting for a queue slot", "others use all of the account's")

    def submit_once_more(self, position: int) -> None:
        """Let an item be submitted again whose generation has failed."""
        with paid_for(self.log):
            former = self.progress.renew(position)
            message = "%s is submitted once more: job %s has failed (%s)"
            self.log.warning(message, self.progress.name_of(position), former, former.message)

    def _submit(self, position: int) -> None:
        self._check_balance()
        hook, progress, ledger = self.hook, self.progress, self.progress.ledger
        item, clock = progress.items[position], hook.poller.pacing.clock
        with argument_errors():
            payload = progress.uploads.payload_of(item.payload, item.files, hook.upload, clock.wall())
        while not self._intend(position):
            if (found := await_submission(hook.poller, ledger, position, clock.wall())) is not None:
                self._take_over(position, found)
                return
        name = str(item) if progress.batch else ""
        job = hook.submit(ledger.payer.endpoint, payload, queue_timeout=0, name=name)
        progress.submitted.add(position)
        with paid_for(self.log, job):
            ledger.accept(position, job)

    def _intend(self, position: int) -> bool:
        """Remember that an item is about to be submitted, unless the task is killed; see :meth:`Ledger.intend`."""
        if self.progress.killed:
            raise AirflowException("Clear the task to submit what is left: it was killed before")
        return self.progress.ledger.intend(position)

    def _take_over(self, position: int, found: Receipt) -> None:
        """Wait for the job that another try, or another task, has just submitted."""
        ledger = self.progress.ledger
        if found.known_job() is None or found.state == "in_doubt":
            raise ModelsLabAmbiguousSubmission(
                f"{advise_in_doubt(ledger.store)}: this may have been billed, another try has begun to submit it, and "
                "there is no job yet"
            )
        self.log.info("%s was submitted by another try: job %s", self.progress.name_of(position), found.job)
        if found.state == "succeeded" and found.job is not None and found.job.id:
            ledger.jobs[position] = found.job  # Its outputs are asked for again: URLs die.

    def _check_balance(self) -> None:
        """Stop before the first submission of a try where the account's balance is too low or unknown."""
        if self.min_balance is None or self.progress.submitted:
            return
        try:
            balance = self.hook.balance()
        except ModelsLabRequestError as error:  # It is about the account, and so about all items.
            raise ModelsLabArgumentError(f"Leave out min_balance, which cannot be kept: {error}") from error
        if balance < self.min_balance:
            raise ModelsLabCreditsError(
                f"Top up the account of connection {self.hook.modelslab_conn_id!r}, then clear the task: its balance "
                f"is {balance:g}, below min_balance ({self.min_balance:g}). No further job was submitted"
            )

    # --- refusals -----------------------------------------------------------------------------------------

    def _back_off(self, error: ModelsLabTransientError, in_flight: int) -> float | None:
        """Return when to try again; ``None`` where that is when a job finishes."""
        progress, waiting = self.progress, "Waiting"
        progress.refusals += 1
        if isinstance(error, ModelsLabRateLimited):
            waiting = "Waiting for a queue slot"
            progress.slots.refuse(in_flight, error.queue_slots, error.retry_after or 0.0)
            if progress.slots.fixed is None and error.queue_slots and in_flight:
                self.log.info("Holding at %s in flight, until one finishes: %s", count(in_flight, "job"), error.reason)
                return None
        moment = self._pause(error.retry_after or 0.0, waiting, error.reason)
        if isinstance(error, ModelsLabRateLimited):
            metrics.paused("submissions", moment - self.hook.poller.pacing.clock.monotonic())
        return moment

    def _pause(self, asked: float, waiting: str, reason: str) -> float:
        """
        Return when to try again, and say so.

        :param asked: seconds that ModelsLab asks to pause.
        """
        pacing = self.hook.poller.pacing
        clock, shortest = pacing.clock, schedule.backoff_delay(self.progress.refusals, pacing.policy)
        pause = schedule.spread_pause(max(asked, shortest), pacing.random, pacing.policy)
        now, deadline = clock.wall(), self.progress.deadline
        again = f"next try about {format_moment(now + pause, now)}"
        if now + pause > deadline:
            again = f"until {format_moment(deadline, now)}, when its time is over"
        self.progress.refusal = reason
        self.log.info("%s, %s: %s", waiting, again, reason)
        return clock.monotonic() + pause

    def _give_up(self, position: int) -> None:
        """Leave an item that was refused together with all others; what was submitted goes on."""
        ledger = self.progress.ledger
        with paid_for(self.log):
            ledger.withdraw(position)
        self.progress.leave_failed()
        if ledger.jobs and not ledger.survives_clear:
            self.log.warning("%s, for the jobs that were submitted", advise_clear(ledger.store, ""))

    def _fail(self, position: int, error: AirflowException) -> None:
        """Let a submission's failure be that of its item; alone, it is that of the task."""
        progress, ledger = self.progress, self.progress.ledger
        endpoint = endpoint_of_submission(ledger.payer.endpoint)
        job = Job(id="", endpoint=endpoint, status="failed", message=str(error))
        with paid_for(self.log):
            if isinstance(error, ModelsLabAmbiguousSubmission):
                ledger.doubt(position, error.job)
            elif isinstance(error, ModelsLabJobFailed):
                ledger.fail(position, job)
            else:
                ledger.withdraw(position)
        ledger.jobs[position] = job
        if isinstance(error, ModelsLabJobFailed) and progress.may_retry(position):
            self.submit_once_more(position)
            return
        if not progress.batch:
            with paid_for(self.log):
                ledger.settle("failed")
            raise error
        self.log.warning("Item %s: %s", progress.items[position], error)


@contextmanager
def paid_for(log: Any, job: Job | None = None) -> Iterator[None]:
    """Go on where the ledger does not work: not remembering a paid job is no reason to lose it."""
    try:
        yield
    except ModelsLabLedgerError as error:
        subject = "What became of the jobs" if job is None else f"Job {job}"
        log.warning("%s cannot be remembered for the next try: %s", subject, error)
