"""The sensor: waits for generation jobs and returns their output URLs to the next task."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_modelslab._polling.waits import JobWaits
from airflow_provider_modelslab._polling.worker_poller import POLLS_AT_A_TIME, count_ends
from airflow_provider_modelslab._protocol.arguments import (
    IfExists,
    flatten_jobs,
    parse_family,
    parse_jobs,
    parse_optional,
    parse_output_path,
    parse_seconds,
    without_path_types,
)
from airflow_provider_modelslab._protocol.formatting import count
from airflow_provider_modelslab._protocol.templates import refuse_task
from airflow_provider_modelslab._tasks.arguments import (
    ConstructorErrors,
    is_mapped,
    judge_storing,
    refuse_storing,
    rendered_for,
)
from airflow_provider_modelslab._tasks.deferral import deadline_of, defer, limit_of
from airflow_provider_modelslab._tasks.events import job_records, read_event
from airflow_provider_modelslab._tasks.kills import cancel_or_log
from airflow_provider_modelslab._tasks.results import (
    name_of_mapped,
    paths_of,
    push_jobs,
    push_results,
    store,
    timeout_error,
    with_whole_outputs,
)
from airflow_provider_modelslab._telemetry import lineage
from airflow_provider_modelslab.endpoints import ForeignHostError
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, argument_errors
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job, Output
from airflow_provider_modelslab.links import OUTPUT_LINKS
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

__all__ = ["ModelsLabJobSensor"]

STATE_KEY = "modelslab_wait"
"""The key in the task state store of what one poke of the mode ``reschedule`` leaves for the next one."""

_REMEMBERED = ("modelslab_conn_id", "fail_on_partial_error", "output_path", "if_exists", "return_files")
"""
The arguments that count until the try ends as the first execution was given them: Airflow renders templates, and reads
the DAG, again when a deferred task resumes.
"""


class ModelsLabJobSensor(BaseSensorOperator):
    """
    Waits until ModelsLab has finished generation jobs.

    It polls once, and for some seconds more if a few jobs may be done by then. If jobs are still in progress then, and
    ``deferrable`` is set, it hands the wait to the triggerer: any number of jobs is one trigger, and no
    worker is held. Network trouble, server errors and rate limits never end a wait; only the jobs themselves, the
    account or the timeout do.

    XComs, the same in every mode:

    - ``return_value``: the output URLs of all jobs as one flat list, in the order of ``jobs``. An output that is data
      (base64) stands in it up to 64 kB; a longer one needs an ``output_path``, and the path of its file stands there.
    - ``files``: where ``output_path`` is given, the paths of the stored outputs in the same order.
    - ``jobs``: a list with one record per job, as
      :meth:`Job.to_dict <airflow_provider_modelslab.jobs.Job.to_dict>` returns it. It is there when the task
      fails, too, so that what was generated is not lost.

    A job that ModelsLab failed to generate fails the task without a retry, after all other jobs are finished;
    so do a refused key, missing credits, and the end of ``timeout`` or ``execution_timeout``.

    :param jobs: one job or a list: an id (integer or string), a submission reply (a dict with ``fetch_result``
        and/or ``id``), a job record, or the JSON of any of these. Templated. An upstream that produced an empty
        list leads to an empty list. ``None``, which a skipped upstream leaves, is left out; where all jobs are, the
        task is skipped.
    :param endpoint: the family to fetch under, for example ``"v6/video"`` or a
        :class:`~airflow_provider_modelslab.endpoints.FetchEndpoint`, where a job does not say it itself. Templated.
    :param modelslab_conn_id: the connection. Templated.
    :param deferrable: wait in the triggerer. ``mode`` is then without meaning; ``exponential_backoff``, ``max_wait``
        and ``silent_fail``, which would have no effect, are refused.
    :param fail_on_partial_error: fail the task when a job failed. When false, the task succeeds with the URLs
        of the jobs that succeeded, which may be none; the failures are in the XCom ``jobs``.
    :param output_path: a folder to store the outputs in, for example ``"s3://aws_default@bucket/{{ run_id }}/"``: a URL
        that Airflow's ``ObjectStoragePath`` takes, an absolute path, or a path object. The XCom ``files`` then has the
        paths of the files, in the order of the URLs. Templated.
    :param if_exists: what to do about stored files of the same jobs: ``"skip"`` reuses, ``"overwrite"`` replaces
        them, ``"error"`` fails.
    :param return_files: return the paths of the stored files instead of the URLs, for example to ``.expand()`` over.
    :param poke_interval: seconds, or a timedelta, between two polls. When it is not given, a deferred sensor chooses
        moments that suit each job; the other modes poll every 60 s.
    :param timeout: seconds, or a timedelta, that the wait may take.
    :param kwargs: ``soft_fail``, ``mode`` and all else that ``BaseSensorOperator`` takes.
    """

    template_fields: Sequence[str] = ("jobs", "endpoint", "modelslab_conn_id", "output_path")
    operator_extra_links = OUTPUT_LINKS
    ui_color = "#e7e3ff"

    def __init__(
        self,
        *,
        jobs: Any,
        endpoint: str | None = None,
        modelslab_conn_id: str = ModelsLabHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        fail_on_partial_error: bool = True,
        output_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        if_exists: IfExists = "skip",
        return_files: bool = False,
        poke_interval: timedelta | float | None = None,
        timeout: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=60.0, **kwargs)
        self.jobs = jobs
        self.endpoint = endpoint
        self.modelslab_conn_id = modelslab_conn_id
        self.deferrable = deferrable
        self.fail_on_partial_error = fail_on_partial_error
        self.output_path = without_path_types(output_path)
        self.if_exists = if_exists
        self.return_files = return_files
        self.paced_by_user = poke_interval is not None
        self._running: tuple[ModelsLabHook, JobWaits] | None = None
        with ConstructorErrors(self.task_id):
            if timeout is not None:
                self.timeout = parse_seconds(timeout, "timeout")
            if poke_interval is not None:
                self.poke_interval = parse_seconds(poke_interval, "poke_interval")
            self._judge()

    def execute(self, context: Context) -> Any:
        """Poll the jobs, wait for those in progress in the triggerer or here, and return the output URLs."""
        clock = ModelsLabHook.pacing.clock
        began, wall = clock.monotonic(), clock.wall()
        with self._failures_skipped():
            self._running = hook, waits = self._start(context)
            if not waits.jobs():
                self.log.info("No jobs to wait for: jobs is empty")
                return self._finish(context, hook, [])
        if not self.deferrable:
            return self._wait_here(context, hook, waits)
        with self._failures_skipped():
            with self._records_kept(context, waits):
                end = began + deadline_of(context, self, self.timeout, wall) - wall
                self._poll_until_one_is_unfinished(hook, waits, end)
                if not self.paced_by_user:
                    hook.poller.wait_briefly(waits, end)
            if not waits.unfinished():
                return self._finish(context, hook, waits.jobs())
            # By the wall clock as the trigger will read it: it may have been set since the task began.
            started = clock.wall() - (clock.monotonic() - began)
            deadline = deadline_of(context, self, self.timeout, started)
            if clock.wall() >= deadline:
                self._time_out(context, waits.jobs())
        push_jobs(context, waits.jobs())  # The page "Outputs" shows what is awaited.
        self.log.info("Deferring: %s", waits.summary())
        fingerprint = asdict(hook.fingerprint)
        trigger = ModelsLabJobTrigger(
            modelslab_conn_id=self.modelslab_conn_id,
            jobs=job_records(waits.jobs()),
            started=started,
            deadline=deadline,
            fingerprint=fingerprint,
            deferred=clock.wall(),
            poke_interval=self.poke_interval if self.paced_by_user else None,
            state={"arguments": {name: getattr(self, name) for name in _REMEMBERED}, "fingerprint": fingerprint},
        )
        defer(self, trigger, deadline - clock.wall())

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> list[Output]:
        """Take the trigger's event: return the output URLs, or fail with what ended the wait."""
        with self._failures_skipped():
            taken = read_event(event)
            for name, value in taken.state.get("arguments", {}).items():
                setattr(self, name, value)
            if taken.status == "finished":
                hook = ModelsLabHook(self.modelslab_conn_id)
                hook.keep_to(taken.state.get("fingerprint"))
                return self._finish(context, hook, taken.jobs)
            if taken.status == "error":
                push_jobs(context, taken.jobs)
                raise taken.error(self.modelslab_conn_id)
            self._time_out(context, taken.jobs)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll each job in progress once: how the modes ``poke`` and ``reschedule`` wait."""
        hook, waits = self._running or self._start(context)
        begun = waits.unfinished()
        unfinished = len(begun)
        for wait in begun:
            wait.is_news = self.mode != "reschedule"  # The next process polls all jobs again.
        with self._records_kept(context, waits):
            hook.poller.poll(waits, [wait for wait in begun if wait.may_poll()])
        if not waits.unfinished():
            if self.mode == "reschedule":
                count_ends(begun)
            return PokeReturnValue(is_done=True, xcom_value=self._finish(context, hook, waits.jobs()))
        if len(waits.unfinished()) < unfinished:
            self.log.info("Still waiting: %s", waits.summary())
            push_jobs(context, waits.jobs())
        if self.mode == "reschedule":
            push_jobs(context, waits.jobs())  # Airflow evaluates the links of a task whenever its process ends.
            self._keep(context, hook, waits)
        else:
            self._running = hook, waits
        return PokeReturnValue(is_done=False)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the ids of the jobs as external queries: what Airflow's OpenLineage provider asks for."""
        return lineage.openlineage_facets(getattr(self, "pushed_job_ids", []))

    def on_kill(self) -> None:
        """Say in the log that trainings and runs go on without the task."""
        if self._running is not None:
            cancel_or_log(self._running[1].jobs(), self.modelslab_conn_id, self.log)

    def _recall(self, context: Context, hook: ModelsLabHook, waits: JobWaits) -> None:
        """
        Go on where the last poke of this try has stopped.

        Without a task state store (before Airflow 3.3), replies that count only when they persist never count: such a
        wait ends with its timeout.
        """
        store: Any = context.get("task_state_store")
        if store is not None and context.get("task_reschedule_count") and (state := store.get(STATE_KEY)):
            hook.keep_to(state["fingerprint"])
            waits.recall(state["replies"])

    def _keep(self, context: Context, hook: ModelsLabHook, waits: JobWaits) -> None:
        """Remember the connection and the last replies for the next poke."""
        store: Any = context.get("task_state_store")
        state = {"fingerprint": asdict(hook.fingerprint), "replies": waits.to_records()}
        if store is not None and state != store.get(STATE_KEY):
            store.set(STATE_KEY, state)

    def _judge(self) -> None:
        """Refuse at parse time what is wrong with every connection, upstream and template."""
        is_final = rendered_for(self)
        judge_storing(self.output_path, self.if_exists, self.return_files, is_final)
        for name in ("exponential_backoff", "max_wait", "silent_fail"):
            if self.deferrable and getattr(self, name):
                raise ValueError(
                    f"{name} has no effect on a deferred wait, whose faults never end it and whose pace suits the "
                    "jobs: leave it out, or pass deferrable=False"
                )
        if self.endpoint is not None and is_final(self.endpoint):
            family = parse_family(self.endpoint)
            if self.output_path is not None:
                refuse_storing(family)
        refuse_task(self.jobs, "jobs")
        # An empty list is no mistake in a mapped task, nor is None.
        if not is_final(self.jobs) or is_mapped(self):
            return
        if self.jobs is None or (isinstance(self.jobs, Collection) and not self.jobs):
            raise ValueError("jobs is empty: pass at least one job id or submission reply")
        if None in flatten_jobs(self.jobs):
            raise ValueError("jobs holds None: pass job ids or submission replies")
        try:
            parse_jobs(self.jobs, self.endpoint if is_final(self.endpoint) else "known/later")
        except ForeignHostError:
            return  # It may be the connection's own host, which is only known when the task runs.

    def _start(self, context: Context) -> tuple[ModelsLabHook, JobWaits]:
        """Judge what was rendered, and begin to wait."""
        hook = ModelsLabHook(self.modelslab_conn_id)
        with argument_errors():
            self.output_path = parse_optional(parse_output_path, self.output_path, "output_path")
            given = flatten_jobs(self.jobs)
            jobs = parse_jobs(given, self.endpoint, hook.options.base_url, hook.options.key)
            for job in jobs if self.output_path is not None else ():
                refuse_storing(job.endpoint)
        if given and not jobs:
            raise AirflowSkipException("No jobs to wait for: the upstream tasks of all jobs were skipped")
        if len(jobs) < len(given):
            left_out = len(given) - len(jobs)
            self.log.info("Left out %d of %s: skipped upstream tasks", left_out, count(len(given), "job"))
        waits = JobWaits(jobs, hook.pacing)
        self._recall(context, hook, waits)
        return hook, waits

    def _wait_here(self, context: Context, hook: ModelsLabHook, waits: JobWaits) -> Any:
        """Wait in this worker process, or in a chain of them, as ``BaseSensorOperator`` does."""
        push_jobs(context, waits.jobs())  # The page "Outputs" shows what is awaited.
        if not context.get("task_reschedule_count"):
            self.log.info("Waiting for jobs: %s", waits.summary())
        try:
            # Without the guard around it, which takes this call for one outside a task (Airflow 2).
            return inspect.unwrap(BaseSensorOperator.execute)(self, context)
        except AirflowSensorTimeout:
            with self._failures_skipped():
                self._time_out(context, waits.jobs())
        except AirflowSkipException as skip:
            push_jobs(context, waits.jobs())
            if skip.__cause__ is not None:
                self._say_why_skipped(skip.__cause__)
            raise

    @contextmanager
    def _records_kept(self, context: Context, waits: JobWaits) -> Iterator[None]:
        """Push the records of the jobs when ModelsLab refuses the account."""
        try:
            yield
        except AirflowException:
            push_jobs(context, waits.jobs())
            raise

    def _poll_until_one_is_unfinished(self, hook: ModelsLabHook, waits: JobWaits, end: float) -> None:
        """
        Find out whether all jobs are finished; if one is not, the triggerer polls the rest, at its own pace.

        Mostly the first poll tells. Only if that job is finished are the others polled, several at a time.
        """
        unfinished, at_a_time = waits.unfinished(), 1
        while batch := unfinished[:at_a_time]:
            hook.poller.poll(waits, [wait for wait in batch if wait.may_poll()], end)
            if not all(wait.job.finished for wait in batch):
                return
            unfinished, at_a_time = unfinished[at_a_time:], POLLS_AT_A_TIME

    def _finish(self, context: Context, hook: ModelsLabHook, jobs: Sequence[Job]) -> list[Output]:
        jobs = with_whole_outputs(jobs, hook.fetch)
        files = None
        if self.output_path is not None:
            options = hook.options
            files = paths_of(store(context, jobs, self.output_path, self.if_exists, options, self.log))
        return push_results(
            context,
            jobs,
            files=files,
            return_files=self.return_files,
            fail_on_partial_error=self.fail_on_partial_error,
            log=self.log,
            names=name_of_mapped(context) if len(jobs) == 1 else (),
        )

    def _time_out(self, context: Context, jobs: Sequence[Job]) -> NoReturn:
        push_jobs(context, jobs)
        cancel_or_log(jobs, self.modelslab_conn_id, self.log)
        limit = limit_of(self, self.timeout)
        names = name_of_mapped(context) if len(jobs) == 1 else ()
        raise timeout_error(jobs, limit, f"Clear the task, with a longer {limit.argument}, to wait again", names)

    @contextmanager
    def _failures_skipped(self) -> Iterator[None]:
        """
        Turn failures into skips as ``soft_fail`` and ``never_fail`` ask.

        ``BaseSensorOperator`` does so around ``poke`` and, by version, around the end of a deferral, but not
        around the rest of ``execute``. A wrong argument is skipped by ``never_fail`` only.
        """
        try:
            yield
        except AirflowSkipException:
            raise
        except Exception as error:
            outcome = isinstance(error, (AirflowFailException, AirflowSensorTimeout))
            wrong_argument = isinstance(error, ModelsLabArgumentError)
            if self.never_fail or (self.soft_fail and outcome and not wrong_argument):
                self._say_why_skipped(error)
                raise AirflowSkipException(str(error)) from error
            raise

    def _say_why_skipped(self, error: BaseException) -> None:
        """Write down what a skip stands for: Airflow puts in place of its text that ``soft_fail`` is set."""
        self.log.warning("Skipped instead of failed: %s", error)
