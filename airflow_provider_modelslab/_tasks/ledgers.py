"""Which ledger a task has, and what may be advised: a clear is advised only where it does not pay again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_modelslab._ledger.identity import TaskTry, has_seed
from airflow_provider_modelslab._ledger.ledger import Ledger, Payer
from airflow_provider_modelslab._ledger.receipts import progress_of
from airflow_provider_modelslab._ledger.spending import Limits, SpendingGuard
from airflow_provider_modelslab._ledger.stores import BothStores, FolderStore, ReceiptStore, TaskStateStore
from airflow_provider_modelslab._protocol.formatting import count, one_line, short_name
from airflow_provider_modelslab._protocol.prices import Prices
from airflow_provider_modelslab._tasks.batches import Item
from airflow_provider_modelslab._tasks.results import DATA_ADVICE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_modelslab._http.fingerprint import Fingerprint

LEDGER_FOLDER = "_modelslab_ledger"
"""The folder beside the outputs: no output's name begins with an underscore."""

SENSOR_ADVICE = (
    "Wait with ModelsLabJobSensor(jobs=<the XCom 'jobs' of this task>), since clearing the task would submit, and pay "
    "for, new jobs"
)
"""Where nothing remembers the jobs of a task."""

KEEPING_STATE = " (choose 'Keep task state and resume')"
"""What Airflow 3.4 asks at a clear."""

STATE_IS_EMPTIED_BY_A_CLEAR = get_base_airflow_version_tuple() >= (3, 4, 0)
"""Whether this Airflow empties the task state store when a task is cleared, unless the user keeps it."""


def task_try(context: Context) -> TaskTry:
    """Return which try of which task instance runs."""
    return TaskTry.read({each.name: getattr(context["ti"], each.name, None) for each in fields(TaskTry)})


def payer_of(context: Context, endpoint: str, fingerprint: Fingerprint) -> Payer:
    """
    Return who pays for the jobs of a task.

    :param context: the task's context.
    :param endpoint: the path of the generation endpoint.
    :param fingerprint: what the connection is.
    """
    return Payer(f"{fingerprint.host}#{fingerprint.key}", endpoint, task_try(context))


def ledger_path_of(ledger_path: str | None, of_connection: str | None, output_path: str | None) -> str | None:
    """
    Return the folder of a task's ledger: its own, else the connection's, else one beside the outputs.

    :param ledger_path: the argument.
    :param of_connection: the connection's extra field.
    :param output_path: the folder of the outputs.
    """
    return ledger_path or of_connection or _beside(output_path)


def store_of(context: Context, ledger_path: str | None, output_path: str | None) -> ReceiptStore | None:
    """
    Return where a task's receipts are kept: in its folder, else in Airflow's task state store, else nowhere.

    A ledger beside the outputs is kept in the task state store, too, since another ``output_path`` has another folder.

    :param context: the task's context.
    :param ledger_path: what :func:`ledger_path_of` returned.
    :param output_path: the folder of the outputs.
    :raises ModelsLabArgumentError: the folder cannot be used.
    """
    state = context.get("task_state_store")
    state_store = None if state is None else TaskStateStore(state, survives_clear=not STATE_IS_EMPTIED_BY_A_CLEAR)
    if ledger_path is not None:
        is_beside = ledger_path == _beside(output_path)
        folder = FolderStore(ledger_path, named=f"output_path {output_path!r:.200}" if is_beside else "")
        return BothStores(folder, state_store, progress_of) if is_beside and state_store else folder
    return state_store


def guard_of(
    ledger: Ledger, limits: Sequence[Limits], prices: Prices, ledger_path: str | None, output_path: str | None
) -> SpendingGuard | None:
    """
    Return what keeps the limits of spending, where there are any.

    A ledger beside the outputs counts for nothing: other tasks, and other runs, have others.

    :param ledger: the task's ledger.
    :param limits: those of the task and those of the connection.
    :param prices: what one job costs, by endpoint.
    :param ledger_path: what :func:`ledger_path_of` returned.
    :param output_path: the folder of the outputs.
    """
    kept = [each for each in limits if each]
    if not kept:
        return None
    payer, store = ledger.payer, ledger.store
    common = store if isinstance(store, FolderStore) and ledger_path != _beside(output_path) else None
    return SpendingGuard(kept, prices, common, payer.account, payer.endpoint, payer.task, ledger.wall)


