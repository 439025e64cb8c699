"""The operator: submits generation jobs, waits for them as the sensor does, and hands on their output URLs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator, conf

from airflow_provider_modelslab._ledger.ledger import Ledger
from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._protocol.submissions import Submission, refuse_key
from airflow_provider_modelslab._protocol.templates import is_rendered
from airflow_provider_modelslab._tasks.batches import Item, items_of, manifest
from airflow_provider_modelslab._tasks.deferral import deadline_of, defer
from airflow_provider_modelslab._tasks.events import job_record, read_event
from airflow_provider_modelslab._tasks.results import push_jobs, push_results, store, timeout_error
from airflow_provider_modelslab.endpoints import endpoint_of_submission, parse_submission_path
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
    ModelsLabSaveError,
    ModelsLabTransientError,
    argument_errors,
)
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.links import OUTPUT_LINKS
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_modelslab._outputs.saving import IfExists

__all__ = ["ModelsLabGenerateOperator"]

DEFAULT_TIMEOUT = 86_400.0
"""Seconds that an operator waits when it is not told otherwise."""

DEFAULT_MAX_IN_FLIGHT = 5
"""Places in the queue of the smallest account."""

MANIFEST_KEY = "manifest"
"""The XCom key of a batch's manifest."""

FIND_AGAIN = "clear the task, with a longer timeout or execution_timeout, to go on with them"

WAIT_WITH_SENSOR = (
    "wait for them with ModelsLabJobSensor(jobs=<the XCom 'jobs' of this task>): clearing the task would submit, and "
    "pay for, new ones"
)

_RANDOM = Random()


