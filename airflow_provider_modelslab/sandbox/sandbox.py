"""
The sandbox as a whole: one object to start, inspect and control, from any thread.

It puts the parts together and guards them with one lock. Requests under ``/sandbox/`` call the same methods; at ``/``
is a page that shows the jobs.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from threading import RLock
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_modelslab.endpoints import parse_submission_path
from airflow_provider_modelslab.sandbox import replies, webhooks
from airflow_provider_modelslab.sandbox.api import ENTERPRISE, STANDARD, Api, ProcessingReplies, is_generation
from airflow_provider_modelslab.sandbox.control_api import PREFIX, ControlApi
from airflow_provider_modelslab.sandbox.faults import FaultPlan, FaultSettings, QueueReply, RequestLimit
from airflow_provider_modelslab.sandbox.http import ReceivedRequest, Reply
from airflow_provider_modelslab.sandbox.page import page
from airflow_provider_modelslab.sandbox.request_log import RequestLog
from airflow_provider_modelslab.sandbox.server import Server
from airflow_provider_modelslab.sandbox.state import FAILED_MESSAGE, FIRST_JOB_ID, Account, Job, Ledger, Pace

logger = logging.getLogger(__name__)

DEFAULT_KEY = "sandbox-key-not-secret"


class Sandbox:
    """
    A stateful stand-in for the ModelsLab API.

    ::

        with Sandbox(duration=float("inf")) as sandbox:
            job = sandbox.submit("v6/video/text2video", {"prompt": "a lighthouse at dusk"})
            ...
            sandbox.finish(job["id"])

    :param host: the address to listen on. On a loopback address, the sandbox refuses requests that name another host or
        come from a web page; on any other address it serves everyone, and logs a warning.
    :param port: the port; 0 for any free one.
    :param key: the API key that clients must send.
    :param enterprise_key: the API key of the enterprise families, which then have their own account, too.
    :param duration: seconds that a job takes; infinite for jobs that end only by :meth:`finish` or :meth:`fail`.
    :param durations: the same by family, where it differs.
    :param duration_sigma: spread of the durations: the standard deviation of their logarithm.
    :param eta_sigma: error of the estimates: the standard deviation of ln(eta / duration); ``None`` for no estimates.
    :param instant: the probability that a job is done before its submission is answered; ``True`` for always.
    :param queue_limit: the queue slots of an account: further submissions get HTTP 429; ``None`` for no limit.
    :param requests_per_second: how many requests the API takes a second, of all clients together; those beyond it get
        HTTP 429. ``None`` for no limit.
    :param retry_after: seconds that rate limits ask a client to wait.
    :param balance: what an account has to spend, in dollars.
    :param processing_replies: what a running job answers: ``"sparse"`` without id and estimate, ``"full"`` like the
        reply to the submission, ``"by_family"`` whichever the family is known for.
    :param faults: faults by name with their probabilities, see :meth:`set_faults`.
    :param slow_seconds: how long the fault ``slow`` delays a reply.
    :param queue_reply: what a full queue answers: its ``"limit"`` with HTTP 429, or, as ``"current_queue"``, how many
        jobs it holds, inside HTTP 200.
    :param webhooks_anywhere: call webhooks on any host; otherwise only on this machine.
    :param first_id: the id of the first job: one sandbox after another, with jobs that must not be mistaken.
    :param seed: seed of all random choices.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = DEFAULT_KEY,
        enterprise_key: str | None = None,
        duration: float = 3.0,
        durations: Mapping[str, float] | None = None,
        duration_sigma: float = 0.0,
        eta_sigma: float | None = 0.2,
        instant: float = 0.0,
        queue_limit: int | None = 15,
        requests_per_second: float | None = None,
        retry_after: int = 30,
        balance: float = 43.6,
        processing_replies: ProcessingReplies = "by_family",
        faults: Mapping[str, float] | None = None,
        slow_seconds: float = 2.0,
        queue_reply: QueueReply = "limit",
        webhooks_anywhere: bool = False,
        first_id: int = FIRST_JOB_ID,
        seed: int = 0,
    ) -> None:
        self.key = key
        self._keys = {STANDARD: key} | ({ENTERPRISE: enterprise_key} if enterprise_key else {})
        self._new_account = partial(Account, balance=balance, queue_limit=queue_limit)
        self._pace = Pace(
            duration=duration,
            durations=durations or {},
            duration_sigma=duration_sigma,
            eta_sigma=eta_sigma,
            instant=instant,
            seed=seed,
        )
        self._fault_settings = FaultSettings(
            retry_after=retry_after, slow_seconds=slow_seconds, queue_reply=queue_reply
        )
        self._processing_replies = processing_replies
        self._requests_per_second = requests_per_second
        self._initial_faults = dict(faults or {})
        self._webhooks_anywhere = webhooks_anywhere
        self._first_id = first_id
        self._seed = seed
        self._skipped = 0.0
        self._lock = RLock()
        self._request_log = RequestLog()
        self._api = self._new_api()
        self._control_api = ControlApi(
            self.state,
            faults=lambda **faults: self.set_faults(faults),
            script=self.script,
            reset=self.reset,
            finish=lambda id=None: self.finish_all() if id is None else self.finish(id),
            fail=lambda id, **message: self.fail(id, **message),
            skip=self.skip,
        )
        self._host = host
        self._serves_others = not webhooks.is_loopback(host)
        self._server = Server(self._respond, host, port)

    def start(self) -> None:
        """
        Listen. A sandbox that was stopped starts again on the same port, with the jobs that it had: an outage.

        :raises OSError: the address is not available, for example because another program listens there.
        """
        self._server.start()
        if self._serves_others:
            logger.warning("This is a test server: anyone who can reach %s can use and control it.", self._host)

    def stop(self) -> None:
        """Close all connections."""
        self._server.stop()

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, for example ``http://127.0.0.1:8787``; known once the sandbox has been started."""
        return self._server.url

    @property
    def connection(self) -> str:
        """The Airflow connection to this sandbox, as JSON: the value for ``AIRFLOW_CONN_MODELSLAB_DEFAULT``."""
        return json.dumps({"conn_type": "modelslab", "host": self.url, "password": self.key})

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest requests, oldest first, without those that control the sandbox."""
        with self._lock:
            return self._request_log.requests()

    @property
    def jobs(self) -> dict[int, Job]:
        """Copies of all submitted jobs by id, oldest first, as they are now."""
        with self._lock:
            return self._api.ledger.jobs

    def state(self) -> dict[str, Any]:
        """
        Return the counters.

        ``requests`` by kind, and how many were ``too_many_requests`` for their second; ``submissions`` accepted and
        rejected, ``jobs`` by status, how many are ``in_flight`` and were at most (``max_in_flight``), and the
        ``balance`` of the standard account.
        """
        with self._lock:
            return self._api.snapshot()

    def submit(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """
        Submit a job without a client: no key is needed, no fault strikes, and no request is recorded.

        :param path: the path of the generation endpoint, for example ``v6/video/text2video``.
        :param payload: the parameters.
        :returns: the reply, as a client would get it; it may be a refusal.
        :raises ValueError: the API has no such generation endpoint.
        """
        path = parse_submission_path(path)
        if not is_generation(path):
            raise ValueError(f"path {path!r} is not a generation endpoint such as 'v6/video/text2video'")
        with self._lock:
            reply = self._api.submit(path, payload, self.url)
        body: dict[str, Any] = json.loads(reply.body)
        return body

    def finish(self, job_id: int | str) -> None:
        """
        End a job now, as it would have ended by itself. One that has ended already stays as it is.

        :raises LookupError: no such job was submitted.
        """
        with self._lock:
            self._api.ledger.finish(self._api.ledger.id_of(job_id))

    def finish_all(self) -> None:
        """End all jobs in flight now, as they would have ended by themselves."""
        with self._lock:
            self._api.ledger.finish_all()

    def skip(self, seconds: float) -> None:
        """
        Move the sandbox's clock on: what takes hours, such as a training, is so much further at once.

        :param seconds: how far.
        :raises ValueError: it is not a number from 0 on.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
            raise ValueError(f"seconds must be a number from 0 on, not {seconds!r}")
        with self._lock:
            self._skipped += seconds
            self._api.ledger.advance()

    def fail(self, job_id: int | str, message: str = FAILED_MESSAGE) -> None:
        """
        End a job now with a failure.

        :param message: what ModelsLab says of it.
        :raises LookupError: no such job was submitted.
        :raises ValueError: it has ended already, or the message is empty.
        """
        with self._lock:
            self._api.ledger.fail(self._api.ledger.id_of(job_id), message)

    def set_faults(self, faults: Mapping[str, float]) -> None:
        """
        Let faults strike by chance from now on: ``failed`` per job, every other one per reply.

        :param faults: probabilities by the names of :data:`airflow_provider_modelslab.sandbox.faults.FAULTS`; these
            replace all earlier ones.
        :raises ValueError: a name is unknown or a number is not a probability.
        """
        with self._lock:
            self._api.faults.set_probabilities(faults)

    def rotate_key(self, key: str) -> None:
        """
        Replace the key, for all but the enterprise families if those have their own.

        :param key: the key that clients must send from now on; :attr:`connection` has it.
        """
        with self._lock:
            self.key = self._keys[STANDARD] = key
            self._api.ledger.accounts[STANDARD].key = key

    def script(self, kind: str, faults: Iterable[str | None]) -> None:
        """
        Say what the next replies of one kind meet, in turn; this replaces what is left of an earlier script.

        :param kind: ``"fetch"`` or ``"submit"``.
        :param faults: names of faults; ``None`` lets a reply pass.
        :raises ValueError: a name is unknown.
        """
        with self._lock:
            self._api.faults.set_script(kind, faults)

    def reset(self) -> None:
        """Forget all jobs, requests and counters, and go back to the faults and the seed of the beginning."""
        with self._lock:
            self._request_log = RequestLog()
            self._api = self._new_api()

    def _new_api(self) -> Api:
        accounts = {name: self._new_account(key=key) for name, key in self._keys.items()}
        faults = FaultPlan(self._seed)
        faults.set_probabilities(self._initial_faults)
        ledger = Ledger(accounts, self._pace, clock=self._now, on_change=self._announce, first_id=self._first_id)
        limit = None if self._requests_per_second is None else RequestLimit(self._requests_per_second)
        return Api(ledger, faults, self._fault_settings, self._processing_replies, limit)

    def _now(self) -> float:
        return time.monotonic() + self._skipped

    def _respond(self, request: ReceivedRequest, base_url: str) -> Reply:
        with self._lock:
            if not self._serves_others and _is_foreign(request):
                return replies.foreign()
            if request.path.partition("?")[0] == "/" and request.method in ("GET", "HEAD"):
                return page(self._api.ledger.jobs, self._api.snapshot(), base_url)
            if request.path.startswith(PREFIX):
                return self._control_api.respond(request)
            self._request_log.add(request)
            return self._api.respond(request, base_url)

    def _announce(self, job: Job) -> None:
        """Call the webhook of a job once it has ended."""
        url = job.request.webhook
        if url is None:
            return
        host = urlsplit(url).hostname
        if not self._server.running:
            logger.warning("Webhook of job %s to %s not sent: the sandbox is not running", job.id, host)
        elif job.status == "processing":
            # A job ends on time even if nobody fetches it; a little later, so that the clock is past its end.
            self._server.call_later(job.duration + 0.002, self._advance)
        elif self._webhooks_anywhere or webhooks.is_loopback(host):
            body = replies.webhook_body(job)
            self._server.spawn(lambda session: webhooks.deliver(session, url, body))
        else:
            logger.warning("Webhook of job %s to %s not sent: only this machine's are called", job.id, host)

    def _advance(self) -> None:
        with self._lock:
            self._api.ledger.advance()


def _is_foreign(request: ReceivedRequest) -> bool:
    """Return whether a request may come from a web page, by DNS rebinding or from another origin."""
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        return True
    return "Origin" in request.headers or not webhooks.is_loopback(host)