def _beside(output_path: str | None) -> str | None:
    return None if output_path is None else f"{output_path.rstrip('/')}/{LEDGER_FOLDER}"


def advise_clear(store: ReceiptStore | None, purpose: str) -> str:
    """
    Return the advice to clear a task where that takes up its jobs, and else to wait for them with the sensor.

    :param store: where the task's receipts are kept.
    :param purpose: what the clear is for, as the end of the sentence.
    """
    if store is None:
        return SENSOR_ADVICE
    return f"Clear the task{'' if store.survives_clear else KEEPING_STATE}{purpose}"


def advise_in_doubt(store: ReceiptStore | None) -> str:
    """Return what to do about a submission that may have been billed."""
    advice = advise_clear(store, " to submit it again")
    return f"Look into the account's history, then {advice[0].lower()}{advice[1:]}"


def advise_storing(store: ReceiptStore | None, output_path: str | None) -> str:
    """
    Return what to do where outputs could not be stored.

    :param store: where the task's receipts are kept.
    :param output_path: the folder of the outputs.
    """
    if store is None:
        return (
            "Store the outputs with ModelsLabJobSensor(jobs=<the XCom 'jobs' of this task>, output_path=...), since "
            "another try of this task would generate, and pay, again"
        )
    same = " with the same output_path" if _is_lost_with(output_path, store) else ""
    return advise_clear(store, f"{same} soon, or let it be retried, which stores what is missing")


def advise_on_data(store: ReceiptStore | None) -> str:
    """Return what to do about outputs that must be stored, where no ``output_path`` was given."""
    if store is None:
        return DATA_ADVICE
    keeping = "" if store.survives_clear else KEEPING_STATE
    return (
        f"Pass an output_path, to this task before you clear it{keeping}, or to a ModelsLabJobSensor on its XCom 'jobs'"
    )


def _is_lost_with(output_path: str | None, store: ReceiptStore) -> bool:
    """Whether a task with another ``output_path`` would know nothing of its jobs."""
    if isinstance(store, BothStores):
        return STATE_IS_EMPTIED_BY_A_CLEAR
    return isinstance(store, FolderStore) and store.path == _beside(output_path)


def log_protection(store: ReceiptStore | None, ledger_path: str | None, log: Any) -> None:
    """Say once per try where the ledger is, and what it does not protect from."""
    if ledger_path is not None:
        log.info("Paid jobs are remembered in %s", ledger_path)
    elif store is None:
        log.warning(
            "Pass ledger_path, or set it in the connection, to protect from paying twice: nothing remembers the jobs "
            "of this task, so that a retry, or a clear, submits and pays for them again"
        )
    elif not store.survives_clear:
        log.info(
            "Paid jobs are remembered in Airflow's task state store, which this Airflow empties when the task is "
            "cleared without its state being kept: with a ledger_path, a clear does not pay again either"
        )


def log_former_jobs(ledger: Ledger, log: Any, batch: bool) -> None:
    """
    Name the jobs that were paid for what is now another payload, endpoint or account.

    :param ledger: the task's ledger.
    :param log: the task's log.
    :param batch: whether the user has given names to the items.
    """
    for name, receipt in ledger.former.items():
        changes = [
            ("host or key of the connection", receipt.account != ledger.payer.account),
            ("endpoint", receipt.endpoint != ledger.payer.endpoint),
        ]
        changed = " and ".join(what for what, is_other in changes if is_other) or "payload"
        log.warning(
            "Not re-attaching to job %s of an earlier try: since then, the %s%s has changed. It is submitted again",
            one_line(str(receipt.job)),
            changed,
            f" of item {short_name(name)}" if batch else "",
        )


def log_missing_seeds(items: Sequence[Item], log: Any) -> None:
    """Say where a job is taken up though ModelsLab would have generated something else each time."""
    without = sum(not has_seed(item.payload) for item in items)
    if without:
        log.info(
            "Without a fixed seed, the same payload generates something new each time: reuse='always' returns what is "
            "stored all the same, for %d of %s",
            without,
            count(len(items), "item"),
        )
