"""The hook: an Airflow connection turned into requests to ModelsLab, on workers and in the triggerer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import tenacity
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import (
    AirflowNotFoundException,
    BaseHook,
)
from asgiref.sync import sync_to_async

from airflow_provider_modelslab._client import AsyncClient, Client
from airflow_provider_modelslab._http.connection import ClientOptions, read_connection
from airflow_provider_modelslab._http.fingerprint import Fingerprint, fingerprint_of
from airflow_provider_modelslab._outputs.names import is_url
from airflow_provider_modelslab._polling import schedule
from airflow_provider_modelslab._polling.clock import DEFAULT_PACING
from airflow_provider_modelslab._polling.policy import Pacing
from airflow_provider_modelslab._polling.poller import ConnectionMoved
from airflow_provider_modelslab._polling.waits import JobWaits
from airflow_provider_modelslab._polling.worker_poller import WorkerPoller, count_poll
from airflow_provider_modelslab._protocol.arguments import (
    flatten_jobs,
    parse_family,
    parse_job,
    parse_optional,
    parse_seconds,
)
from airflow_provider_modelslab._protocol.formatting import format_duration, format_moment, short_name
from airflow_provider_modelslab._protocol.masking import secrets_in
from airflow_provider_modelslab._protocol.phrases import names_no_route, says_only_running
from airflow_provider_modelslab._protocol.replies import Reply
from airflow_provider_modelslab._protocol.submissions import Submission
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS, Verdict
from airflow_provider_modelslab._tasks.failures import GENERATE_AGAIN, advice_on
from airflow_provider_modelslab._tasks.inputs import check_size, data_url, read_input
from airflow_provider_modelslab._telemetry import metrics, spans
from airflow_provider_modelslab.endpoints import (
    GENERATION_ENDPOINTS,
    MODELSLAB,
    did_you_mean,
    endpoint_of_submission,
)
from airflow_provider_modelslab.exceptions import (
    ModelsLabArgumentError,
    ModelsLabJobFailed,
    ModelsLabRequestError,
    ModelsLabTimeout,
    argument_errors,
    exception_for,
)
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS, CONNECTION_TYPE, FIELD_BEHAVIOUR

try:  # common.compat has it, too, but only in releases that need Python 3.11
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 2
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found, no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

__all__ = ["ModelsLabHook"]

API_KEY_VARIABLE = "MODELSLAB_API_KEY"
"""The environment variable that holds the key where no connection is defined, as for ModelsLab's own tools."""

DEFAULT_WAIT_TIMEOUT = 3600.0
"""Seconds that :meth:`ModelsLabHook.wait` waits by default."""

DEFAULT_QUEUE_TIMEOUT = 3600.0
"""Seconds that :meth:`ModelsLabHook.submit` waits for a queue slot by default."""

_LONGEST_RETRY_PAUSE = 8.0