class ModelsLabGenerateOperator(BaseOperator):
    """
    Submits generation jobs to ModelsLab and waits for their outputs.

    XComs as of :class:`~airflow_provider_modelslab.sensors.ModelsLabJobSensor`: ``return_value`` is the flat list of
    output URLs, ``jobs`` holds one record per job. A batch (``payloads``) has a ``manifest`` besides: ``total``,
    ``succeeded``, ``failed`` and ``items``, in which each item has its ``name``, ``payload``, ``status``,
    ``outputs``, ``message`` and ``job_id``, and ``files`` where ``output_path`` is given.

    Nothing is paid for twice: a job's id is stored in Airflow's task state store before the wait starts (Airflow 3.3
    and later), and a retry, or a cleared task, goes on with that job. Where the queue of the account is full, the
    submission is repeated later, from a worker that is not held meanwhile.

    :param endpoint: the path of the generation endpoint, for example ``"v6/video/text2video"``. Templated.
    :param payload: the parameters of the generation, as the endpoint's page lists them, without ``key``. Templated.
    :param payloads: instead of ``payload``, a batch: a list of parameters, or a dict of them by name. Templated.
    :param modelslab_conn_id: the connection. Templated.
    :param deferrable: wait in the triggerer.
    :param wait_for_completion: when false, return as soon as everything is submitted: the job's record (of a batch,
        a list of records), which the sensor takes.
    :param timeout: seconds that submission and wait may take together. ``execution_timeout`` counts, too.
    :param max_in_flight: how many jobs of a batch are queued at a time.
    :param fail_on_partial_error: fail the task when a job of a batch failed, after all others are done. When false,
        the task succeeds with the URLs of those that succeeded.
    :param durable: find the jobs of earlier tries again instead of submitting anew. Needs Airflow 3.3.
    :param output_path: a folder to store the outputs in, for example ``"s3://aws_default@bucket/{{ ds }}/"``: anything
        that Airflow's ``ObjectStoragePath`` takes. The XCom ``files`` then has the paths of the files, in the order of
        the URLs. Templated.
    :param if_exists: what to do about stored files of the same jobs: ``"skip"`` reuses, ``"overwrite"`` replaces
        them, ``"error"`` fails.
    :param min_balance: submit nothing when the account's balance is below this.
    :param poke_interval: a fixed number of seconds between two polls at a job; by default the moments suit each job.
    """

    template_fields: Sequence[str] = ("endpoint", "payload", "payloads", "modelslab_conn_id", "output_path")
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
        timeout: float = DEFAULT_TIMEOUT,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        fail_on_partial_error: bool = True,
        durable: bool = True,
        output_path: str | None = None,
        if_exists: IfExists = "skip",
        min_balance: float | None = None,
        poke_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.payload = payload
        self.payloads = payloads
        self.modelslab_conn_id = modelslab_conn_id
        self.deferrable = deferrable
        self.wait_for_completion = wait_for_completion
        self.timeout = timeout
        self.max_in_flight = max_in_flight
        self.fail_on_partial_error = fail_on_partial_error
        self.durable = durable
        self.output_path = output_path
        self.if_exists = if_exists
        self.min_balance = min_balance
        self.poke_interval = poke_interval
        _refuse_bad_arguments(self)

    def execute(self, context: Context) -> Any:
        """Submit, wait for the jobs in the triggerer or here, and return the output URLs."""
        started = time.time()
        items = self._items()
        if not items:
            self.log.info("Nothing to generate: payloads is empty")
        run = _Run(
            hook=ModelsLabHook(self.modelslab_conn_id),
            items=items,
            submissions=Ledger(self.endpoint, items, self._state_store(context)),
            deadline=deadline_of(context, self, self.timeout, started),
        )
        self._reattach(run)
        return self._go_on(context, run)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Take the trigger's event: submit what is left, or return the output URLs, or fail with what went wrong."""
        taken = read_event(event)
        items = self._items()
        submissions = Ledger(self.endpoint, items, self._state_store(context))
        submissions.jobs = dict(zip(taken.state["positions"], taken.jobs, strict=True))
        if taken.status == "error":
            self._push(context, submissions)
            raise taken.error(self.modelslab_conn_id)
        run = _Run(
            hook=ModelsLabHook(self.modelslab_conn_id),
            items=items,
            submissions=submissions,
            deadline=taken.state["deadline"],
            refusals=taken.state["refusals"],
        )
        return self._go_on(context, run)

    # --- submitting -------------------------------------------------------------------------------------

    def _items(self) -> list[Item]:
        """Return what is to be generated, now that templates are rendered and upstreams have run."""
        with argument_errors():
            items = items_of(self.payload, self.payloads)
            for item in items:
                Submission.parse(self.endpoint, item.payload)
        return items

    def _state_store(self, context: Context) -> Any:
        return context.get("task_state_store") if self.durable else None

    def _reattach(self, run: _Run) -> None:
        """Look at the jobs that earlier tries have submitted, and mark those as failed that nobody can account for."""
        found = run.submissions.jobs
        if found:
            self.log.info("Going on with jobs of an earlier try: %s", ", ".join(map(str, found.values())))
            waits = run.hook.waits(list(found.values()))
            run.hook.poll_waits(waits.unfinished())
            # One that ModelsLab does not know any more is generated anew.
            found |= dict(zip(found, waits.jobs(), strict=True))
            for position in [position for position, job in found.items() if job.status == "failed"]:
                self.log.warning("Job %s of an earlier try failed (%s)", found[position], found[position].message)
                del found[position]
        for position in run.submissions.orphans:
            self._fail(
                run,
                position,
                ModelsLabAmbiguousSubmission(
                    "This may have been billed: an earlier try ended in the midst of a submission. ModelsLab may have "
                    "accepted the job; look into the account's history, and clear the task to submit it again"
                ),
            )

    def _submit_what_fits(self, context: Context, run: _Run) -> float | None:
        """Fill the places in the queue; return when to try again where ModelsLab refuses for now."""
        for position in run.left():
            if len(run.unfinished()) >= self.max_in_flight:
                break
            try:
                self._submit(run, position)
            except ModelsLabTransientError as error:
                run.submissions.withdraw(position)
                run.refusals += 1
                pause = max(error.retry_after or 0.0, schedule.backoff_delay(run.refusals))
                self.log.info("Submitting again in some %.0f s: %s", pause, error)
                return time.time() + schedule.spread_pause(pause, _RANDOM)
            except (ModelsLabRequestError, ModelsLabJobFailed, ModelsLabAmbiguousSubmission) as error:
                self._fail(run, position, error)
            except AirflowException:
                run.submissions.withdraw(position)
                self._push(context, run.submissions)
                raise
            else:
                run.refusals = 0
        return None

    def _submit(self, run: _Run, position: int) -> None:
        self._check_balance(run)
        run.submissions.intend(position)
        job = run.hook.submit(self.endpoint, run.items[position].payload, queue_timeout=0)
        try:
            run.submissions.accept(position, job)
        except Exception as error:
            # It has been paid for: not remembering it is no reason to lose it.
            self.log.warning("Job %s cannot be remembered for the next try (%s)", job, type(error).__name__)

    def _check_balance(self, run: _Run) -> None:
        if self.min_balance is None or run.submissions.jobs:
            return
        balance = run.hook.balance()
        if balance < self.min_balance:
            raise ModelsLabCreditsError(
                f"The balance of connection {self.modelslab_conn_id!r} is {balance:g}, below min_balance "
                f"({self.min_balance:g}): nothing was submitted. Top it up, then clear the task"
            )

    def _fail(self, run: _Run, position: int, error: AirflowException) -> None:
        """Let a submission's failure be that of its item; alone, it is that of the task."""
        if self.payloads is None:
            run.submissions.settle()
            raise error
        job = Job(id="", endpoint=endpoint_of_submission(self.endpoint), status="failed", message=str(error))
        self.log.warning("Item %s: %s", run.items[position].name, error)
        run.submissions.jobs[position] = job
        if not isinstance(error, ModelsLabAmbiguousSubmission):
            run.submissions.withdraw(position)

    # --- waiting ----------------------------------------------------------------------------------------

    def _go_on(self, context: Context, run: _Run) -> Any:
        """Submit and wait in turns until there is something to return."""
        while True:
            submit_again = None if run.is_over() else self._submit_what_fits(context, run)
            if not run.left():
                if not self.wait_for_completion:
                    return self._return_records(context, run)
                if not run.unfinished():
                    return self._finish(context, run)
            if run.is_over():
                self._time_out(context, run)
            max_pending = len(run.unfinished()) - 1 if run.left() else 0
            deadline = min(run.deadline, submit_again or run.deadline)
            self._push(context, run.submissions)
            if self.deferrable:
                self._defer(run, max_pending, deadline)
            self._wait_here(context, run, max_pending, deadline)

    def _defer(self, run: _Run, max_pending: int, deadline: float) -> None:
        jobs, now = list(run.submissions.jobs.values()), time.time()
        self.log.info("Deferring: %s", run.hook.waits(jobs).summary())
        defer(
            self,
            ModelsLabJobTrigger(
                modelslab_conn_id=self.modelslab_conn_id,
                jobs=list(map(job_record, jobs)),
                started=now,
                deadline=deadline,
                poke_interval=self.poke_interval,
                fingerprint=run.hook.fingerprint.to_dict(),
                max_pending=max_pending,
                state={
                    "positions": list(run.submissions.jobs),
                    "deadline": run.deadline,
                    "refusals": run.refusals,
                },
            ),
            deadline,
        )

    def _wait_here(self, context: Context, run: _Run, max_pending: int, deadline: float) -> None:
        jobs = run.submissions.jobs
        waits = run.hook.waits(list(jobs.values()), self.poke_interval)
        self.log.info("Waiting for jobs: %s", waits.summary())
        try:
            run.hook.wait_for(waits, deadline, max_pending)
        finally:
            jobs |= dict(zip(jobs, waits.jobs(), strict=True))
            self._push(context, run.submissions)

    def _time_out(self, context: Context, run: _Run) -> NoReturn:
        self._push(context, run.submissions)
        waiting = Job(id="", endpoint=endpoint_of_submission(self.endpoint), message="not submitted yet")
        advice = FIND_AGAIN if run.submissions.durable else WAIT_WITH_SENSOR
        raise timeout_error([*run.jobs(), *(waiting for _ in run.left())], advice)

    # --- results ----------------------------------------------------------------------------------------

    def _finish(self, context: Context, run: _Run) -> list[str]:
        run.submissions.settle()
        jobs = run.jobs()
        files = self._store(context, jobs, run)
        if self.payloads is not None:
            context["ti"].xcom_push(key=MANIFEST_KEY, value=manifest(run.items, jobs, files))
        return push_results(context, jobs, files=files, fail_on_partial_error=self.fail_on_partial_error, log=self.log)

    def _store(self, context: Context, jobs: Sequence[Job], run: _Run) -> list[str] | None:
        try:
            return store(
                context,
                jobs,
                output_path=self.output_path,
                if_exists=self.if_exists,
                ca_bundle=run.hook.options.ca_bundle,
                log=self.log,
            )
        except ModelsLabSaveError as error:
            if run.submissions.durable:
                raise
            raise AirflowFailException(
                f"{error}. Not retried, because another try would generate, and pay, anew: store them with "
                "ModelsLabJobSensor(jobs=<the XCom 'jobs' of this task>, output_path=...)"
            ) from error

    def _return_records(self, context: Context, run: _Run) -> Any:
        jobs = run.jobs()
        push_jobs(context, jobs)
        return [job.to_dict() for job in jobs] if self.payloads is not None else jobs[0].to_dict()

    def _push(self, context: Context, submissions: Ledger) -> None:
        push_jobs(context, [submissions.jobs[position] for position in sorted(submissions.jobs)])


