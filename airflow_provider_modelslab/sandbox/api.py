"""
The ModelsLab API as its clients see it: a request goes in, a reply comes out.

Here are the routes, and the order in which a request is checked. No I/O: the server carries the bytes, the ledger
remembers the jobs, the fault plan decides what goes wrong.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from airflow_provider_modelslab.endpoints import (
    FAMILIES,
    GENERATION_ENDPOINTS,
    did_you_mean,
    endpoint_of_submission,
    route_of,
)
from airflow_provider_modelslab.sandbox import long_work, media, replies, uploads
from airflow_provider_modelslab.sandbox.faults import FaultPlan, FaultSettings, RequestLimit
from airflow_provider_modelslab.sandbox.http import ReceivedRequest, Reply, json_reply
from airflow_provider_modelslab.sandbox.state import FAILED_MESSAGE, PRICE, Account, Job, JobRequest, Ledger

STANDARD = "standard"
ENTERPRISE = "enterprise"
"""The names of the accounts. Without one of its own, enterprise is served to the standard account."""

ProcessingReplies = Literal["by_family", "sparse", "full"]

_MAX_SAMPLES = 4

_PIXELS, _MAX_PIXELS = 256, 2048
"""Width and height of a picture where the submission names none that can be, and the largest."""

_KNOWN_ENDPOINTS = GENERATION_ENDPOINTS | {"v6/trainer/train", "v3/lora_fine_tune"}

_NEEDS_PROMPT = re.compile(r".*/text(2|_to_|-to-)\w+")

# A few jobs are fetched under another family than the one they were submitted to, which their replies tell.
_FETCHED_ELSEWHERE = {"v4/dreambooth": "v3/dreambooth"}

# ``v6/images`` is documented with the id in the path as well as in the body.
_BOTH_FORMS = frozenset({"v6/images"})


class _Refused(Exception):
    """The request fails a check; ``reply`` says which."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Api:
    """
    Answers requests.

    :param ledger: the accounts and jobs.
    :param faults: what goes wrong when.
    :param fault_settings: what faults and rate limits tell the client.
    :param processing_replies: what a running job answers: ``sparse``, ``full``, or ``by_family``: as its family does.
    :param request_limit: how many requests are taken; ``None`` for all.
    """

    def __init__(
        self,
        ledger: Ledger,
        faults: FaultPlan,
        fault_settings: FaultSettings,
        processing_replies: ProcessingReplies,
        request_limit: RequestLimit | None = None,
    ) -> None:
        self.ledger = ledger
        self.faults = faults
        self.uploads = uploads.Uploads()
        self._fault_settings = fault_settings
        self._processing_replies = processing_replies
        self._request_limit = request_limit
        self._too_many = 0
        self._requests = {route.kind: 0 for route in _ROUTES} | {"other": 0}
        self._rejected = 0

    def respond(self, request: ReceivedRequest, base_url: str) -> Reply:
        """
        Return the reply to a request.

        :param base_url: scheme and host under which this client sees the sandbox; links in the reply begin with it.
        """
        path = unquote(request.path.partition("?")[0]).removesuffix("/")
        found = _find(path)
        if found is None:
            self._requests["other"] += 1
            return replies.no_such_route(path, did_you_mean(path.removeprefix("/api/"), _KNOWN_ENDPOINTS))
        route, match = found
        self._requests[route.kind] += 1
        if request.method not in route.methods:
            return replies.wrong_method(request.method, path, ", ".join(route.methods))
        try:
            if route.kind != "file":
                self._check_rate(request, route.kind)
            return route.answer(self, request, match, base_url)
        except _Refused as refused:
            return refused.reply

    def submit(self, path: str, parameters: Mapping[str, Any], base_url: str, will_fail: bool = False) -> Reply:
        """
        Return the reply to a submission with the right key that met no fault.

        :param path: the path of the generation endpoint, for example ``v6/video/text2video``.
        :param parameters: the body of the submission; a key in it is dropped.
        :param base_url: begins the links in the reply.
        :param will_fail: the job will fail.
        """
        account = self._account_of(path)
        try:
            if meant := _misspelt(path):
                raise _Refused(replies.no_such_route(f"/api/{path}", f" (did you mean {meant!r}?)"))
            self._check_submission(path, parameters, self.ledger.account(account))
        except _Refused as refused:
            self._rejected += 1
            return refused.reply
        if endpoint := long_work.endpoint_of_start(path):
            return self._start(endpoint, account, parameters, base_url, will_fail)
        endpoint = path if path in FAMILIES else path.rpartition("/")[0]
        fetch_endpoint = _FETCHED_ELSEWHERE.get(path) or endpoint_of_submission(path)
        job_request = JobRequest(
            account=account,
            endpoint=endpoint,
            fetch_endpoint=fetch_endpoint,
            kind=media.kind_of(path, parameters.get("output_type")),
            samples=_samples(parameters),
            base64=parameters.get("base64") in (True, "true", "yes"),
            meta={name: value for name, value in parameters.items() if name != "key"},
            webhook=parameters.get("webhook") or None,
            track_id=parameters.get("track_id"),
            base_url=base_url,
        )
        return _full_reply(self._accept(job_request, will_fail), base_url)

    def _start(
        self, endpoint: str, account: str, parameters: Mapping[str, Any], base_url: str, will_fail: bool
    ) -> Reply:
        """Start a training or the run of a workflow."""
        work = _work_of(endpoint)
        job_request = JobRequest(
            account=account,
            endpoint=endpoint,
            fetch_endpoint=endpoint,
            kind="png",
            samples=1 if endpoint.startswith("v1/workflows/") else 0,
            meta={name: value for name, value in parameters.items() if name != "key"},
            base_url=base_url,
            id_form=work.id_form,
        )
        return work.started(self._accept(job_request, will_fail), base_url)

    def _accept(self, job_request: JobRequest, will_fail: bool) -> Job:
        will_fail = will_fail or self.faults.fails_job(self.ledger.next_id)
        return self.ledger.accept(job_request, failure=FAILED_MESSAGE if will_fail else "")

    def snapshot(self) -> dict[str, Any]:
        """Return the counters."""
        jobs = self.ledger.count()
        return {
            "requests": dict(self._requests),
            "submissions": {"accepted": sum(jobs.values()), "rejected": self._rejected},
            "jobs": jobs,
            "too_many_requests": self._too_many,
            "in_flight": self.ledger.in_flight,
            "max_in_flight": self.ledger.max_in_flight,
            "balance": self.ledger.account(STANDARD).balance,
        }

    def _check_rate(self, request: ReceivedRequest, kind: str) -> None:
        if self._request_limit is None or self._request_limit.admits(request.at):
            return
        self._too_many += 1
        self._rejected += kind == "submit"
        raise _Refused(replies.too_many_requests(self._fault_settings.retry_after))

    def _answer_submission(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        path = match["path"]
        try:
            parameters = self._authenticated(request, path)
        except _Refused:
            self._rejected += 1
            raise
        fault = self.faults.draw("submit")
        if fault is None:
            return self.submit(path, parameters, base_url)
        if not fault.accepted:
            self._rejected += 1
            return fault.reply(Reply(), self._fault_settings)
        return fault.reply(self.submit(path, parameters, base_url, will_fail=fault.fails_job), self._fault_settings)

    def _answer_fetch(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        family, job_id = match["family"], match["id"]
        if not _takes_form(family, "body" if job_id is None else "path"):
            raise _Refused(replies.no_such_route(match[0]))
        parameters = self._authenticated(request, family)
        if job_id is None:
            job_id = parameters.get("request_id")
            if isinstance(job_id, bool) or not isinstance(job_id, (int, str)):
                raise _Refused(replies.error({"request_id": ["The request id field is required."]}))
        job = self.ledger.find(family, str(job_id))
        return self._with_faults(job, lambda: self._fetch_reply(job, family, base_url))

    def _with_faults(self, job: Job | None, due: Callable[[], Reply]) -> Reply:
        """Return the reply to a poll of a job, or what a fault makes of it."""
        fault = self.faults.draw("fetch", age=self.ledger.age(job) if job else 0.0)
        if fault is None:
            return due()
        if fault.fails_job and job and job.status == "processing":
            self.ledger.fail(job.id)
        return fault.reply(due(), self._fault_settings)

    def _answer_state(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        endpoint = match["endpoint"].replace("fine_tune_status", "lora_fine_tune")
        self._authenticated(request, endpoint)
        job = self.ledger.find(endpoint, match["id"])
        work = _work_of(endpoint)

        def due() -> Reply:
            if job is None:
                return long_work.not_found("Execution" if work.key_in == "header" else "Training request")
            return work.state(job, self.ledger.share_done(job), base_url)

        return self._with_faults(job, due)

    def _answer_stop(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        parameters = self._authenticated(request, "v6/trainer")
        return self._stop("v6/trainer", str(parameters.get("training_id")), "Training request", "training stopped")

    def _answer_cancel(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        self._authenticated(request, match["endpoint"])
        return self._stop(match["endpoint"], match["id"], "Execution", "Execution cancelled.")

    def _stop(self, endpoint: str, job_id: str, what: str, message: str) -> Reply:
        job = self.ledger.find(endpoint, job_id)
        if job is None:
            return long_work.not_found(what)
        if job.status != "processing":
            return replies.error(f"{what.partition(' ')[0]} has already finished.", 400)
        self.ledger.stop(job.id)
        return long_work.stopped(message)

    def _answer_upload(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        parameters = self._authenticated(request, match[0])
        data = uploads.decode(parameters.get("base64_string"))
        if data is None:
            return replies.error({"base64_string": ["The base64 string must be valid base64."]})
        if len(data.body) > uploads.MAX_BYTES:
            return replies.error("The file must not be greater than 5 MB.", 400)
        name = self.uploads.add(data)
        return json_reply({"status": "success", "id": len(self.uploads), "output": [f"{base_url}/files/{name}"]})

    def _answer_uploaded(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        data = self.uploads.find(match["name"])
        if data is None:
            raise _Refused(replies.no_such_route(match[0]))
        return Reply(body=data.body, content_type=data.content_type)

    def _answer_wallet_balance(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        self._authenticated(request, match[0])
        return replies.wallet_balance(self.ledger.account(STANDARD))

    def _answer_request_count(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        self._authenticated(request, match[0])
        return replies.request_count(self.ledger.account(STANDARD))

    def _answer_assets(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        parameters = self._authenticated(request, match[0])
        kinds = _KINDS_OF_ASSETS.get(str(parameters.get("type")))
        per_page, page = _whole(parameters.get("per_page"), 10), _whole(parameters.get("page"), 1)
        if kinds is None or not 1 <= per_page <= _MAX_PER_PAGE or page < 1:
            return replies.error({"type": ["The type, per_page or page is invalid."]})
        jobs = reversed(self.ledger.jobs.values())
        made = [job for job in jobs if job.status == "success" and job.request.kind in kinds]
        return replies.assets_generated(made[(page - 1) * per_page :][:per_page], base_url)

    def _answer_file(self, request: ReceivedRequest, match: re.Match[str], base_url: str) -> Reply:
        job = self.ledger.find_by_token(match["token"])
        # Clients get the links with the submission; the files exist once the job is done.
        if job is None or job.status != "success" or match[0] not in _file_paths(job):
            raise _Refused(replies.no_such_route(match[0]))
        wanted = job.request.meta
        seed, prompt = f"{job.token}-{match['index']}", str(wanted.get("prompt", ""))
        body = media.make(job.request.kind, seed, _size(wanted), prompt)
        if job.request.base64:
            return Reply(body=base64.b64encode(body), content_type="text/plain")
        # The page at "/" shows hundreds of pictures again every few seconds.
        return Reply(body=body, content_type=media.CONTENT_TYPES[job.request.kind], max_age=60)

    def _authenticated(self, request: ReceivedRequest, path: str) -> Mapping[str, Any]:
        """Return the body of a request; it, or a header, must hold the key of the path's account."""
        in_header = path.startswith("v1/workflows/")
        body = request.json if request.body or not in_header else {}
        if not isinstance(body, dict):
            raise _Refused(replies.invalid_request())
        key = request.headers.get("key") if in_header else body.get("key")
        if key != self.ledger.accounts[self._account_of(path)].key:
            raise _Refused(replies.invalid_key(given=bool(key)))
        return body

    def _account_of(self, path: str) -> str:
        enterprise = ENTERPRISE in self.ledger.accounts and f"{path}/".startswith("v1/enterprise/")
        return ENTERPRISE if enterprise else STANDARD

    def _check_submission(self, path: str, parameters: Mapping[str, Any], account: Account) -> None:
        if wrong := _wrong_parameters(path, parameters):
            raise _Refused(replies.error(wrong))
        if account.queue_limit is not None and account.in_flight >= account.queue_limit:
            if self._fault_settings.queue_reply == "current_queue":
                raise _Refused(replies.queue_full(account.in_flight))
            raise _Refused(replies.rate_limited(account.queue_limit, self._fault_settings.retry_after))
        if account.balance < PRICE:
            raise _Refused(replies.insufficient_credits())

    def _fetch_reply(self, job: Job | None, family: str, base_url: str) -> Reply:
        """Return the reply of a family to a fetch."""
        if job is None:
            return replies.not_found()
        full = {"full": True, "sparse": False, "by_family": not _takes_form(family, "body")}[self._processing_replies]
        if full or job.status == "failed":
            return _full_reply(job, base_url)
        if job.status == "processing":
            return replies.still_processing("messege" if family == "v6/images" else "message")
        return replies.success(job, base_url, full=False)


_MAX_PER_PAGE = 30

_KINDS_OF_ASSETS = {
    "image": ("png", "jpg"),
    "video": ("mp4", "gif"),
    "voice": ("wav", "txt"),
    "3d": ("glb",),
}
"""The kinds of files, by the ``type`` that ``assets_generated`` takes."""


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def is_generation(path: str) -> bool:
    """Return whether a path, for example ``v6/video/text2video``, is that of a generation endpoint."""
    found = _find(f"/api/{path}")
    return found is not None and found[0].kind == "submit"


def _size(parameters: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of the pictures that a submission asks for; ``None`` where it names neither."""
    if parameters.keys().isdisjoint({"width", "height"}):
        return None
    return _pixels(parameters.get("width")), _pixels(parameters.get("height"))


def _pixels(value: object) -> int:
    try:
        wish = int(float(value)) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0
    except (ValueError, OverflowError):
        return _PIXELS
    return min(wish, _MAX_PIXELS) if wish > 0 else _PIXELS


def _misspelt(path: str) -> str:
    """
    Return the generation endpoint that a path certainly means; empty where the path may be right.

    Endpoints that are not known are served: new ones appear every few months, as do new versions.
    """
    if path in _KNOWN_ENDPOINTS | FAMILIES:
        return ""
    version = path.partition("/")[0]
    same_version = {_plain(known): known for known in _KNOWN_ENDPOINTS if known.startswith(f"{version}/")}
    near = difflib.get_close_matches(_plain(path[:100]), same_version, n=1, cutoff=0.9)
    return "".join(same_version[each] for each in near)


def _plain(path: str) -> str:
    """Return a path without what is spelt in several ways: ``text2img`` and ``text-to-image`` are the same."""
    return re.sub(r"[-_]?(to|2)[-_]?", "2", path.lower()).replace("image", "img").replace("-", "_")


def _full_reply(job: Job, base_url: str) -> Reply:
    if job.status == "processing":
        return replies.queued(job, base_url)
    if job.status == "failed":
        return replies.failed(job.failure)
    return replies.success(job, base_url, full=True)


def _takes_form(family: str, form: Literal["path", "body"]) -> bool:
    return family in _BOTH_FORMS or route_of(family).id_in == form


def _file_paths(job: Job) -> list[str]:
    return [url for folder in ("generations", "proxy") for url in replies.output_urls(job, "", folder)]


def _samples(parameters: Mapping[str, Any]) -> int:
    return int(parameters.get("samples") or parameters.get("num_outputs") or 1)


def _wrong_parameters(path: str, parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what is wrong with the parameters of a submission, by parameter, as the API words it."""
    wrong = {}
    if _NEEDS_PROMPT.fullmatch(path) and not parameters.get("prompt"):
        wrong["prompt"] = ["The prompt field is required."]
    try:
        if not 1 <= _samples(parameters) <= _MAX_SAMPLES:
            wrong["samples"] = [f"The samples must be between 1 and {_MAX_SAMPLES}."]
    except (TypeError, ValueError, OverflowError):
        wrong["samples"] = ["The samples must be an integer."]
    if parameters.get("webhook") and not _is_web_address(parameters["webhook"]):
        wrong["webhook"] = ["The webhook must be a valid URL."]
    return wrong


def _is_web_address(value: object) -> bool:
    try:
        return isinstance(value, str) and urlsplit(value).scheme in ("http", "https")
    except ValueError:
        return False


@dataclass(frozen=True)
class _Route:
    kind: str
    pattern: re.Pattern[str]
    methods: tuple[str, ...]
    answer: Callable[[Api, ReceivedRequest, re.Match[str], str], Reply]


_FAMILY = r"v\d+(?:/[^/]+)*"
_GENERATION = r"v[345]/[^/]+|v\d+/[^/]+/[^/]+|v1/enterprise/[^/]+/[^/]+"
_WORKFLOW = r"v1/workflows/[^/]+"
_FILE = r"(?P<token>[0-9a-f-]{36})-(?P<index>\d)\.\w+"

# The first that fits: what ends in ``/fetch`` is never a generation.
_ROUTES = [
    _Route(kind, re.compile(pattern), methods, answer)
    for kind, pattern, methods, answer in (
        ("file", rf"/files/\w+/{_FILE}", ("GET", "HEAD"), Api._answer_file),
        ("account", r"/api/wallet_balance", ("POST",), Api._answer_wallet_balance),
        ("account", r"/api/v6/processing/request_count", ("POST",), Api._answer_request_count),
        ("account", r"/api/(?:v6/)?assets_generated", ("POST",), Api._answer_assets),
        ("upload", r"/api/v6/base64_to_url", ("POST",), Api._answer_upload),
        ("file", r"/files/(?P<name>uploads/[^/]+)", ("GET", "HEAD"), Api._answer_uploaded),
        ("fetch", r"/api/(?P<endpoint>v6/trainer)/status/(?P<id>[^/]+)", ("POST",), Api._answer_state),
        ("fetch", r"/api/(?P<endpoint>v3/fine_tune_status)/(?P<id>[^/]+)", ("POST",), Api._answer_state),
        ("fetch", rf"/api/(?P<endpoint>{_WORKFLOW})/runs/(?P<id>[^/]+)", ("GET",), Api._answer_state),
        ("cancel", r"/api/v6/trainer/stop", ("POST",), Api._answer_stop),
        ("cancel", rf"/api/(?P<endpoint>{_WORKFLOW})/runs/(?P<id>[^/]+)/cancel", ("POST",), Api._answer_cancel),
        ("submit", rf"/api/(?P<path>{_WORKFLOW}/run)", ("POST",), Api._answer_submission),
        ("fetch", rf"/api/(?P<family>{_FAMILY})/fetch(?:/(?P<id>[^/]+))?", ("POST",), Api._answer_fetch),
        ("submit", rf"/api/(?P<path>{_GENERATION})", ("POST",), Api._answer_submission),
    )
]


def _work_of(endpoint: str) -> long_work.Work:
    work = long_work.work_of(endpoint)
    if work is None:
        raise LookupError(f"{endpoint} is no endpoint of a training or of a workflow")
    return work


def _find(path: str) -> tuple[_Route, re.Match[str]] | None:
    matches = ((route, route.pattern.fullmatch(path)) for route in _ROUTES)
    return next(((route, match) for route, match in matches if match), None)
