"""
What ModelsLab's replies mean: the only place that knows their shapes.

A reply goes in as bytes and comes out as a :class:`Reply`, which is a verdict and the job as it now stands.
Everything here is pure and total: no I/O, no Airflow, and no input makes it raise. How often an inconclusive
verdict may be repeated before it counts is not decided here but in :mod:`airflow_provider_modelslab._polling.waits`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_modelslab._protocol.formatting import one_line
from airflow_provider_modelslab._protocol.ids import further_ids, named_id
from airflow_provider_modelslab._protocol.kinds import read_started, read_state
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply
from airflow_provider_modelslab._protocol.outputs import find_copies, find_future_links, find_other_links, find_outputs
from airflow_provider_modelslab._protocol.phrases import (
    complains_of_parameters,
    pause_in,
    says_that_nothing_was_accepted,
    slots_in,
    verdict_of,
)
from airflow_provider_modelslab._protocol.sanitizing import parse_json, sanitize
from airflow_provider_modelslab._protocol.shortening import MAX_LINKS, MAX_META, fitting, shorten_fields
from airflow_provider_modelslab._protocol.verdicts import ACCOUNT_VERDICTS
from airflow_provider_modelslab._protocol.verdicts import Verdict as Verdict
from airflow_provider_modelslab.endpoints import (
    MODELSLAB,
    JobAddress,
    endpoint_of_submission,
    parse_fetch_url,
    parse_job_id,
    route_of,
)
from airflow_provider_modelslab.jobs import Job, JobStatus

RATE_LIMIT_PAUSE = 30.0
"""Seconds to pause after a rate limit that names no time of its own."""

LONGEST_PAUSE = 3600.0
"""Seconds to pause at the most: a broken proxy that asks for more must not silence an account for ever."""

_LONGEST_ETA = 7 * 86400.0
"""A longer estimate cannot be meant."""

_MOST_SLOTS = 10_000
"""A longer queue is none that an account has."""

MAX_MESSAGE_LENGTH = 2000
"""Characters of an error text that are kept: it ends up in logs and in the metadata database."""


MAX_OUTPUTS = 1000
"""Outputs of one job, of which the largest batches have a few dozen: a reply that names more is a broken one."""


@dataclass(slots=True)  # a frozen one takes three times as long to make, and there is one for each poll
class Reply:
    """
    A reply that has been read.

    :param verdict: what it says.
    :param job: the job after it.
    :param retry_after: seconds that ModelsLab asks to pause, or ``None``.
    :param http_status: the HTTP status code, or ``None`` where no reply came.
    :param queue_slots: of a rate limit, how many jobs the account's queue holds, where the reply names a number.
    """

    verdict: Verdict
    job: Job
    retry_after: float | None = None
    http_status: int | None = None
    queue_slots: int | None = None


def read_fetch_reply(received: HttpReply | NoReply, job: Job, key: str = "") -> Reply:
    """
    Read the reply to a fetch request.

    :param received: what came over the wire.
    :param job: the job that was asked for.
    :param key: the API key, which is taken out of everything that is kept.
    """
    if isinstance(received, NoReply):
        return Reply(Verdict.TRANSIENT, _about(job, received.reason, key))
    if redirected := _redirected(received):
        return _reply(Verdict.TRANSIENT, _about(job, redirected, key), received, {})
    document = parse_json(received.body, key)
    if document is None:
        # A proxy or a firewall answers with a page, and any status: that is no answer of ModelsLab's, and it may pass.
        verdict = Verdict.TRANSIENT if _is_page(received) else _WITHOUT_JSON.get(received.status, Verdict.TRANSIENT)
        status: JobStatus = "failed" if verdict is Verdict.REFUSED else job.status
        return _reply(verdict, replace(_about(job, _not_json(received), key), status=status), received, {})
    document = read_state(job.endpoint, job.id, document)
    verdict = _verdict(received.status, document)
    if verdict in (Verdict.SUCCESS, Verdict.FAILED) and (other := _other_id(document, job)):
        return _reply(Verdict.TRANSIENT, _about(job, f"the reply is about another job, {other}", key), received, {})
    return _reply(verdict, _job_after(job, verdict, document, received.status), received, document)


def read_submission_reply(
    received: HttpReply | NoReply, path: str, base_url: str | None = None, key: str = ""
) -> Reply:
    """
    Read the reply to a submission.

    :param received: what came over the wire.
    :param path: the path of the generation endpoint that was called, for example ``v6/video/text2video``.
    :param base_url: the connection's own base URL, where it has one.
    :param key: the API key, which is taken out of everything that is kept.
    :return: a reply whose job says where to fetch it. ``AMBIGUOUS`` where the job may have been accepted,
        and billed, but cannot be told from the reply, whose ids the job has; ``TRANSIENT`` only where it certainly was
        not.
    """
    endpoint = endpoint_of_submission(path)
    # An id is known where it was made, which for bare ids of older families is not the host of their pages.
    unknown = Job(id="", endpoint=endpoint, host="" if route_of(endpoint).host == MODELSLAB else MODELSLAB)
    if isinstance(received, NoReply):
        verdict = Verdict.AMBIGUOUS if received.sent else Verdict.TRANSIENT
        return Reply(verdict, _about(unknown, received.reason, key))
    if redirected := _redirected(received):
        return _reply(Verdict.AMBIGUOUS, _about(unknown, redirected, key), received, {})
    document = parse_json(received.body, key)
    if document is None:
        verdict = _WITHOUT_JSON.get(received.status, Verdict.AMBIGUOUS)
        return _reply(verdict, _about(unknown, _not_json(received), key), received, {})
    document = read_started(path, document)
    verdict = _submission_verdict(received.status, document)
    job = _job_after(_addressed(unknown, document, base_url), verdict, document, received.status)
    if verdict is Verdict.PROCESSING and not job.id:
        if voice_id := _text(document.get("voice_id")):  # v6/voice/voice_upload is done at once: that is its result
            return _reply(Verdict.SUCCESS, replace(job, status="success", outputs=[voice_id]), received, document)
        message = f"the reply names no job that can be polled; {_fields_of(document)}"
        return _reply(Verdict.AMBIGUOUS, replace(job, message=message), received, document)
    if verdict in (Verdict.RATE_LIMITED, *ACCOUNT_VERDICTS) and job.id:
        verdict = Verdict.AMBIGUOUS  # A refusal that names a job may be none: it must not be submitted again.
    return _reply(verdict, job, received, document)


@dataclass(frozen=True, slots=True)
class Balance:
    """
    What the account's wallet answered.

    :param verdict: ``SUCCESS``, or why there is no balance.
    :param message: the balance or ModelsLab's words, for a person.
    :param amount: the balance, or ``None``.
    """

    verdict: Verdict
    message: str
    amount: float | None = None


def read_balance_reply(received: HttpReply | NoReply, key: str = "") -> Balance:
    """
    Read the reply of ``wallet_balance``.

    :param received: what came over the wire.
    :param key: the API key, which is taken out of everything that is kept.
    """
    reply = read_fetch_reply(received, Job(id="", endpoint="wallet_balance"), key)
    if reply.verdict is not Verdict.NO_OUTPUT or isinstance(received, NoReply):
        return Balance(reply.verdict, reply.job.message or f"HTTP {reply.http_status} without a reason")
    data = (parse_json(received.body, key) or {}).get("data")
    amount = _number(data.get("balance")) if isinstance(data, dict) else None
    if not isinstance(data, dict) or amount is None:
        return Balance(Verdict.SUCCESS, "unknown")
    return Balance(Verdict.SUCCESS, f"{amount:g} {_text(data.get('currency'))}".strip(), amount)


def read_count_reply(received: HttpReply | NoReply, key: str = "") -> int | None:
    """
    Read the reply of ``v6/processing/request_count``: how many of the account's requests are in flight, or ``None``.

    :param received: what came over the wire.
    :param key: the API key.
    """
    document = None if isinstance(received, NoReply) or received.status != 200 else parse_json(received.body, key)
    count = _number((document or {}).get("processing_count"), _MOST_SLOTS)
    return None if count is None else int(count)


def job_of_reply(reply: Mapping[str, Any], endpoint: str | None, base_url: str | None = None) -> Job:
    """
    Return the job of a submission reply that another client received, for example a plain HTTP task.

    :param reply: the reply's JSON object, as :func:`sanitize` returns it.
    :param endpoint: the family to assume where the reply has no ``fetch_result``.
    :param base_url: the connection's own base URL, where it has one.
    :raises ValueError: the reply does not say which job it is about, names too many outputs, or its ``fetch_result``
        points to a host that the key must not be sent to. (The exception to this module's rule: a user's argument is
        refused, not interpreted.)
    """
    document = dict(reply)
    if _names_too_many_outputs(document):
        raise ValueError(_TOO_MANY_OUTPUTS)
    address = parse_fetch_url(document["fetch_result"], base_url) if document.get("fetch_result") else None
    if document.get("id") not in (None, ""):
        parse_job_id(document["id"])
    job = _identified(Job(id="", endpoint=endpoint or ""), document, address)
    job_id, endpoint = job.id or None, job.endpoint or None
    if _text(document.get("status")).lower() in _ERROR_WORDS:
        return _job_after(job, Verdict.FAILED, document, 200)
    if _verdict(200, document) is Verdict.SUCCESS:
        return _job_after(job, Verdict.SUCCESS, document, 200)
    if job_id is None and address is not None:
        raise ValueError("its fetch_result ends without the job's id: append it, or pass the id with endpoint=")
    if job_id is None:
        raise ValueError(f"a job has neither an 'id' nor a 'fetch_result': its keys are {sorted(document)!s:.200}")
    if endpoint is None:
        raise ValueError(f"job {job_id} does not say its endpoint: pass endpoint=, for example endpoint='v6/video'")
    return _job_after(job, Verdict.PROCESSING, document, 200)


# --- verdicts -------------------------------------------------------------------------------------------

# What the status alone says, with any body; repeating cannot help with any of these.
_BY_HTTP_STATUS = {
    400: Verdict.REFUSED,
    401: Verdict.INVALID_KEY,
    402: Verdict.NO_CREDITS,
    403: Verdict.NOT_IN_PLAN,
    422: Verdict.REFUSED,
}

_WITHOUT_JSON = {**_BY_HTTP_STATUS, 429: Verdict.RATE_LIMITED}

_TRANSIENT_HTTP_STATUSES = frozenset({408, 425})

# A submission has no earlier job that an inconclusive reply could be about.
_SUBMISSION_VERDICTS = {
    Verdict.NO_OUTPUT: Verdict.PROCESSING,
    Verdict.NOT_FOUND: Verdict.REFUSED,
    Verdict.EMPTY_ERROR: Verdict.AMBIGUOUS,
    Verdict.TRANSIENT: Verdict.AMBIGUOUS,
}

_ERROR_WORDS = frozenset({"error", "failed"})

_MESSAGE_FIELDS = ("message", "messege", "error", "error_code")
_HINT_FIELDS = ("warning", "tip", "tips")
_DETAILS_FIELD = "errors"  # Laravel: what is wrong, by parameter, beside a message


def _verdict(http_status: int, document: dict[str, Any]) -> Verdict:
    if http_status in _BY_HTTP_STATUS:
        return _BY_HTTP_STATUS[http_status]
    if http_status == 429:
        return Verdict.RATE_LIMITED
    if http_status in _TRANSIENT_HTTP_STATUSES or not (200 <= http_status < 300 or 400 <= http_status < 500):
        return Verdict.TRANSIENT
    word = _text(document.get("status")).lower()
    if word in _ERROR_WORDS:
        return _error_verdict(word, document)
    if http_status == 404:
        return Verdict.NOT_FOUND
    if http_status >= 400:
        return Verdict.REFUSED
    if word == "success":
        if _names_too_many_outputs(document):
            return Verdict.TRANSIENT
        return Verdict.SUCCESS if find_outputs(document) else Verdict.NO_OUTPUT
    return Verdict.PROCESSING


_TOO_MANY_OUTPUTS = f"the reply names more than {MAX_OUTPUTS} outputs, and no job has so many"


def _names_too_many_outputs(document: dict[str, Any]) -> bool:
    return any(len(find(document)) > MAX_OUTPUTS for find in (find_outputs, find_copies, find_other_links))


def _submission_verdict(http_status: int, document: dict[str, Any]) -> Verdict:
    verdict = _verdict(http_status, document)
    message = next(iter(_messages(document)), _error_text(document))
    if http_status >= 500 and (_is_validation(document) or says_that_nothing_was_accepted(message)):
        verdict = _error_verdict("error", document)
    complaint = http_status >= 400 or _is_validation(document) or complains_of_parameters(message)
    if verdict is Verdict.FAILED and complaint:
        return Verdict.REFUSED
    return _SUBMISSION_VERDICTS.get(verdict, verdict)


def _error_verdict(word: str, document: dict[str, Any]) -> Verdict:
    if _is_validation(document):  # It quotes what was sent, so no word of it counts.
        return Verdict.FAILED
    messages = _messages(document)
    # Hints are marketing as often as not: they count only where there is no message.
    told = next(filter(None, map(verdict_of, messages or _texts(document, _HINT_FIELDS))), None)
    if word == "failed":  # This is about the job: its message may quote anything.
        return Verdict.NOT_FOUND if told is Verdict.NOT_FOUND else Verdict.FAILED
    if told is not None:
        return told
    if "current_queue" in document:
        return Verdict.RATE_LIMITED
    # An empty message is what running jobs answer now and then; that some marketing "tip" stands beside it
    # does not change that. Where there is no message at all, the tip is the message.
    says_nothing = not messages and any(name in document for name in _MESSAGE_FIELDS)
    return Verdict.EMPTY_ERROR if says_nothing or not _error_text(document) else Verdict.FAILED


def _is_validation(document: dict[str, Any]) -> bool:
    """Whether a reply says of single parameters what is wrong: ``{"prompt": ["The prompt field is required."]}``."""
    told = (document.get(name) for name in (*_MESSAGE_FIELDS, _DETAILS_FIELD))
    messages = (each for value in told for each in (value if isinstance(value, list) else [value]))
    return any(isinstance(each, dict) and any(map(_is_complaint, each.values())) for each in messages)


def _is_complaint(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and complains_of_parameters(value))


# --- jobs -----------------------------------------------------------------------------------------------


def _job_after(job: Job, verdict: Verdict, document: dict[str, Any], http_status: int) -> Job:
    """Return the job as a document leaves it: only success and failure end it."""
    outputs = find_outputs(document) if verdict is Verdict.SUCCESS else []
    told = replace(
        job,
        # Sparse replies leave out what earlier ones told.
        eta=_number(document["eta"], _LONGEST_ETA) if "eta" in document else job.eta,
        message=_error_text(document),
        proxy_links=_copies(document, len(outputs)) or job.proxy_links,
        future_links=fitting(find_future_links(document), MAX_LINKS) or job.future_links,
        nsfw_content_detected=_flags(document.get("nsfw_content_detected"), len(outputs)),
        generation_time=_number(document.get("generationTime", document.get("generation_time"))),
        meta=shorten_fields(document["meta"], MAX_META) if isinstance(document.get("meta"), dict) else job.meta,
    )
    if verdict is Verdict.PROCESSING and told == job:
        return job  # most replies tell nothing new, and thousands of waits need not each keep a copy
    if verdict is Verdict.SUCCESS:
        return replace(
            told,
            status="success",
            outputs=outputs,
            # What is known now does not depend on whether an earlier reply has foretold it.
            future_links=[link for link in told.future_links if link not in outputs],
            other_links=fitting(find_other_links(document), MAX_LINKS),
            ids={**job.ids, **further_ids(document, _known_ids(job, document))},
            eta=None,
            message="",
        )
    if verdict in (Verdict.FAILED, Verdict.REFUSED):
        return told.failed(told.message or f"HTTP {http_status} without a reason")
    if 200 <= http_status < 300 and _text(document.get("status")).lower() == "success":
        # A success that cannot be used says what it is made of.
        unusable = _TOO_MANY_OUTPUTS if _names_too_many_outputs(document) else _fields_of(document)
        return replace(told, message=f"{told.message} ({unusable})"[:MAX_MESSAGE_LENGTH] if told.message else unusable)
    return told


def _addressed(job: Job, document: dict[str, Any], base_url: str | None) -> Job:
    """
    Return the job with the address that its submission reply names.

    The reply has been paid for: where its ``fetch_result`` is unusable, its ids still serve.
    """
    try:
        address = parse_fetch_url(document.get("fetch_result"), base_url)
    except ValueError:
        address = None
    return _identified(job, document, address)


def _identified(job: Job, document: dict[str, Any], address: JobAddress | None) -> Job:
    """Return the job with the ids of its submission reply, and with the address of its ``fetch_result``, if usable."""
    if address is not None:
        job = replace(job, endpoint=address.endpoint, host=address.host, id_in=address.id_in)
    job_id = address.job_id if address is not None else None
    job = replace(job, id=job_id or named_id(document))
    job = replace(job, reply_id=_second_id(document, job.id))
    known = {named_id(document, "id"), job_id, *([document.get("fetch_result")] if address is not None else ())}
    return replace(job, ids=further_ids(document, known))


def _known_ids(job: Job, document: dict[str, Any]) -> set[str]:
    """Return the ids of a job that need not be kept again, and its own address."""
    fetch_result = _text(document.get("fetch_result"))
    its_own = {fetch_result} if fetch_result.endswith(f"/{job.id}") else set()
    return {job.id, job.reply_id, *job.ids.values(), *its_own}


def _second_id(document: dict[str, Any], job_id: str) -> str:
    """Return the ``id`` of a reply where it is another one than that by which its job is fetched."""
    named = named_id(document, "id")
    return "" if named == job_id else named


def _other_id(document: dict[str, Any], job: Job) -> str:
    """
    Return the id of another job that a reply is about; empty where it is about this one, or does not say.

    A job may have several ids, in ``id``, ``request_id`` and ``fetch_result``: one that fits is enough.
    """
    in_url = _text(document.get("fetch_result")).rstrip("/").rpartition("/")[2]
    if job.id in ("", in_url, named_id(document, "request_id")):
        return ""
    if job.id == job.ids.get("request_id"):
        return ""  # The submission's reply had no ``id``: which one the others have is not known.
    named = _second_id(document, job.id)
    # 0 stands for none, and one and the same UUID comes in small and in capital letters.
    return "" if named.lower() in ("0", job.reply_id.lower(), job.id.lower()) else named


def _about(job: Job, message: str, key: str) -> Job:
    """Return the job unchanged but for the words that come with this poll."""
    return replace(job, message=one_line(sanitize(message, key))[:MAX_MESSAGE_LENGTH])


def _reply(verdict: Verdict, job: Job, received: HttpReply, document: dict[str, Any]) -> Reply:
    asked = document.get("retry_after")
    pause = _number(asked)
    if pause is None and isinstance(asked, str):
        pause = pause_in(f"wait {asked.strip()}")  # "60s"
    if pause is None:
        pause = received.retry_after
    if verdict is not Verdict.RATE_LIMITED and received.status != 429:
        return Reply(verdict, job, None if pause is None else min(pause, LONGEST_PAUSE), received.status)
    words = " ".join(_texts(document, (*_MESSAGE_FIELDS, *_HINT_FIELDS))) if document else _plain_text(received)
    if pause is None:
        pause = pause_in(words)
    pause = min(RATE_LIMIT_PAUSE if pause is None else pause, LONGEST_PAUSE)
    slots = slots_in(words) or int(_number(document.get("current_queue"), _MOST_SLOTS) or 0)
    return Reply(verdict, job, pause, received.status, slots or None)


# --- values ---------------------------------------------------------------------------------------------


def _not_json(received: HttpReply) -> str:
    """Describe a body that is not a JSON object; its text is a stranger's, so only its kind is told."""
    kind = "nothing" if not received.body else "an HTML page" if _is_page(received) else "something that is not JSON"
    return f"HTTP {received.status} with {kind}"


