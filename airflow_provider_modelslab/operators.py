"""The operator: submits generation jobs, waits for them as the sensor does, and returns their output URLs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    SET_DURING_EXECUTION,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    conf,
)

from airflow_provider_modelslab._ledger.ledger import Ledger, OnClear, Reuse
from airflow_provider_modelslab._ledger.spending import Limits, SpendingGuard
from airflow_provider_modelslab._polling.queue_slots import QueueSlots
from airflow_provider_modelslab._polling.waits import JobWaits, enough
from airflow_provider_modelslab._protocol.arguments import (
    IfExists,
    parse_amount,
    parse_count,
    parse_generation_endpoint,
    parse_max_in_flight,
    parse_optional,
    parse_output_path,
    parse_seconds,
    without_path_types,
)
from airflow_provider_modelslab._protocol.formatting import count
from airflow_provider_modelslab._protocol.prices import parse_prices
from airflow_provider_modelslab._protocol.submissions import refuse_key
from airflow_provider_modelslab._protocol.templates import refuse_task
from airflow_provider_modelslab._tasks.arguments import (
    ConstructorErrors,
    is_mapped,
    judge_remembering,
    judge_storing,
    refuse_storing,
    rendered_for,
)
from airflow_provider_modelslab._tasks.batches import Item, items_of, manifest, refuse_keys
from airflow_provider_modelslab._tasks.deferral import deadline_of, defer, limit_of
from airflow_provider_modelslab._tasks.events import job_records, read_event
from airflow_provider_modelslab._tasks.inputs import read_input
from airflow_provider_modelslab._tasks.kills import cancel_or_log, judge_cancelling
from airflow_provider_modelslab._tasks.ledgers import (
    SENSOR_ADVICE,
    advise_clear,
    advise_on_data,
    advise_storing,
    guard_of,
    ledger_path_of,
    log_former_jobs,
    log_missing_seeds,
    log_protection,
    payer_of,
    store_of,
)
from airflow_provider_modelslab._tasks.progress import Progress
from airflow_provider_modelslab._tasks.reattaching import reattach
from airflow_provider_modelslab._tasks.results import (
    name_of_mapped,
    paths_of,
    push_jobs,
    push_results,
    store,
    timeout_error,
    with_paths_for_data,
    with_whole_outputs,
    xcom_records,
)
from airflow_provider_modelslab._tasks.submitting import Submitter, paid_for
from airflow_provider_modelslab._telemetry import lineage
from airflow_provider_modelslab.endpoints import endpoint_of_submission
from airflow_provider_modelslab.exceptions import (
    ModelsLabSaveError,
    ModelsLabTransientError,
    argument_errors,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job, Output
from airflow_provider_modelslab.links import OUTPUT_LINKS
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

__all__ = ["ModelsLabGenerateOperator"]

DEFAULT_TIMEOUT = 86_400.0
"""Seconds that an operator waits by default."""

MANIFEST_KEY = "manifest"
"""The XCom key of a batch's manifest."""

ITEMS_KEY = "items"
"""The XCom key of what a deferred task was executed with, since Airflow renders templates again when it resumes."""

_REMEMBERED = (
    "endpoint",
    "modelslab_conn_id",
    "wait_for_completion",
    "max_in_flight",
    "fail_on_partial_error",
    "output_path",
    "if_exists",
    "return_files",
    "min_balance",
    "max_jobs_per_day",
    "max_spending_per_day",
    "prices",
    "poke_interval",
    "cancel_on_kill",
    "durable",
    "ledger_path",
)
"""
The arguments that count until the try ends as the first execution was given them: Airflow renders templates, and reads
the DAG, again when a deferred task resumes.
"""


