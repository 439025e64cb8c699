"""What a try takes up of what is paid for: by earlier tries or, with ``reuse="always"``, by other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_modelslab._ledger.ledger import Ledger
from airflow_provider_modelslab._ledger.receipts import Receipt, StoredFile
from airflow_provider_modelslab._polling.waits import JobWaits, is_inferred
from airflow_provider_modelslab._polling.worker_poller import WorkerPoller
from airflow_provider_modelslab._protocol.shortening import described_digest
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab._tasks.progress import Progress
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError
from airflow_provider_modelslab.jobs import Output

SUBMISSION_GRACE = 5.0
"""Seconds that an intent gets beyond the connection's ``request_timeout`` before it counts as given up."""

_LOOK_GAP = 1.0
"""Seconds after which the receipt of an item is read again that another try is submitting."""


def reattach(poller: WorkerPoller, progress: Progress, log: Any, keep_files_in: str | None = None) -> None:
    """
    Take up what is paid for; what is left in ``ledger.orphans`` may have been billed.

    :param poller: polls the jobs.
    :param progress: the task, at the begin of a try.
    :param log: the task's log.
    :param keep_files_in: the folder whose files are good as they are; ``None`` asks ModelsLab again for the outputs.
    """
    ledger = progress.ledger
    seen = poller.pacing.clock.wall()
    for position in sorted(ledger.orphans):
        await_submission(poller, ledger, position, seen)
    for position in sorted(ledger.jobs):
        _take_up(ledger, position, log, keep_files_in)
    unfinished = progress.unfinished()
    if not unfinished:
        return
    log.info("Re-attaching to jobs of an earlier try: %s", progress.describe(unfinished))
    forgotten = _poll_until_known(poller, progress)
    for position in sorted(ledger.jobs):
        job = ledger.jobs[position]
        if job.status == "failed":
            _leave(progress, position, log, forgotten=(job.endpoint, job.id) in forgotten)


def await_submission(poller: WorkerPoller, ledger: Ledger, position: int, seen: float) -> Receipt | None:
    """
    Wait while another try, or another task, is submitting an item.

    :param seen: when the intent was seen first, in seconds since the epoch: so old is one that tells no time, such as a
        file that is being written.
    :return: what is known of the item then; ``None`` where it was not submitted after all.
    """
    clock = poller.pacing.clock
    receipt = ledger.receipt(position) or ledger.read_again(position)
    if receipt is None or not ledger.others_may_write:
        return receipt
    limit = poller.client.options.request_timeout + SUBMISSION_GRACE
    # Clocks of two machines differ: an intent of the future is as old as one of this moment.
    age = max(0.0, clock.wall() - (seen if receipt.submitted_at is None else receipt.submitted_at))
    end = clock.monotonic() + limit - age
    while receipt is not None and _is_under_way(receipt) and clock.monotonic() < end:
        clock.sleep(_LOOK_GAP)
        receipt = ledger.read_again(position)
    return receipt


def _is_under_way(receipt: Receipt) -> bool:
    return receipt.state == "intended" and receipt.known_job() is None


def _take_up(ledger: Ledger, position: int, log: Any, keep_files_in: str | None) -> None:
    """Return a finished job from its stored files, or have ModelsLab asked for it again, since URLs die."""
    receipt, job = ledger.receipt(position), ledger.jobs[position]
    if receipt is None or job.status != "success":
        return
    if ledger.is_shared or (keep_files_in is not None and _all_in(keep_files_in, receipt.files)):
        if _take_stored(ledger, position, receipt):
            return
        if ledger.is_shared:
            log.warning("Submitting again: the stored outputs of job %s are gone", job)
            ledger.renew(position)
            return
    if job.id:
        ledger.jobs[position] = replace(job, status="processing", outputs=[], generation_time=None)
    elif any(map(described_digest, job.outputs)) and not _take_stored(ledger, position, receipt):
        log.warning("Submitting again: the outputs of a job without an id, submitted to %s, are gone", receipt.endpoint)
        ledger.renew(position)


def _take_stored(ledger: Ledger, position: int, receipt: Receipt) -> bool:
    """Take the stored outputs of a finished job, if they are all there."""
    if not receipt.files or len(receipt.files) != len(receipt.outputs) or not _are_there(receipt.files):
        return False
    pairs = zip(receipt.outputs, receipt.files, strict=True)
    outputs: list[Output] = [file.path if described_digest(output) else output for output, file in pairs]
    ledger.jobs[position] = replace(ledger.jobs[position], status="success", eta=None, outputs=outputs, message="")
    ledger.files[position] = receipt.files
    return True


def _leave(progress: Progress, position: int, log: Any, *, forgotten: bool) -> None:
    """Submit an item again whose job has failed, or is forgotten, where this try may do so."""
    ledger = progress.ledger
    receipt, job = ledger.receipt(position), ledger.jobs[position]
    if receipt is None or (forgotten and _take_stored(ledger, position, receipt)):
        return
    if (forgotten or not is_inferred(job)) and ledger.may_renew(position, forgotten=forgotten):
        message = "%s is submitted again: job %s of an earlier try failed (%s)"
        log.warning(message, progress.name_of(position), job, job.message)
        ledger.renew(position)
    elif forgotten and receipt.state in ("intended", "in_doubt"):
        del ledger.jobs[position]
        ledger.orphans.add(position)


def _poll_until_known(poller: WorkerPoller, progress: Progress) -> set[tuple[str, str]]:
    """Poll jobs once; those that ModelsLab seems to have forgotten, until that is certain. Return the forgotten."""
    clock, ledger = poller.pacing.clock, progress.ledger
    waits = JobWaits(list(ledger.jobs.values()), poller.pacing)
    polled = everyone = waits.unfinished()
    receipts = {(job.endpoint, job.id): ledger.receipt(position) for position, job in ledger.jobs.items()}
    for wait in everyone:
        receipt = receipts[wait.job.endpoint, wait.job.id]
        wait.is_news = receipt is None or receipt.state != "succeeded"
    while polled:
        poller.poll(waits, polled, poller.pacing.monotonic_of(progress.deadline))
        polled = [wait for wait in waits.unfinished() if wait.last_verdict is Verdict.NOT_FOUND]
        left = progress.deadline - clock.wall()
        if left <= 0:
            break
        if polled:
            clock.sleep(min(left, *(wait.delay() for wait in polled)))
    progress.replace_jobs(waits.jobs())
    return {
        (wait.job.endpoint, wait.job.id)
        for wait in everyone
        if wait.job.status == "failed" and wait.last_verdict is Verdict.NOT_FOUND
    }


def _all_in(folder: str, files: Sequence[StoredFile]) -> bool:
    return bool(files) and all(file.path.startswith(f"{folder.rstrip('/')}/") for file in files)


def _are_there(files: Sequence[StoredFile]) -> bool:
    """Whether stored files are there, as long as they were."""
    from airflow_provider_modelslab._outputs.stores import Store  # parsing a DAG needs no fsspec

    stores: dict[str, Store] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        try:
            if folder not in stores:
                stores[folder] = Store(folder or "/")
        except ModelsLabArgumentError:
            return False  # A receipt may hold anything.
        size = stores[folder].size(name)
        if size is None or (file.size is not None and size != file.size):
            return False
    return True