def _is_page(received: HttpReply) -> bool:
    return received.body[:64].lstrip().startswith(b"<")


def _plain_text(received: HttpReply) -> str:
    """Return the beginning of a body that is neither JSON nor a page, to look for a time in it."""
    return "" if _is_page(received) else received.body[:MAX_MESSAGE_LENGTH].decode("utf-8", "replace")


def _redirected(received: HttpReply) -> str:
    """Say where a redirect leads to, which no request follows; empty for all else."""
    try:
        target = urlsplit(received.location)
    except ValueError:
        return ""
    if not 300 <= received.status < 400 or not target.hostname or target.scheme not in ("http", "https", ""):
        return ""
    site = f"{target.scheme or 'https'}://{target.netloc.rpartition('@')[2]}"[:200]
    return (
        f"HTTP {received.status} leads to {site}, where no request follows: if ModelsLab answers there now, put that "
        "address into the connection's field 'host'"
    )


def _fields_of(document: dict[str, Any]) -> str:
    """Say which fields a reply has that cannot be used."""
    return one_line(f"the fields of the reply: {', '.join(sorted(document)) or 'none'}")[:MAX_MESSAGE_LENGTH]


def _error_text(document: dict[str, Any]) -> str:
    """Return the words of a reply, from the first field that holds any, with what they leave out of the details."""
    text = next(iter(_texts(document, (*_MESSAGE_FIELDS, *_HINT_FIELDS))), "")
    details = _text(document.get(_DETAILS_FIELD))
    return text if text and text in details else f"{text} {details}".strip()[:MAX_MESSAGE_LENGTH]