class ModelsLabGenerateOperator(BaseOperator):
    """
    Submits generation jobs to ModelsLab and waits for their outputs.

    XComs as of :class:`~airflow_provider_modelslab.sensors.ModelsLabJobSensor`: ``return_value`` is the flat list of
    output URLs, ``jobs`` holds one record per job. A batch (``payloads``) has a ``manifest`` besides: ``total``,
    ``succeeded``, ``failed`` and ``items``, in which each item has its ``name``, ``payload``, ``status``,
    ``outputs``, ``message`` and ``job_id``, and ``files`` where ``output_path`` is given.

    Nothing is paid for twice: a ledger remembers each job from before its submission on, and a retry, or a cleared
    task, re-attaches to that job, if the connection still has the same host and key. A job that ModelsLab has forgotten
    is generated again, unless its outputs are stored. Where the queue of the account is full, the submission is
    repeated later, from a worker that is not held meanwhile.

    A try uses what was rendered when it began: a deferred task keeps it in the XCom ``items``, since Airflow renders
    templates again when the task resumes. A payload longer than 32 kB is not stored: while one is not submitted, the
    task stays on its worker.

    An ``ObjectStoragePath`` in a payload is a file: it is read when the task starts, and uploaded right before the
    submission, each content once. ModelsLab then gets its URL. Two files are the same input when their contents are.

    A payload that is ``None``, because its upstream was skipped, is left out; where all are, the task is skipped.

    :param endpoint: the path of the generation endpoint, for example ``"v6/video/text2video"``. Templated.
    :param payload: the parameters of the generation, as the endpoint's page lists them, without ``key``. Templated.
    :param payloads: instead of ``payload``, a batch: a list of parameters, or a dict of them by name. Templated.
    :param modelslab_conn_id: the connection. Templated.
    :param deferrable: wait in the triggerer.
    :param wait_for_completion: when false, return as soon as everything is submitted: the job's record (of a batch,
        a list of records), which the sensor takes. Not together with ``output_path``.
    :param timeout: seconds, or a timedelta, that submission and wait may take together. ``execution_timeout`` counts,
        too.
    :param max_in_flight: how many jobs of a batch are queued at a time. ``"auto"`` fills the account's queue until
        ModelsLab refuses, and submits the next when a job finishes, also where others use the same account.
    :param fail_on_partial_error: fail the task when a job of a batch failed, after all others are finished. When
        false, the task succeeds with the URLs of those that succeeded.
    :param durable: remember what is paid for, and take it up in later tries; when false, each try submits again.
    :param ledger_path: the folder of the ledger, as ``output_path``: it is shared by all workers, and any number of
        tasks. By default the connection's field ``ledger_path``, else a folder beside the outputs, else Airflow's task
        state store (3.3 and later; 3.4 empties it when a task is cleared). Templated.
    :param on_clear: what a finished task does that is cleared: ``"reuse"`` returns the same outputs and generates
        nothing, ``"regenerate"`` generates all of them again. What failed is generated again, and what is unfinished is
        waited for, either way.
    :param reuse: who may take up a finished or unfinished job: ``"task"``, this task in this run; ``"always"``, every
        task with the same ledger, account, endpoint and payload. That needs stored outputs, and their paths are those
        of the first time. Without a fixed ``seed`` in the payload, a log line says so.
    :param retry_failed: how often an item is generated once more after ModelsLab has said that its generation failed
        ("Failed, Try Again"), over all tries of the task: the ledger counts. Each is another job, and may be billed. A
        submission that may have been accepted is never repeated. Where a limit on spending, or on the time, leaves
        nothing for it, the item stays failed.
    :param output_path: a folder to store the outputs in, for example ``"s3://aws_default@bucket/{{ run_id }}/"``: a URL
        that Airflow's ``ObjectStoragePath`` takes, an absolute path, or a path object. The XCom ``files`` then has the
        paths of the files, in the order of the URLs. That it can be written to is tried before the first submission.
        Templated.
    :param if_exists: what to do about stored files of the same jobs: ``"skip"`` reuses, ``"overwrite"`` replaces
        them, ``"error"`` fails.
    :param return_files: return the paths of the stored files instead of the URLs, for example to ``.expand()`` over.
    :param min_balance: submit nothing when the account's balance is below this, in the wallet's currency. It is asked
        for before the first submission of each try.
    :param max_jobs_per_day: how many jobs this task may submit on a UTC day, in all its runs: one more is not
        submitted, and fails the task without a retry. Counted in the ledger, which must be at a ``ledger_path``. The
        connection may limit all jobs of its account in the same way.
    :param max_spending_per_day: the same for an amount, estimated by ``prices``.
    :param prices: what one job costs, by endpoint or the beginning of one: ``{"v6/images": 0.005}``. Counts before the
        connection's field ``prices``.
    :param poke_interval: a fixed number of seconds, or a timedelta, between two polls of a job; by default the moments
        suit each job.
    :param cancel_on_kill: cancel the training, or the run of a workflow, when the task is killed, marked or cleared
        while it goes on; of a deferred task from Airflow 3.3 on. When false, the log says how to stop it. Refused of
        what ModelsLab cannot cancel.
    """

    template_fields: Sequence[str] = (
        "endpoint",
        "payload",
        "payloads",
        "modelslab_conn_id",
        "output_path",
        "ledger_path",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"payload": "json", "payloads": "json"}
    operator_extra_links = OUTPUT_LINKS
    ui_color = "#e7e3ff"

    def __init__(
        self,
        *,
        endpoint: str,
        payload: Mapping[str, Any] | XComArg | str | None = None,
        payloads: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]] | XComArg | str | None = None,
        modelslab_conn_id: str = ModelsLabHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        wait_for_completion: bool = True,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        max_in_flight: int | Literal["auto"] = "auto",
        fail_on_partial_error: bool = True,
        durable: bool = True,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        on_clear: OnClear = "reuse",
        reuse: Reuse = "task",
        retry_failed: int = 0,
        output_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        if_exists: IfExists = "skip",
        return_files: bool = False,
        min_balance: float | None = None,
        max_jobs_per_day: int | None = None,
        max_spending_per_day: float | None = None,
        prices: Mapping[str, float] | None = None,
        poke_interval: timedelta | float | None = None,
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.payload = payload
        self.payloads = payloads
        self.modelslab_conn_id = modelslab_conn_id
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.fail_on_partial_error = fail_on_partial_error
        self.durable = durable
        self.output_path = without_path_types(output_path)
        self.ledger_path = without_path_types(ledger_path)
        self.on_clear = on_clear
        self.reuse = reuse
        self.if_exists = if_exists
        self.return_files = return_files
        self.cancel_on_kill = cancel_on_kill
        self._running: tuple[ModelsLabHook, Progress] | None = None
        with ConstructorErrors(self.task_id):
            self.timeout = parse_seconds(timeout, "timeout")
            self.max_in_flight = max_in_flight
            parse_max_in_flight(max_in_flight)
            self.min_balance = parse_optional(parse_amount, min_balance, "min_balance")
            self.max_jobs_per_day = parse_optional(parse_count, max_jobs_per_day, "max_jobs_per_day")
            self.max_spending_per_day = parse_optional(parse_amount, max_spending_per_day, "max_spending_per_day")
            self.prices = parse_prices(prices, "prices")
            self.poke_interval = parse_optional(parse_seconds, poke_interval, "poke_interval")
            self.retry_failed = parse_count(retry_failed, "retry_failed", least=0)
            self._judge()

    def execute(self, context: Context) -> Any:
        """Submit, wait for the jobs in the triggerer or here, and return the output URLs."""
        started = ModelsLabHook.pacing.clock.wall()
        with argument_errors():
            self.output_path = parse_optional(parse_output_path, self.output_path, "output_path")
            self.ledger_path = parse_optional(parse_output_path, self.ledger_path, "ledger_path")
            items = self._items()
        hook = ModelsLabHook(self.modelslab_conn_id)
        progress = Progress(
            items,
            self._recall(context, hook, items),
            deadline_of(context, self, self.timeout, started),
            batch=self.payloads is not None,
            slots=QueueSlots(1 if self.payloads is None else parse_max_in_flight(self.max_in_flight)),
            retry_failed=self.retry_failed,
        )
        self._running = hook, progress
        self._reattach(hook, progress)
        if self.output_path is not None and progress.left():
            _probe(self.output_path)
        return self._go_on(context, hook, progress)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Take the trigger's event: submit what is left, or return the output URLs, or fail with what went wrong."""
        taken = read_event(event)
        for name, value in taken.state["arguments"].items():
            setattr(self, name, value)
        ti = context["ti"]
        records = ti.xcom_pull(task_ids=ti.task_id, key=ITEMS_KEY, map_indexes=ti.map_index)
        store = store_of(context, self.ledger_path, self.output_path) if self.durable else None
        if records is None:
            advice = advise_clear(store, " to re-attach to its jobs")
            raise AirflowFailException(f"{advice}: the XCom {ITEMS_KEY!r} of this task is gone")
        hook = ModelsLabHook(self.modelslab_conn_id)
        hook.keep_to(taken.state.get("fingerprint"))
        payer = payer_of(context, self.endpoint, hook.fingerprint)
        progress = Progress.from_state(taken.state, records, taken.jobs, payer, store, hook.pacing.clock.wall)
        if taken.status == "error":
            push_jobs(context, progress.jobs())
            error = taken.error(self.modelslab_conn_id)
            if progress.ledger.survives_retry or isinstance(error, AirflowFailException):
                raise error
            raise AirflowFailException(f"{SENSOR_ADVICE}: {error}")
        self._running = hook, progress
        return self._go_on(context, hook, progress)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the ids of the jobs as external queries: what Airflow's OpenLineage provider asks for."""
        return lineage.openlineage_facets(getattr(self, "pushed_job_ids", []))

    def on_kill(self) -> None:
        """
        Submit nothing more: Airflow 3 ends the process only some seconds later.

        Cancel trainings and runs where ``cancel_on_kill`` asks for that, or say in the log that they go on.
        """
        if self._running is not None:
            hook, progress = self._running
            progress.killed = True
            cancel = hook.cancel if self.cancel_on_kill else None
            cancel_or_log(progress.jobs(), self.modelslab_conn_id, self.log, cancel)

    # --- arguments --------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Refuse at parse time what is wrong with every connection, upstream and template."""
        is_final = rendered_for(self)
        # In a mapped task, None comes from a skipped upstream.
        neither = self.payload is None and self.payloads is None and not is_mapped(self)
        if neither or (self.payload is not None and self.payloads is not None):
            raise ValueError("pass either payload or payloads")
        if is_final(self.endpoint):
            self._judge_endpoint()
        judge_storing(self.output_path, self.if_exists, self.return_files, is_final)
        if self.output_path is not None and not self.wait_for_completion:
            raise ValueError("output_path needs wait_for_completion=True: outputs are stored when jobs are finished")
        judge_remembering(self.durable, self.ledger_path, self.on_clear, self.reuse, self.output_path, is_final)
        if not self.durable and (self.max_jobs_per_day is not None or self.max_spending_per_day is not None):
            raise ValueError("max_jobs_per_day and max_spending_per_day count in the ledger: durable=False keeps none")
        refuse_task(self.payload, "payload")
        refuse_task(self.payloads, "payloads")
        refuse_key(self.payload)
        refuse_keys(self.payloads)
        is_known = not isinstance(self.payload, type(SET_DURING_EXECUTION))
        if is_known and is_final(self.payload) and is_final(self.payloads):
            items_of(self.payload, self.payloads)

    def _judge_endpoint(self) -> str:
        """Return the path of the endpoint, once it is known; refuse what has no meaning there."""
        path = parse_generation_endpoint(self.endpoint)
        judge_cancelling(self.cancel_on_kill, path)
        if self.output_path is not None:
            refuse_storing(endpoint_of_submission(path))
        return path

    def _items(self) -> list[Item]:
        """Return what is to be generated, now that templates are rendered and upstreams have run."""
        self.endpoint = self._judge_endpoint()
        given = items_of(self.payload, self.payloads, read_input)
        items = [item for item in given if item is not None]
        if given and not items:
            raise AirflowSkipException("Nothing to generate: the upstream tasks of all payloads were skipped")
        if len(items) < len(given):
            left_out = len(given) - len(items)
            self.log.info("Left out %d of %s: skipped upstream tasks", left_out, count(len(given), "payload"))
        if not items:
            self.log.info("Nothing to generate: payloads is empty")
        return items

    # --- submitting -------------------------------------------------------------------------------------

    def _recall(self, context: Context, hook: ModelsLabHook, items: Sequence[Item]) -> Ledger:
        """Return what is remembered of these items."""
        store = None
        if self.durable:
            self.ledger_path = ledger_path_of(self.ledger_path, hook.options.ledger_path, self.output_path)
            store = store_of(context, self.ledger_path, self.output_path)
            log_protection(store, self.ledger_path, self.log)
        if self.reuse == "always":
            log_missing_seeds(items, self.log)
        return Ledger.recall(
            items,
            payer_of(context, self.endpoint, hook.fingerprint),
            store,
            hook.pacing.clock.wall,
            reuse=self.reuse,
            on_clear=self.on_clear,
        )

    def _reattach(self, hook: ModelsLabHook, progress: Progress) -> None:
        """Take up the jobs that are paid for, and mark those as failed whose submission was ambiguous."""
        log_former_jobs(progress.ledger, self.log, progress.batch)
        reattach(hook.poller, progress, self.log, self.output_path if self.if_exists == "skip" else None)
        self._submitter(hook, progress).fail_orphans(hook.client.assets)

    def _submitter(self, hook: ModelsLabHook, progress: Progress) -> Submitter:
        return Submitter(hook, progress, self.min_balance, self.log)

    def _submit(self, context: Context, hook: ModelsLabHook, progress: Progress) -> float | None:
        """Submit what fits; return when to try again, on the monotonic clock, where ModelsLab refuses for now."""
        submitter = self._submitter(hook, progress)
        for position in progress.failed():
            submitter.submit_once_more(position)
        try:
            return submitter.fill_queue_slots()
        except AirflowException:
            push_jobs(context, progress.jobs())
            raise

    def _guard(self, hook: ModelsLabHook, ledger: Ledger) -> SpendingGuard | None:
        """Return what keeps the limits of spending, those of the task and those of the connection."""
        options, connection = hook.options, f"connection {self.modelslab_conn_id!r}"
        limits = [
            Limits(f"task {self.task_id!r}", False, self.max_jobs_per_day, self.max_spending_per_day),
            Limits(connection, True, options.max_jobs_per_day, options.max_spending_per_day),
        ]
        prices = {**options.prices, **self.prices}
        return guard_of(ledger, limits, prices, self.ledger_path, self.output_path)

    # --- waiting ----------------------------------------------------------------------------------------

    def _go_on(self, context: Context, hook: ModelsLabHook, progress: Progress) -> Any:
        """Submit and wait in turns until there is something to return."""
        progress.ledger.guard = self._guard(hook, progress.ledger)
        pacing = hook.pacing
        end = pacing.monotonic_of(progress.deadline)
        while True:
            is_over = pacing.clock.monotonic() >= end
            if is_over:
                progress.leave_failed()
            submit_again = None if is_over else self._submit(context, hook, progress)
            with paid_for(self.log):
                progress.ledger.catch_up()
            unfinished = progress.unfinished()
            if not progress.left():
                if not self.wait_for_completion:
                    return self._return_records(context, progress)
                if not unfinished:
                    return self._finish(context, hook, progress)
            if is_over:
                self._time_out(context, progress)
            # A slot is free when one job fewer is in progress; with none in progress, only time passes.
            max_pending = progress.slots.next_turn(len(unfinished)) if progress.left() else 0
            until = end if submit_again is None else min(end, submit_again)
            push_jobs(context, progress.jobs())
            if progress.batch and not progress.left():
                context["ti"].xcom_push(key=MANIFEST_KEY, value=manifest(progress.items, progress.jobs()))
            may_defer = self.deferrable and progress.may_travel()
            self._wait_here(context, hook, progress, max_pending, until, briefly=may_defer)
            is_due = pacing.clock.monotonic() >= until or enough(len(progress.unfinished()), max_pending)
            if may_defer and not is_due:
                progress.deadline = pacing.wall_of(end)  # The wall clock may have been set.
                self._defer(context, hook, progress, max_pending, pacing.wall_of(until))

    def _defer(
        self, context: Context, hook: ModelsLabHook, progress: Progress, max_pending: int | None, deadline: float
    ) -> NoReturn:
        jobs = list(progress.ledger.jobs.values())
        if not progress.resumed:
            context["ti"].xcom_push(key=ITEMS_KEY, value=progress.item_records())
        if jobs:
            self.log.info("Deferring: %s", JobWaits(jobs, hook.pacing).summary())
        fingerprint = asdict(hook.fingerprint)
        trigger = ModelsLabJobTrigger(
            modelslab_conn_id=self.modelslab_conn_id,
            jobs=job_records(jobs),
            names=progress.item_names(),
            started=hook.pacing.clock.wall(),
            deferred=hook.pacing.clock.wall(),
            deadline=deadline,
            fingerprint=fingerprint,
            poke_interval=self.poke_interval,
            max_pending=max_pending,
            state={
                "arguments": {name: getattr(self, name) for name in _REMEMBERED},
                "fingerprint": fingerprint,
                **progress.to_state(),
            },
            cancel_on_kill=self.cancel_on_kill,
        )
        defer(self, trigger, deadline - hook.pacing.clock.wall())

    def _wait_here(
        self,
        context: Context,
        hook: ModelsLabHook,
        progress: Progress,
        max_pending: int | None,
        until: float,
        briefly: bool,
    ) -> None:
        jobs, names = list(progress.ledger.jobs.values()), progress.item_names()
        waits = JobWaits(jobs, hook.pacing, self.poke_interval, names=names)
        if waits.jobs() and not briefly:
            self.log.info("Waiting for jobs: %s", waits.summary())
        wait = hook.poller.wait_briefly if briefly else hook.poller.wait
        try:
            wait(waits, until, max_pending)
        finally:
            progress.replace_jobs(waits.jobs())
            push_jobs(context, progress.jobs())

    def _time_out(self, context: Context, progress: Progress) -> NoReturn:
        push_jobs(context, progress.jobs())
        cancel_or_log(progress.jobs(), self.modelslab_conn_id, self.log)
        told = f"not submitted yet: {progress.refusal}" if progress.refusal else "not submitted yet"
        waiting = Job(id="", endpoint=endpoint_of_submission(self.endpoint), message=told)
        limit = limit_of(self, self.timeout)
        advice = f"Clear the task, with a longer {limit.argument}, to submit again"
        if progress.jobs():
            advice = advise_clear(progress.ledger.store, f", with a longer {limit.argument}, to wait again")
        raise timeout_error(
            [progress.ledger.jobs.get(position, waiting) for position in range(len(progress.items))],
            limit,
            advice,
            _names(context, progress),
        )

    # --- results ----------------------------------------------------------------------------------------

    def _finish(self, context: Context, hook: ModelsLabHook, progress: Progress) -> list[Output]:
        ledger = progress.ledger
        with paid_for(self.log):
            ledger.settle("failed")
        files = self._store(context, hook, progress)
        with paid_for(self.log):
            ledger.settle("success")
        if progress.batch:
            jobs = progress.jobs() if files is None else with_paths_for_data(progress.jobs(), files)
            context["ti"].xcom_push(key=MANIFEST_KEY, value=manifest(progress.items, jobs, files))
        return push_results(
            context,
            progress.jobs(),
            files=files,
            return_files=self.return_files,
            fail_on_partial_error=self.fail_on_partial_error,
            log=self.log,
            names=_names(context, progress),
            data_advice=advise_on_data(ledger.store),
        )

    def _store(self, context: Context, hook: ModelsLabHook, progress: Progress) -> list[str] | None:
        ledger = progress.ledger
        try:
            progress.replace_jobs(with_whole_outputs(list(ledger.jobs.values()), hook.fetch))
            if self.output_path is None:
                return None
            positions = sorted(ledger.jobs)
            files = store(
                context,
                progress.jobs(),
                output_path=self.output_path,
                if_exists=self.if_exists,
                options=hook.options,
                log=self.log,
                advice=advise_storing(ledger.store, self.output_path),
                stored={index: ledger.files[p] for index, p in enumerate(positions) if p in ledger.files},
            )
        except (ModelsLabSaveError, ModelsLabTransientError) as error:
            gone = getattr(error, "without_files", ())
            forgotten = [position for position in ledger.reattached if ledger.jobs[position] in gone]
            for position in forgotten:
                ledger.jobs[position] = ledger.jobs[position].failed("The outputs are gone")
            with paid_for(self.log):
                ledger.settle("failed", forgotten)
            if forgotten:
                advice = advise_clear(ledger.store, f" to generate {count(len(forgotten), 'job')} again")
                raise AirflowFailException(
                    f"{advice}: an earlier try has paid, and the outputs are gone. {error}"
                ) from error
            if ledger.survives_retry:
                raise
            raise AirflowFailException(str(error)) from error
        ledger.files.update(zip(positions, map(tuple, files), strict=True))
        return paths_of(files)

    def _return_records(self, context: Context, progress: Progress) -> Any:
        jobs = progress.jobs()
        push_jobs(context, jobs)
        with paid_for(self.log):
            progress.ledger.settle("failed")
            progress.ledger.hand_over()
        records = xcom_records(jobs)
        return records if progress.batch else records[0]


def _names(context: Context, progress: Progress) -> list[str]:
    """Return what the user calls the jobs: items of a batch, or the mapped task as ``map_index_template`` has it."""
    return progress.names() if progress.batch else name_of_mapped(context)


def _probe(output_path: str) -> None:
    """Find out, before anything is paid for, whether outputs can be stored."""
    from airflow_provider_modelslab._outputs.stores import Store  # parsing a DAG needs no fsspec

    Store(output_path).probe()
