"""The hook: an Airflow connection turned into requests to ModelsLab, on workers and in the triggerer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import tenacity
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    BaseHook,
)

from airflow_provider_modelslab._http.connection import ClientOptions, read_connection
from airflow_provider_modelslab._polling.waits import ACCOUNT_VERDICTS, JobWait, JobWaits
from airflow_provider_modelslab._protocol.arguments import parse_jobs
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.replies import (
    Balance,
    Reply,
    Verdict,
    read_balance_reply,
    read_fetch_reply,
    read_submission_reply,
)
from airflow_provider_modelslab.endpoints import (
    api_url,
    fetch_request,
    parse_endpoint,
    parse_job_id,
    parse_submission_path,
    submission_url,
)
from airflow_provider_modelslab.exceptions import (
    ModelsLabAmbiguousSubmission,
    ModelsLabArgumentError,
    ModelsLabAuthError,
    ModelsLabCreditsError,
    ModelsLabJobFailed,
    ModelsLabPlanError,
    ModelsLabRateLimited,
    ModelsLabRequestError,
    ModelsLabTimeout,
    ModelsLabTransientError,
    argument_errors,
)
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS, CONNECTION_TYPE, FIELD_BEHAVIOUR

try:  # common.compat has it, too, but only in releases that need Python 3.11
    from airflow.sdk.log import mask_secret
except ImportError:  # Airflow 2
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found, no-redef]

if TYPE_CHECKING:
    import ssl

    import requests

    from airflow_provider_modelslab._http.async_transport import Session as AsyncSession

API_KEY_VARIABLE = "MODELSLAB_API_KEY"
"""The environment variable that holds the key where no connection is defined, as for ModelsLab's own tools."""

DEFAULT_WAIT_TIMEOUT = 3600.0
"""Seconds that :meth:`ModelsLabHook.wait` waits when it is not told otherwise."""

POLLS_AT_A_TIME = 10
"""Requests at a time when a worker looks at many jobs."""