@dataclass(slots=True)
class _Run:
    """
    How far a task has come.

    :param hook: the connection.
    :param items: what is to be generated.
    :param submissions: what has been submitted.
    :param deadline: when to give up, in seconds since the epoch.
    :param refusals: how many times in a row ModelsLab has taken nothing.
    """

    hook: ModelsLabHook
    items: list[Item]
    submissions: Ledger
    deadline: float
    refusals: int = 0

    def left(self) -> list[int]:
        """Return the positions of what is not submitted yet."""
        return [position for position in range(len(self.items)) if position not in self.submissions.jobs]

    def unfinished(self) -> list[Job]:
        """Return the jobs in progress."""
        return [job for job in self.submissions.jobs.values() if not job.finished]

    def jobs(self) -> list[Job]:
        """Return the jobs of all items that were submitted, in their order."""
        return [self.submissions.jobs[position] for position in sorted(self.submissions.jobs)]

    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.time() >= self.deadline


def _refuse_bad_arguments(operator: ModelsLabGenerateOperator) -> None:
    """Refuse at parse time what is wrong whatever the connection, the upstreams and the templates hold."""
    for name, least in (("timeout", 0), ("max_in_flight", 1)):
        value = getattr(operator, name)
        if not (isinstance(value, (int, float)) and least <= value < math.inf and value > 0):
            bound = f"of at least {least}" if least else "above 0"
            raise ModelsLabArgumentError(f"{name} must be a number {bound}, not {value!r}")
    if (operator.payload is None) == (operator.payloads is None):
        raise ModelsLabArgumentError("payload or payloads must be given, and not both")
    with argument_errors():
        if is_rendered(operator.endpoint):
            parse_submission_path(operator.endpoint)
        refuse_key(operator.payload)
