"""The sensor: waits for generation jobs and hands their output URLs to the next task."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from airflow_provider_modelslab._polling.waits import JobWait, JobWaits
from airflow_provider_modelslab._protocol.arguments import parse_jobs
from airflow_provider_modelslab._protocol.templates import is_rendered
from airflow_provider_modelslab._tasks.deferral import deadline_of, defer
from airflow_provider_modelslab._tasks.events import job_record, read_event
from airflow_provider_modelslab._tasks.results import push_jobs, push_results, store, timeout_error
from airflow_provider_modelslab.endpoints import ForeignHostError, parse_endpoint
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, argument_errors
from airflow_provider_modelslab.hooks import POLLS_AT_A_TIME, ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.links import OUTPUT_LINKS
from airflow_provider_modelslab.triggers import ModelsLabJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_modelslab._outputs.saving import IfExists

__all__ = ["ModelsLabJobSensor"]


class ModelsLabJobSensor(BaseSensorOperator):
    """
    Waits until ModelsLab has finished generation jobs.

    It looks once, and where jobs are still in progress and ``deferrable`` is set, hands the wait to the
    triggerer: any number of jobs is one trigger, and no worker is held. Network trouble, server errors and
    rate limits never end a wait; only the jobs themselves, the account or the timeout do.

    XComs, the same in every mode:

    - ``return_value``: the output URLs of all jobs as one flat list, in the order of ``jobs``.
    - ``files``: where ``output_path`` is given, the paths of the stored outputs in the same order.
    - ``jobs``: a list with one record per job, as
      :meth:`Job.to_dict <airflow_provider_modelslab.jobs.Job.to_dict>` returns it. It is there when the task
      fails, too, so that what was generated is not lost.

    A job that ModelsLab failed to generate fails the task without a retry, after all other jobs are done;
    so do a refused key, missing credits, and the end of ``timeout`` or ``execution_timeout``.

    :param jobs: one job or a list: an id (integer or string), a submission reply (a dict with ``fetch_result``
        and/or ``id``), a job record, or the JSON of any of these. Templated. An upstream that produced an empty
        list leads to an empty list.
    :param endpoint: the family to fetch under, for example ``"v6/video"`` or a
        :class:`~airflow_provider_modelslab.endpoints.FetchEndpoint`, where a job does not say it itself. Templated.
    :param modelslab_conn_id: the connection. Templated.
    :param deferrable: wait in the triggerer. ``mode`` is then without meaning.
    :param fail_on_partial_error: fail the task when a job failed. When false, the task succeeds with the URLs
        of the jobs that succeeded, which may be none; the failures are in the XCom ``jobs``.
    :param output_path: a folder to store the outputs in, for example ``"s3://aws_default@bucket/{{ ds }}/"``: anything
        that Airflow's ``ObjectStoragePath`` takes. The XCom ``files`` then has the paths of the files, in the order of
        the URLs. Templated.
    :param if_exists: what to do about stored files of the same jobs: ``"skip"`` reuses, ``"overwrite"`` replaces
        them, ``"error"`` fails.
    :param poke_interval: seconds between two polls. When it is not given, a deferred sensor chooses moments that
        suit each job; the other modes look every 60 s.
    :param kwargs: ``timeout``, ``soft_fail``, ``mode`` and all else that ``BaseSensorOperator`` takes.
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
        output_path: str | None = None,
        if_exists: IfExists = "skip",
        poke_interval: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=60 if poke_interval is None else poke_interval, **kwargs)
        self.jobs = jobs
        self.endpoint = endpoint
        self.modelslab_conn_id = modelslab_conn_id
        self.deferrable = deferrable
        self.fail_on_partial_error = fail_on_partial_error
        self.output_path = output_path
        self.if_exists = if_exists
        self.paced_by_user = poke_interval is not None
        self._running: tuple[ModelsLabHook, JobWaits] | None = None
        # What a mapped task gets only when it runs is judged then: an empty list is no mistake there.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            _refuse_bad_arguments(jobs, endpoint)

    def execute(self, context: Context) -> Any:
        """Look at the jobs, wait for those in progress in the triggerer or here, and return the output URLs."""
        started = time.time()
        with self._failures_skipped():
            hook, waits = self._start(started)
            if not waits.jobs():
                self.log.info("No jobs to wait for: the list is empty")
                return self._finish(context, [])
        if not self.deferrable:
            return self._wait_here(context, hook, waits)
        deadline = deadline_of(context, self, self.timeout, started)
        with self._failures_skipped():
            self._look_until_one_is_unfinished(context, hook, waits)
            if not waits.unfinished():
                return self._finish(context, waits.jobs())
            if time.time() >= deadline:
                self._time_out(context, waits.jobs())
        push_jobs(context, waits.jobs())  # The page "Outputs" shows what is awaited.
        self.log.info("Deferring: %s", waits.summary())
        defer(
            self,
            ModelsLabJobTrigger(
                modelslab_conn_id=self.modelslab_conn_id,
                jobs=list(map(job_record, waits.jobs())),
                started=started,
                deadline=deadline,
                poke_interval=self.poke_interval if self.paced_by_user else None,
                fingerprint=hook.fingerprint.to_dict(),
            ),
            deadline,
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> list[str]:
        """Take the trigger's event: return the output URLs, or fail with what ended the wait."""
        with self._failures_skipped():
            taken = read_event(event)
            if taken.status == "finished":
                return self._finish(context, taken.jobs)
            if taken.status == "error":
                push_jobs(context, taken.jobs)
                raise taken.error(self.modelslab_conn_id)
            self._time_out(context, taken.jobs)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once at each job in progress: how the modes ``poke`` and ``reschedule`` wait."""
        if self._running is None:
            self._running = self._start(time.time())
        hook, waits = self._running
        unfinished = len(waits.unfinished())
        self._poll(context, hook, waits, waits.unfinished())
        # These are settled on the spot: with mode="reschedule" the next poke would not remember them.
        while inconclusive := [wait for wait in waits.unfinished() if wait.inconclusive]:
            time.sleep(min(wait.delay() for wait in inconclusive))
            self._poll(context, hook, waits, inconclusive)
        if waits.unfinished():
            if len(waits.unfinished()) < unfinished:
                self.log.info("Still waiting: %s", waits.summary())
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._finish(context, waits.jobs()))

    def _start(self, started: float) -> tuple[ModelsLabHook, JobWaits]:
        hook = ModelsLabHook(self.modelslab_conn_id)
        with argument_errors():
            jobs = parse_jobs(self.jobs, self.endpoint, hook.options.base_url, hook.options.key)
        return hook, hook.waits(jobs)

    def _wait_here(self, context: Context, hook: ModelsLabHook, waits: JobWaits) -> Any:
        """Wait in this worker process, or in a chain of them, as ``BaseSensorOperator`` does."""
        self._running = hook, waits
        if not context.get("task_reschedule_count"):
            self.log.info("Waiting for jobs: %s", waits.summary())
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            with self._failures_skipped():
                self._time_out(context, waits.jobs())
        except AirflowSkipException as skip:
            push_jobs(context, waits.jobs())
            if skip.__cause__ is not None:
                self._say_why_skipped(skip.__cause__)
            raise

    def _poll(self, context: Context, hook: ModelsLabHook, waits: JobWaits, at: Sequence[JobWait]) -> None:
        """Look once at the jobs of some waits, as far as they may be asked for now."""
        try:
            hook.poll_waits([wait for wait in at if wait.may_poll()])
        except AirflowException:
            push_jobs(context, waits.jobs())
            raise

    def _look_until_one_is_unfinished(self, context: Context, hook: ModelsLabHook, waits: JobWaits) -> None:
        """
        Find out whether all jobs are done; if one is not, the triggerer asks for the rest, at its own pace.

        Mostly the first poll tells. Only if that job is done are the others polled, several at a time.
        """
        unfinished, at_a_time = waits.unfinished(), 1
        while batch := unfinished[:at_a_time]:
            self._poll(context, hook, waits, batch)
            if not all(wait.job.finished for wait in batch):
                return
            unfinished, at_a_time = unfinished[at_a_time:], POLLS_AT_A_TIME

    def _finish(self, context: Context, jobs: Sequence[Job]) -> list[str]:
        files = store(
            context,
            jobs,
            output_path=self.output_path,
            if_exists=self.if_exists,
            ca_bundle=self.output_path and ModelsLabHook(self.modelslab_conn_id).options.ca_bundle,
            log=self.log,
        )
        return push_results(context, jobs, files=files, fail_on_partial_error=self.fail_on_partial_error, log=self.log)

    def _time_out(self, context: Context, jobs: Sequence[Job]) -> NoReturn:
        push_jobs(context, jobs)
        raise timeout_error(jobs, "clear the task, with a longer timeout or execution_timeout, to wait for them again")

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


def _refuse_bad_arguments(jobs: Any, endpoint: Any) -> None:
    """Refuse at parse time what is wrong whatever the connection, the upstreams and the templates hold."""
    endpoint_known = is_rendered(endpoint)
    with argument_errors():
        if endpoint is not None and endpoint_known:
            parse_endpoint(endpoint)
        if not is_rendered(jobs):
            return
        if jobs is None or (isinstance(jobs, Collection) and not jobs):
            raise ValueError("jobs is empty: pass at least one job id or submission reply")
        try:
            parse_jobs(jobs, endpoint if endpoint_known else "known/later")
        except ForeignHostError:
            return  # It may be the connection's own host, which is only known when the task runs.