def _texts(document: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Return what stands in some fields, without those that hold no words."""
    return [text for name in names if (text := _text(document.get(name)))]


def _messages(document: dict[str, Any]) -> list[str]:
    """Return the messages of a reply; of an error that is an object, ``{"code": 429, "message": "…"}``, its own."""
    messages = []
    for name in _MESSAGE_FIELDS:
        value = document.get(name)
        own = _texts(value, _MESSAGE_FIELDS) if isinstance(value, dict) else []
        messages += own or _texts(document, [name])
    return messages


def _text(value: Any) -> str:
    """Return a text, or lists and dicts of texts, as one harmless line, as people read them."""
    return one_line(_flat(value))


def _flat(value: Any) -> str:
    """Flatten lists and dicts of texts: ``{"prompt": ["none"]}`` is ``prompt: none``."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return value[:MAX_MESSAGE_LENGTH]
    if isinstance(value, dict):
        flat = "; ".join(f"{name}: {text}" for name, item in value.items() if (text := _flat(item)))
    elif isinstance(value, list):
        flat = " ".join(filter(None, map(_flat, value)))
    else:
        flat = str(value)
    return flat[:MAX_MESSAGE_LENGTH]


def _number(value: Any, most: float = sys.float_info.max) -> float | None:
    """Return a number from 0 to ``most``, which may stand in a string; ``None`` for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= most else None


def _copies(document: dict[str, Any], outputs: int) -> list[str]:
    """Return the copies of so many outputs: one of each, or else no more than have a use."""
    links = find_copies(document)
    one_for_each = len(links) == outputs and all(len(link) <= MAX_LINKS for link in links)
    return links if one_for_each else fitting(links, MAX_LINKS)


_STRAY_FLAGS = 10
"""Flags that are kept where there is not one for each output."""


def _flags(value: Any, outputs: int) -> bool | list[bool] | None:
    """Return what was found unsafe of so many outputs: each of them, or, where there are far more flags, any."""
    if not isinstance(value, list):
        return value if isinstance(value, bool) else None
    flags = [bool(item) for item in value]
    return (flags if len(flags) <= max(outputs, _STRAY_FLAGS) else any(flags)) if flags else None