LONG_BODY = 2**20
"""Bytes of a reply from which on reading it would hold up an event loop."""

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

    def __init__(self, modelslab_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.modelslab_conn_id = modelslab_conn_id
        self._options: ClientOptions | None = None

    # --- requests about jobs ----------------------------------------------------------------------------

    def submit(self, path: str, payload: Mapping[str, Any]) -> Job:
        """
        Submit a generation job.

        It is sent once. Only a request that certainly did not leave this machine is repeated, because the
        API has no idempotency key: whatever arrives twice is billed twice.

        :param path: the path of the generation endpoint, for example ``"v6/video/text2video"``.
        :param payload: the parameters of the generation, as the endpoint's page lists them, without ``key``.
        :return: the job: usually queued (``"processing"``, with an ``eta``), sometimes done at once.
        :raises ModelsLabAmbiguousSubmission: it may have been accepted and billed, but no usable reply came.
        :raises ModelsLabRateLimited: the queue of the account is full; nothing was accepted.
        :raises ModelsLabTransientError: ModelsLab could not be reached; nothing was sent.
        :raises ModelsLabRequestError: the parameters were refused, as were key, credits or plan by
            :class:`~airflow_provider_modelslab.exceptions.ModelsLabAuthError` and its siblings.
        :raises ModelsLabJobFailed: ModelsLab took the request and failed at once.
        """
        from airflow_provider_modelslab._http import sync_transport  # not for those who only parse DAGs

        submission = _Submission.of(path, payload)

        options = self.options
        ssl_context = self._ssl_context_of(options)

        def send() -> Reply:
            # A session of its own: a connection that was kept alive may die with the request half sent,
            # and then nobody knows whether it arrived.
            with sync_transport.open_session(ssl_context) as session:
                return submission.read(sync_transport.post(session, *submission.request(options)), options)

        return self._submitted(self._repeat(options)(send), submission.path)

    async def asubmit(self, path: str, payload: Mapping[str, Any]) -> Job:
        """Submit a generation job from an event loop; see :meth:`submit`."""
        from airflow_provider_modelslab._http import async_transport

        submission = _Submission.of(path, payload)
        options = await self.aoptions()
        ssl_context = await self._assl_context_of(options)

        async def send() -> Reply:
            url, body, timeout = submission.request(options)
            async with async_transport.Session(timeout, ssl_context) as session:
                return submission.read(await session.post(url, body), options)

        return self._submitted(await self._arepeat(options)(send), submission.path)

    def fetch(self, job_id: str | int, endpoint: str) -> Job:
        """
        Look at a job once. This generates nothing, costs nothing and may be repeated freely.

        :param job_id: the id from the submission's reply.
        :param endpoint: the family it is fetched under: a
            :class:`~airflow_provider_modelslab.endpoints.FetchEndpoint`, or its string such as ``"v6/video"``.
        :return: the job, whether it is in progress, done or failed. An id that ModelsLab does not know is a
            failed job; right after a submission that may be too early an answer, which :meth:`wait` allows for.
        :raises ModelsLabAuthError: the key is refused; likewise ``ModelsLabCreditsError``,
            ``ModelsLabPlanError`` and ``ModelsLabRequestError``.
        :raises ModelsLabTransientError: ModelsLab could not be asked, even by the connection's ``retries``.
        """
        job = self._job(job_id, endpoint)
        return self._fetched(self._repeat(self.options)(self.poll, job))

    async def afetch(self, job_id: str | int, endpoint: str) -> Job:
        """Look at a job once from an event loop; see :meth:`fetch`."""
        job = self._job(job_id, endpoint)
        options = await self.aoptions()
        async with await self.open_async_session() as session:
            return self._fetched(await self._arepeat(options)(self.apoll, job, session))

    def wait(
        self,
        job_id: Job | Mapping[str, Any] | str | int,
        endpoint: str | None = None,
        timeout: float = DEFAULT_WAIT_TIMEOUT,
        poke_interval: float | None = None,
    ) -> Job:
        """
        Block until a job is done: for plain ``@task`` code. The sensor does the same without holding a worker.

        :param job_id: the id from the submission's reply; or the job that :meth:`submit` returned, its record
            (``job.to_dict()``), or the reply itself.
        :param endpoint: the family it is fetched under, where ``job_id`` is no more than an id.
        :param timeout: seconds to wait at the most.
        :param poke_interval: a fixed number of seconds between two polls; by default they are chosen to be
            few and to find the job soon after it is done.
        :return: the successful job.
        :raises ModelsLabJobFailed: the generation failed.
        :raises ModelsLabTimeout: it was not done in time. The job lives on and can be waited for again.
        """
        job = job_id if isinstance(job_id, Job) else self._one_job(job_id, endpoint)
        started = time.time()
        waits = JobWaits([job], started, poke_interval)
        self.poll_waits(waits.unfinished())
        self.wait_for(waits, started + timeout)
        (job,) = waits.jobs()
        if not job.finished:
            raise ModelsLabTimeout(f"Job {job} was not done within {timeout:g} s", jobs=[job])
        if job.status == "failed":
            raise ModelsLabJobFailed(f"Job {job} failed: {job.message}", jobs=[job])
        return job

    def wait_for(self, waits: JobWaits, deadline: float, max_pending: int = 0) -> None:
        """
        Block while more than so many jobs are unfinished, and look at each when it is due, and at the deadline.

        :param waits: the waits; afterwards they tell how the jobs stand.
        :param deadline: when to stop at the latest, in seconds since the epoch.
        :param max_pending: stop when no more jobs than these are unfinished; -1 waits for the deadline.
        :raises AirflowException: the account is refused: key, credits or plan.
        """
        now = time.time()
        moments = {wait: now + wait.delay(now, deadline) for wait in waits.unfinished()}
        while len(moments) > max_pending and now < deadline:
            time.sleep(max(0.0, min([deadline, *moments.values()]) - now))
            now = time.time()
            due = [wait for wait, moment in moments.items() if moment <= now or now >= deadline]
            self.poll_waits(due)
            now = time.time()
            for wait in due:
                del moments[wait]
            moments |= {wait: now + wait.delay(now, deadline) for wait in due if not wait.job.finished}

    def poll(self, job: Job) -> Reply:
        """Ask for a job with one request, and return its reply whatever it says: what waits are made of."""
        return self._poll(job, self.options, self._session)

    async def open_async_session(self) -> AsyncSession:
        """Return a session for :meth:`apoll`, which the caller closes."""
        from airflow_provider_modelslab._http import async_transport  # not for those who only parse DAGs

        options = await self.aoptions()
        return async_transport.Session(options.request_timeout, await self._assl_context_of(options))

    async def apoll(self, job: Job, session: AsyncSession) -> Reply:
        """Ask for a job with one request over a session of an event loop; see :meth:`poll`."""
        options = await self.aoptions()
        url, body = fetch_request(job.endpoint, job.id, options.key, options.base_url)
        received = await session.post(url, body)
        if isinstance(received, HttpReply) and len(received.body) > LONG_BODY:
            return await asyncio.to_thread(self._read, received, job, options)
        return self._read(received, job, options)

    def poll_many(self, jobs: Sequence[Job]) -> list[Reply]:
        """Ask for many jobs, several at a time, and return their replies in the order of the jobs."""
        # Looked up before there are threads: Airflow's supervisor is to be spoken to from one only.
        look = partial(self._poll, options=self.options, session=self._session)
        with ThreadPoolExecutor(max_workers=POLLS_AT_A_TIME) as pool:
            return list(pool.map(look, jobs))

    def poll_waits(self, waits: Sequence[JobWait]) -> None:
        """
        Look once at the jobs of some waits, and let the waits take the replies.

        :raises AirflowException: the account is refused: key, credits or plan.
        """
        replies = self.poll_many([wait.job for wait in waits])
        for wait, reply in zip(waits, replies, strict=True):
            if reply.verdict not in ACCOUNT_VERDICTS:
                wait.take(reply, time.time())
        for reply in replies:
            self._about_job(reply)

    # --- the connection ---------------------------------------------------------------------------------

    @property
    def options(self) -> ClientOptions:
        """The client options of the connection, looked up once."""
        if self._options is None:
            try:
                self._options = self._read_connection(self.get_connection(self.modelslab_conn_id))
            except AirflowNotFoundException:
                self._options = self._options_from_environment()
                mask_secret(self._options.key)
        return self._options

    async def aoptions(self) -> ClientOptions:
        """Return the client options of the connection, looked up once, without blocking the event loop."""
        if self._options is None:
            try:
                self._options = self._read_connection(await get_async_connection(self.modelslab_conn_id, hook=self))
            except AirflowNotFoundException:
                self._options = self._options_from_environment()
        return self._options

    def balance(self) -> float:
        """
        Return what the account's wallet holds, in its currency.

        :raises AirflowException: ModelsLab does not tell; of an enterprise key, for example, which has no wallet.
        """
        balance = self._balance(self.options, self._session)
        if balance.verdict is not Verdict.SUCCESS:
            raise exception_for(balance.verdict, f"wallet_balance: {balance.message}", self.modelslab_conn_id)
        if balance.amount is None:
            raise ModelsLabRequestError(f"ModelsLab does not tell the balance of connection {self.modelslab_conn_id!r}")
        return balance.amount

    def test_connection(self) -> tuple[bool, str]:
        """Ask for the account's balance, which costs nothing, and say what the answer means."""
        try:
            options, session = self.options, self._session
        except ModelsLabArgumentError as error:
            return False, str(error)
        balance = self._balance(options, session)
        if balance.verdict is Verdict.SUCCESS:
            return True, f"ModelsLab accepts the API key. Balance: {balance.message}"
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

        kinds = {"integer": IntegerField, "string": StringField}
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

    @cached_property
    def _session(self) -> requests.Session:
        from airflow_provider_modelslab._http import sync_transport

        return sync_transport.open_session(self._ssl_context_of(self.options))

    def _balance(self, options: ClientOptions, session: requests.Session) -> Balance:
        from airflow_provider_modelslab._http import sync_transport

        url = api_url("wallet_balance", base_url=options.base_url)
        received = sync_transport.post(session, url, {"key": options.key}, options.request_timeout)
        return read_balance_reply(received, options.key)

    def _read_connection(self, connection: Any) -> ClientOptions:
        with self._connection_errors():
            return read_connection(connection)

    def _connection_errors(self) -> AbstractContextManager[None]:
        return argument_errors(f"Connection {self.modelslab_conn_id!r} cannot be used: ")

    def _ssl_context_of(self, options: ClientOptions) -> ssl.SSLContext | None:
        from airflow_provider_modelslab._http.tls import create_ssl_context

        with self._connection_errors():
            return create_ssl_context(options.ca_bundle) if options.uses_tls else None

    async def _assl_context_of(self, options: ClientOptions) -> ssl.SSLContext | None:
        return await asyncio.to_thread(self._ssl_context_of, options) if options.uses_tls else None

    def _options_from_environment(self) -> ClientOptions:
        """Return the options where the connection is not defined; only the default one has a stand-in."""
        key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if self.modelslab_conn_id != self.default_conn_name:
            raise ModelsLabArgumentError(f"Connection {self.modelslab_conn_id!r} is not defined")
        if not key:
            raise ModelsLabArgumentError(
                f"Connection {self.modelslab_conn_id!r} is not defined, and neither is the environment variable "
                f"{API_KEY_VARIABLE}: add a connection of type {CONNECTION_TYPE!r} with your API key as its password"
            )
        return ClientOptions(key=key)

    def _job(self, job_id: object, endpoint: object) -> Job:
        with argument_errors():
            return Job(id=parse_job_id(job_id), endpoint=parse_endpoint(endpoint))

    def _one_job(self, value: object, endpoint: str | None) -> Job:
        with argument_errors():
            jobs = parse_jobs(value, endpoint, self.options.base_url, self.options.key)
        if len(jobs) != 1:
            raise ModelsLabArgumentError(f"job_id must name one job, not {len(jobs)}: the sensor waits for many")
        return jobs[0]

    def _poll(self, job: Job, options: ClientOptions, session: requests.Session) -> Reply:
        from airflow_provider_modelslab._http import sync_transport

        url, body = fetch_request(job.endpoint, job.id, options.key, options.base_url)
        return self._read(sync_transport.post(session, url, body, options.request_timeout), job, options)

    def _read(self, received: HttpReply | NoReply, job: Job, options: ClientOptions) -> Reply:
        reply = read_fetch_reply(received, job, options.key)
        self.log.debug("Looked at job %s: %s", job, reply.verdict.value)
        return reply

    def _about_job(self, reply: Reply) -> Reply:
        """Return the reply, unless it is about the account: then raise what that means."""
        if reply.verdict in ACCOUNT_VERDICTS:
            raise exception_for(reply.verdict, reply.job.message, self.modelslab_conn_id)
        return reply

    def _fetched(self, reply: Reply) -> Job:
        """Return the job of a poll, or raise where the reply is not about the job."""
        if reply.verdict in (Verdict.TRANSIENT, Verdict.REFUSED):
            raise exception_for(reply.verdict, reply.job.message, self.modelslab_conn_id, reply.retry_after)
        job = self._about_job(reply).job
        return replace(job, status="failed") if reply.verdict is Verdict.NOT_FOUND else job

    def _submitted(self, reply: Reply, path: str) -> Job:
        """Return the job of a submission, or raise where there is none."""
        if reply.verdict in (Verdict.SUCCESS, Verdict.PROCESSING):
            self.log.info("Submitted to %s: job %s, %s, ETA %s s", path, reply.job, reply.job.status, reply.job.eta)
            return replace(reply.job, submitted=round(time.time(), 3))
        if reply.verdict is Verdict.FAILED:
            raise ModelsLabJobFailed(f"The submission to {path} failed: {reply.job.message}", jobs=[reply.job])
        message = f"submission to {path}: {reply.job.message or 'an error without a reason'}"
        if reply.job.id:
            message += f" (the reply names job {reply.job})"
        raise exception_for(reply.verdict, message, self.modelslab_conn_id, reply.retry_after)

    @staticmethod
    def _repeat(options: ClientOptions) -> tenacity.Retrying:
        return tenacity.Retrying(**_retry_policy(options))

    @staticmethod
    def _arepeat(options: ClientOptions) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(**_retry_policy(options))


@dataclass(frozen=True, slots=True)
class _Submission:
    """One submission, free of how it travels."""

    path: str
    payload: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, path: object, payload: object) -> _Submission:
        with argument_errors():
            parsed = parse_submission_path(path)
        if not isinstance(payload, Mapping):
            raise ModelsLabArgumentError(f"payload must be a dict of parameters, not {type(payload).__name__}")
        if payload.get("key"):
            raise ModelsLabArgumentError("payload must not hold 'key': the API key comes from the connection")
        try:
            json.dumps(payload, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelsLabArgumentError(f"payload cannot be sent as JSON: {error}") from None
        return cls(parsed, dict(payload))

    def request(self, options: ClientOptions) -> tuple[str, dict[str, Any], float]:
        url = submission_url(self.path, options.base_url)
        return url, {**self.payload, "key": options.key}, options.request_timeout

    def read(self, received: HttpReply | NoReply, options: ClientOptions) -> Reply:
        return read_submission_reply(received, self.path, options.base_url, options.key)


def check_submission(path: object, payload: object) -> None:
    """
    Refuse what :meth:`ModelsLabHook.submit` would refuse to send.

    :raises ModelsLabArgumentError: the path is none, or the payload is no JSON object without ``key``.
    """
    _Submission.of(path, payload)


def exception_for(verdict: Verdict, message: str, conn_id: str, retry_after: float | None = None) -> AirflowException:
    """
    Return the exception of a verdict that is not about a job: what happened and what to do.

    :param verdict: the verdict.
    :param message: ModelsLab's words, or what the network did.
    :param conn_id: the connection that was used.
    :param retry_after: seconds to stay away, where ModelsLab named them.
    """
    message = message.rstrip(". ")
    if verdict is Verdict.INVALID_KEY:
        return ModelsLabAuthError(
            f"ModelsLab refuses the API key of connection {conn_id!r}: {message}. Put a valid key into the connection; "
            "endpoints under v1/enterprise need the key of their own server"
        )
    if verdict is Verdict.NO_CREDITS:
        return ModelsLabCreditsError(
            f"The ModelsLab account of connection {conn_id!r} has no credits or quota left: {message}. Top it up, "
            "then clear the task"
        )
    if verdict is Verdict.NOT_IN_PLAN:
        return ModelsLabPlanError(
            f"The plan of connection {conn_id!r}'s ModelsLab account does not allow this: {message}. Upgrade the plan "
            "or use another endpoint"
        )
    if verdict is Verdict.REFUSED:
        return ModelsLabRequestError(f"ModelsLab refuses the request: {message}. Correct its parameters")
    if verdict is Verdict.RATE_LIMITED:
        return ModelsLabRateLimited(
            f"ModelsLab takes no further request for now: {message}. Try again in {retry_after or 0:g} s; "
            "nothing was accepted",
            retry_after=retry_after,
        )
    if verdict is Verdict.AMBIGUOUS:
        return ModelsLabAmbiguousSubmission(
            f"This may have been billed: no usable reply to a {message}. ModelsLab may have accepted the job; look "
            "into the account's history before submitting it again"
        )
    return ModelsLabTransientError(f"ModelsLab could not be asked: {message}. Try again later", retry_after=retry_after)


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