class ModelsLabHook(BaseHook):
    """
    Talks to ModelsLab with the key and the options of an Airflow connection.

    One hook holds one connection, read once. It may be used by several threads after its first request.

    :param modelslab_conn_id: the connection, of type ``modelslab``. Where ``modelslab_default`` is not defined,
        the environment variable ``MODELSLAB_API_KEY`` serves.
    """

    conn_name_attr = "modelslab_conn_id"
    default_conn_name = "modelslab_default"
    conn_type = CONNECTION_TYPE
    hook_name = "ModelsLab"

    pacing: ClassVar[Pacing] = DEFAULT_PACING

    def __init__(self, modelslab_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.modelslab_conn_id = modelslab_conn_id
        self._unusable = f"Correct connection {modelslab_conn_id!r}: "
        self._options: ClientOptions | None = None
        self._started_with: Fingerprint | None = None

    # --- requests about jobs ----------------------------------------------------------------------------

    def submit(
        self,
        path: str,
        payload: Mapping[str, Any],
        *,
        queue_timeout: timedelta | float = DEFAULT_QUEUE_TIMEOUT,
        name: str = "",
    ) -> Job:
        """
        Submit a generation job.

        The API has no idempotency key: it bills a request that arrives twice twice. So only a request that certainly
        did not leave this machine is repeated, and one that ModelsLab refused: because the account's queue is full, or,
        once, because of its key, credits or plan, which counts once a second reply says so, too.

        :param path: the path of the generation endpoint, for example ``"v6/video/text2video"``.
        :param payload: the parameters of the generation, as the endpoint's page lists them, without ``key``. What their
            names call secret, such as ``hf_token``, is masked like the key.
        :param queue_timeout: seconds, or a timedelta, to wait for a slot in the account's queue. The wait holds the
            worker; that of the operator does not. 0 raises ``ModelsLabRateLimited`` at once.
        :param name: what the log calls it, beside its id.
        :return: the job: usually queued (``"processing"``, with an ``eta``), sometimes done at once.
        :raises ModelsLabArgumentError: an argument is wrong, or the connection; nothing was sent.
        :raises ModelsLabAmbiguousSubmission: it may have been accepted and billed, but no usable reply came.
        :raises ModelsLabRateLimited: the queue was still full after ``queue_timeout``; nothing was accepted.
        :raises ModelsLabTransientError: ModelsLab could not be reached; nothing was sent.
        :raises ModelsLabRequestError: the parameters were refused, as were key, credits or plan by
            :class:`~airflow_provider_modelslab.exceptions.ModelsLabAuthError` and its siblings.
        :raises ModelsLabJobFailed: ModelsLab took the request and failed at once.
        """
        with argument_errors():
            submission = Submission.parse(path, payload)
        for secret in secrets_in(submission.payload):
            mask_secret(secret)
        queue = tenacity.Retrying(**self._queue_policy(queue_timeout))
        client, poller = self.client, self.poller
        unknown = Job(id="", endpoint=endpoint_of_submission(submission.path))

        def send() -> Reply:  # a refusal costs nothing, and a second one confirms it
            reply = client.submit(submission)
            if reply.verdict in ACCOUNT_VERDICTS:
                reply = client.submit(submission)
            return _submission_counted(reply)

        reply: Reply = queue(_repeat, client.options, lambda: poller.send(send, unknown))
        return self._submitted(reply, submission.path, name)

    async def asubmit(
        self, path: str, payload: Mapping[str, Any], *, queue_timeout: timedelta | float = DEFAULT_QUEUE_TIMEOUT
    ) -> Job:
        """Submit a generation job from an event loop; see :meth:`submit`."""
        with argument_errors():
            submission = Submission.parse(path, payload)
        for secret in secrets_in(submission.payload):
            await _amask_secret(secret)

        async def send() -> Reply:  # see submit
            async with await self.open_async_client() as client:
                reply = await client.submit(submission)
                if reply.verdict in ACCOUNT_VERDICTS:
                    reply = await client.submit(submission)
                return _submission_counted(reply)

        queue = tenacity.AsyncRetrying(**self._queue_policy(queue_timeout))
        reply: Reply = await queue(_arepeat, await self.aoptions(), send)
        return self._submitted(reply, submission.path)

    def fetch(self, job_id: Job | Mapping[str, Any] | str | int, endpoint: str | None = None) -> Job:
        """
        Poll a job once. This generates nothing, costs nothing and may be repeated freely.

        :param job_id: the id from the submission's reply; or the job that :meth:`submit` returned, its record
            (``job.to_dict()``), or the reply itself.
        :param endpoint: the family it is fetched under, where ``job_id`` is no more than an id: a
            :class:`~airflow_provider_modelslab.endpoints.FetchEndpoint`, or its string such as ``"v6/video"``.
        :return: the job, whether it is in progress, done or failed. An id that ModelsLab does not know is a
            failed job; right after a submission that may be too early an answer, which :meth:`wait` allows for.
        :raises ModelsLabArgumentError: ``job_id`` or ``endpoint`` is wrong, or the connection.
        :raises ModelsLabAuthError: the key is refused; likewise ``ModelsLabCreditsError``,
            ``ModelsLabPlanError`` and ``ModelsLabRequestError``.
        :raises ModelsLabTransientError: ModelsLab could not be asked, even by the connection's ``retries``.
        """
        job = _one_job(job_id, endpoint, self.options)

        def poll() -> Reply:
            reply = self.client.poll(job)
            count_poll(reply)
            return reply

        return self._fetched(_repeat(self.options, poll))

    async def afetch(self, job_id: Job | Mapping[str, Any] | str | int, endpoint: str | None = None) -> Job:
        """Poll a job once from an event loop; see :meth:`fetch`."""
        job = _one_job(job_id, endpoint, await self.aoptions())
        async with await self.open_async_client() as client:

            async def poll() -> Reply:
                reply = await client.poll(job)
                count_poll(reply)
                return reply

            return self._fetched(await _arepeat(client.options, poll))

    def cancel(self, job_id: Job | Mapping[str, Any] | str | int, endpoint: str | None = None) -> None:
        """
        Cancel a training or the run of a workflow, which ends what it costs. ModelsLab cannot cancel a generation.

        :param job_id: the job that :meth:`submit` returned, its record, or its id.
        :param endpoint: ``"v6/trainer"`` or ``"v1/workflows/<workflow>"``, where ``job_id`` is no more than an id.
        :raises ModelsLabArgumentError: ModelsLab has no request that cancels work of this kind.
        :raises ModelsLabRequestError: ModelsLab refuses, for example because it has ended already.
        """
        job = _one_job(job_id, endpoint, self.options)
        with argument_errors():
            reply = _repeat(self.options, self.client.cancel, job)
        self._cancelled(reply, job)

    async def acancel(self, job: Job) -> None:
        """Cancel a job from an event loop; see :meth:`cancel`."""
        async with await self.open_async_client() as client:
            with argument_errors():
                reply = await _arepeat(client.options, client.cancel, job)
        self._cancelled(reply, job)

    def upload(self, file: str | bytes | os.PathLike[str] | ObjectStoragePath) -> str:
        """
        Upload a file as an input, for example as ``init_image`` or ``init_audio``.

        :param file: its path: a string (also a URL that ``ObjectStoragePath`` takes), a path object; or its content.
        :return: the URL at which ModelsLab keeps it for 24 hours.
        :raises ModelsLabArgumentError: the file is not there, empty, or larger than 5 MB.
        :raises ModelsLabRequestError: ModelsLab refuses it.
        """
        with argument_errors():
            content = file if isinstance(file, bytes) else read_input(file, "file")
            check_size(len(content), "file")
        reply = _repeat(self.options, self.client.upload, data_url(content))
        if reply.verdict is Verdict.SUCCESS and is_url(url := reply.job.outputs[0]):
            return url
        verdict = Verdict.REFUSED if reply.verdict in (*_NOT_DONE, Verdict.SUCCESS) else reply.verdict
        message = f"upload: {reply.job.message or 'no URL came back'}"
        raise exception_for(verdict, message, self.modelslab_conn_id, reply.retry_after)

    def wait(
        self,
        job_id: Job | Mapping[str, Any] | str | int,
        endpoint: str | None = None,
        timeout: timedelta | float = DEFAULT_WAIT_TIMEOUT,
        poke_interval: timedelta | float | None = None,
    ) -> Job:
        """
        Block until a job is done: for plain ``@task`` code. The sensor does the same without holding a worker.

        :param job_id: the id from the submission's reply; or the job that :meth:`submit` returned, its record
            (``job.to_dict()``), or the reply itself.
        :param endpoint: the family it is fetched under, where ``job_id`` is no more than an id.
        :param timeout: seconds, or a timedelta, to wait at the most.
        :param poke_interval: a fixed number of seconds, or a timedelta, between two polls; by default they are chosen
            to be few and to find the job soon after it is done.
        :return: the successful job.
        :raises ModelsLabArgumentError: an argument is wrong, or the connection.
        :raises ModelsLabAuthError: the key is refused, by two polls; likewise ``ModelsLabCreditsError`` and
            ``ModelsLabPlanError``.
        :raises ModelsLabJobFailed: the generation failed.
        :raises ModelsLabTimeout: it was not done in time. The job lives on and can be waited for again.
        """
        job = _one_job(job_id, endpoint, self.options)
        with argument_errors():
            seconds = parse_seconds(timeout, "timeout")
            pace = parse_optional(parse_seconds, poke_interval, "poke_interval")
        end = self.pacing.clock.monotonic() + seconds
        waits = JobWaits([job], self.pacing, pace)
        self.poller.poll(waits, waits.unfinished(), end)
        self.poller.wait(waits, end)
        (job,) = waits.jobs()
        if not job.finished:
            raise ModelsLabTimeout(
                f"Wait for it again, with a longer timeout: job {job} was not done within {format_duration(seconds)}"
                f"{'' if says_only_running(job.message) else f' ({job.message})'}",
                jobs=[job],
            )
        if job.status == "failed":
            raise ModelsLabJobFailed(f"{advice_on([job])}: job {job} failed: {job.message}", jobs=[job])
        return job

    # --- the connection ---------------------------------------------------------------------------------

    @property
    def options(self) -> ClientOptions:
        """The client options of the connection, looked up once."""
        if self._options is None:
            try:
                connection = self.get_connection(self.modelslab_conn_id)
            except AirflowNotFoundException:
                connection = None
            if connection is None:  # outside of the handler, whose error explains nothing more
                self._options = self._options_from_environment()
                mask_secret(self._options.key)
            else:
                with argument_errors(self._unusable):
                    self._options = read_connection(connection)
        return self._options

    async def aoptions(self) -> ClientOptions:
        """Return the client options of the connection, looked up once, without blocking the event loop."""
        if self._options is not None:
            return self._options
        try:
            try:
                connection = await get_async_connection(self.modelslab_conn_id, hook=self)
            except AirflowNotFoundException:
                # It finds no connections of the database in a trigger that "airflow dags test" runs.
                connection = await sync_to_async(self.get_connection)(self.modelslab_conn_id)
            with argument_errors(self._unusable):
                self._options = read_connection(connection)
        except AirflowNotFoundException:
            self._options = self._options_from_environment()
            await _amask_secret(self._options.key)
        return self._options

    @cached_property
    def client(self) -> Client:
        """The client of the connection, for worker code."""
        self._refuse_other_host(self.options)
        with argument_errors(self._unusable):
            return Client(self.options)

    @cached_property
    def poller(self) -> WorkerPoller:
        """What polls many jobs in worker code, and keeps its requests to the pace that the account allows."""
        return WorkerPoller(self.client, self.modelslab_conn_id, self.pacing, self.log)

    async def open_async_client(self) -> AsyncClient:
        """Return a client of the connection for an event loop, which the caller closes."""
        options = await self.aoptions()
        self._refuse_other_host(options)
        with argument_errors(self._unusable):
            return await AsyncClient.open(options)

    @property
    def fingerprint(self) -> Fingerprint:
        """
        What tells this connection from another; the key cannot be guessed from it.

        For a wait that goes on after the connection got another host, it is what the connection was before.
        """
        now, before = fingerprint_of(self.options), self._started_with
        return now if before is None or before.host == now.host else before

    def keep_to(self, fingerprint: Mapping[str, str] | None) -> None:
        """
        Go on with a wait: send requests only to the host that it started with.

        :param fingerprint: the fingerprint of that time, as plain data; ``None`` where it is not known.
        """
        self._started_with = None if fingerprint is None else Fingerprint(**fingerprint)

    def balance(self) -> float:
        """
        Return what the account's wallet holds, in its currency.

        :raises AirflowException: ModelsLab does not tell; of an enterprise key, for example, which has no wallet.
        """
        balance = self.client.balance()
        if balance.verdict is not Verdict.SUCCESS:
            raise exception_for(balance.verdict, f"wallet_balance: {balance.message}", self.modelslab_conn_id)
        if balance.amount is None:
            raise ModelsLabRequestError(f"ModelsLab does not tell the balance of connection {self.modelslab_conn_id!r}")
        return balance.amount

    def requests_in_flight(self) -> int | None:
        """Return how many requests of the account ModelsLab has in flight; ``None`` where it does not tell."""
        return self.client.count()

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the account's balance, which costs nothing, and say what the answer means."""
        try:
            client = self.client
        except ModelsLabArgumentError as error:
            return False, str(error)
        balance = client.balance()
        if balance.verdict is Verdict.SUCCESS:
            where = urlsplit(self.options.base_url or "").netloc or MODELSLAB
            return True, f"{where} accepts the API key. Balance of its account: {balance.message}"
        if balance.verdict in (Verdict.INVALID_KEY, Verdict.NOT_IN_PLAN):
            return False, (
                f"ModelsLab does not show the balance for this API key: {balance.message}. Either the key is wrong, "
                "or it is an enterprise key: those have no wallet and cannot be tested without a job of their "
                "server. An enterprise key that works for fetching and generating is good."
            )
        return False, f"ModelsLab did not show the balance: {balance.message}"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form for Airflow before 3.2; later ones read the provider info."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import IntegerField, StringField
        from wtforms.validators import Optional

        # A field of text for numbers: Airflow 3.1 knows none for fractions, and the connection is read from text, too.
        kinds = {"integer": IntegerField, "number": StringField, "string": StringField}
        return {
            name: kinds[form_field["schema"]["type"][0]](
                form_field["label"],
                description=form_field["description"],
                validators=[Optional()],
                widget=BS3TextFieldWidget(),
            )
            for name, form_field in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the standard fields of the connection form appear, for Airflow before 3.2."""
        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    # --- inside -----------------------------------------------------------------------------------------

    def _refuse_other_host(self, options: ClientOptions) -> None:
        """Refuse a connection that leads to another host than the one :meth:`keep_to` names."""
        if self._started_with is not None and self._started_with.host != (options.base_url or ""):
            raise ConnectionMoved(self.modelslab_conn_id, self._started_with, fingerprint_of(options))

    def _options_from_environment(self) -> ClientOptions:
        """Return the options where the connection is not defined; only the default one has a stand-in."""
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if self.modelslab_conn_id == self.default_conn_name and key:
            return ClientOptions(key=key)
        if not self.modelslab_conn_id:
            raise ModelsLabArgumentError(f"Name a connection as modelslab_conn_id: it is {self.modelslab_conn_id!r}")
        or_variable = f", or set {API_KEY_VARIABLE}" if self.modelslab_conn_id == self.default_conn_name else ""
        raise ModelsLabArgumentError(
            f"Add connection {self.modelslab_conn_id!r} under Admin, Connections{or_variable}: it is not defined. Its "
            f"type is {CONNECTION_TYPE!r}, its password your API key. On the command line: airflow connections add "
            f'{self.modelslab_conn_id} --conn-type {CONNECTION_TYPE} --conn-password "$YOUR_KEY"'
        )

    def _fetched(self, reply: Reply) -> Job:
        """Return the job of a poll, or raise where the reply is not about the job."""
        if reply.verdict in (*ACCOUNT_VERDICTS, Verdict.TRANSIENT, Verdict.REFUSED):
            message = reply.job.message or f"HTTP {reply.http_status} without a reason"
            raise exception_for(reply.verdict, message, self.modelslab_conn_id, reply.retry_after)
        return reply.job.failed() if reply.verdict is Verdict.NOT_FOUND else reply.job

    def _submitted(self, reply: Reply, path: str, name: str = "") -> Job:
        """Return the job of a submission, or raise where there is none."""
        if reply.verdict in (Verdict.SUCCESS, Verdict.PROCESSING):
            now = self.pacing.clock.wall()
            job = replace(reply.job, submitted=round(now, 3))
            expected = "" if job.eta is None else f", expected about {format_moment(now + job.eta, now)}"
            what = f"item {short_name(name)} to {path}" if name else f"to {path}"
            self.log.info("Submitted %s: job %s, %s%s", what, job, job.status, expected)
            spans.submitted(job)
            return job
        if reply.verdict is Verdict.FAILED:
            raise ModelsLabJobFailed(
                f"{GENERATE_AGAIN}: the submission to {path} failed: {reply.job.message}", jobs=[reply.job]
            )
        reason = reply.job.message or "an error without a reason"
        message = f"submission to {path}: {reason}"
        if reply.verdict is Verdict.REFUSED and (names_no_route(reason) or reply.http_status == 405):
            meant = did_you_mean(path, GENERATION_ENDPOINTS)
            reason = reason.partition(" (did you mean")[0]  # a help of the sandbox, which is given already
            raise ModelsLabRequestError(
                f"Correct the endpoint {path!r}{meant}: ModelsLab has no such endpoint: {reason}"
            )
        told = [f"job {reply.job}"] if reply.job.id else []
        told += [f"{name} {text!r}" for name, text in reply.job.ids.items()]
        if told:
            message += f" (the reply names {', '.join(told)})"
        raise exception_for(
            reply.verdict,
            message,
            self.modelslab_conn_id,
            reply.retry_after,
            queue_slots=reply.queue_slots,
            job=reply.job if told else None,
        )

    def _cancelled(self, reply: Reply, job: Job) -> None:
        """Log that a job is cancelled, or raise where it is not."""
        if reply.verdict not in (Verdict.SUCCESS, Verdict.NO_OUTPUT, Verdict.PROCESSING):
            verdict = Verdict.REFUSED if reply.verdict in _NOT_DONE else reply.verdict
            message = f"cancelling {job}: {reply.job.message or 'an error without a reason'}"
            raise exception_for(verdict, message, self.modelslab_conn_id, reply.retry_after)
        self.log.info("Cancelled job %s", job)

    def _queue_policy(self, queue_timeout: timedelta | float) -> dict[str, Any]:
        """Return when to repeat a submission that ModelsLab refused because the queue is full."""
        with argument_errors():
            timeout = parse_seconds(queue_timeout, "queue_timeout", or_zero=True)

        def pause(state: tenacity.RetryCallState) -> float:
            asked = _last_reply(state).retry_after or 0.0
            return schedule.spread_pause(asked, self.pacing.random, self.pacing.policy)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            metrics.paused("submissions", state.upcoming_sleep)
            if state.attempt_number == 1:
                message = _last_reply(state).job.message
                self.log.info("Waiting up to %s for a queue slot: %s", format_duration(timeout), message)

        return {
            "stop": tenacity.stop_before_delay(timeout),
            "wait": pause,
            "retry": tenacity.retry_if_result(lambda reply: reply.verdict is Verdict.RATE_LIMITED),
            "before_sleep": before_sleep,
            # No slot in time: the last reply counts.
            "retry_error_callback": _last_reply,
        }


async def _amask_secret(secret: str) -> None:
    """Mask a secret from an event loop, in a thread: it may talk to Airflow's supervisor."""
    await sync_to_async(mask_secret)(secret)


_NOT_DONE = frozenset({Verdict.FAILED, Verdict.NOT_FOUND, Verdict.EMPTY_ERROR, Verdict.NO_OUTPUT, Verdict.PROCESSING})
"""What a request that is no submission and no poll was refused with."""


def _submission_counted(reply: Reply) -> Reply:
    metrics.submission_answered(reply.job.endpoint, reply.verdict)
    if reply.verdict is Verdict.RATE_LIMITED:
        spans.queue_full(reply.job.endpoint, reply.retry_after or 0.0)
    return reply


def _worth_repeating(reply: Reply) -> bool:
    """Whether a request may succeed soon; a longer pause than that is left to the caller, with ``retry_after``."""
    return reply.verdict is Verdict.TRANSIENT and (reply.retry_after or 0.0) <= _LONGEST_RETRY_PAUSE


_RETRY_PAUSE = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_RETRY_PAUSE)


def _last_reply(state: tenacity.RetryCallState) -> Reply:
    if state.outcome is None:
        raise RuntimeError("tenacity asks before the first attempt")
    reply: Reply = state.outcome.result()
    return reply


def _retry_policy(options: ClientOptions) -> dict[str, Any]:
    return {
        "stop": tenacity.stop_after_attempt(options.retries + 1),
        "wait": lambda state: max(_RETRY_PAUSE(state), _last_reply(state).retry_after or 0.0),
        "retry": tenacity.retry_if_result(_worth_repeating),
        # Retries used up: the last reply counts.
        "retry_error_callback": _last_reply,
    }


def _repeat(options: ClientOptions, send: Callable[..., Reply], *arguments: Any) -> Reply:
    """Send a request, again while it fails for a passing reason, and return the last reply."""
    reply: Reply = tenacity.Retrying(**_retry_policy(options))(send, *arguments)
    return reply


async def _arepeat(options: ClientOptions, send: Callable[..., Awaitable[Reply]], *arguments: Any) -> Reply:
    """Do the same as :func:`_repeat` on an event loop."""
    reply: Reply = await tenacity.AsyncRetrying(**_retry_policy(options))(send, *arguments)
    return reply


def _one_job(value: Job | Mapping[str, Any] | str | int, endpoint: str | None, options: ClientOptions) -> Job:
    """Return the job that an argument names."""
    if isinstance(value, Job):
        return value
    with argument_errors():
        items = [item for item in flatten_jobs(value) if item is not None]
        if len(items) != 1:
            raise ValueError(f"job_id must name one job, not {len(items)}: the sensor waits for many")
        family = None if endpoint is None else parse_family(endpoint)
        return parse_job(items[0], "job_id", family, options.base_url, options.key)
