"""What can be told about a submission that may have been billed: which outputs it might have led to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airflow_provider_modelslab._ledger.ledger import Ledger
from airflow_provider_modelslab._ledger.receipts import Receipt
from airflow_provider_modelslab._outputs.names import redact_url
from airflow_provider_modelslab._protocol.assets import PER_PAGE, Asset
from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab._protocol.outputs import as_text
from airflow_provider_modelslab.exceptions import ModelsLabLedgerError

_NAMED = 5


def describe_candidates(ledger: Ledger, position: int, ask: Callable[[str], list[Asset] | None]) -> str:
    """
    Return a sentence about outputs that ModelsLab lists and no receipt of the run knows; empty where nothing is known.

    :param ledger: the task's ledger.
    :param position: the item whose submission is in doubt.
    :param ask: asks ModelsLab for its newest outputs of an endpoint's kind.
    """
    receipt = ledger.receipt(position)
    assets = None if receipt is None else ask(receipt.endpoint)
    if receipt is None or assets is None:
        return ""
    try:
        found = candidates(assets, receipt, ledger.receipts_of_run())
    except ModelsLabLedgerError:
        return ""
    if not found:
        return (
            f". Among the account's {PER_PAGE} newest outputs, none is newer and unknown to the ledger: nothing came "
            "of it so far"
        )
    named = "; ".join(
        f"job {one_line(asset.job_id)} ({', '.join(redact_url(as_text(output)) for output in asset.outputs[:1])})"
        for asset in found[:_NAMED]
    )
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f". Compare these outputs of the account, which the ledger does not know: {named}{more}"


def candidates(assets: Sequence[Asset], doubtful: Receipt, known: Sequence[Receipt]) -> list[Asset]:
    """
    Return the outputs that may have come of a submission in doubt.

    ModelsLab's list tells no times, but ids grow: what has a lower id than a job submitted before it is older.

    :param assets: the account's outputs.
    :param doubtful: the receipt of the submission.
    :param known: the receipts of the same run.
    """
    jobs = [(receipt, receipt.job.id) for receipt in known if receipt.job is not None and receipt.job.id]
    before = [
        int(job_id)
        for receipt, job_id in jobs
        if _is_number(job_id)
        and receipt.endpoint == doubtful.endpoint
        and (receipt.submitted_at or 0.0) <= (doubtful.submitted_at or 0.0)
    ]
    ids, oldest = {job_id for _, job_id in jobs}, max(before, default=-1)
    return [
        asset
        for asset in assets
        if asset.job_id not in ids and not (_is_number(asset.job_id) and int(asset.job_id) < oldest)
    ]


def _is_number(job_id: str) -> bool:
    return job_id.isascii() and job_id.isdigit()
