"""
The metrics: a table of all of them, and what the other modules call when something has happened.

They go to Airflow's own ``Stats``, and by it to StatsD, Datadog or OpenTelemetry, whichever is configured. The table
makes the page docs/metrics.md, too. No tag holds an id, a text of a user or an address: each takes its values from
:data:`TAGS`. A metric that cannot be emitted never ends a task or a wait.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_modelslab._protocol.kinds import KINDS, kind_of
from airflow_provider_modelslab._protocol.verdicts import Verdict
from airflow_provider_modelslab.endpoints import FAMILIES

OTHER = "other"
"""The endpoint of all families that are not known."""

_KINDS = {kind: kind.endpoint.removesuffix("/[^/]+") for kind in KINDS}  # all workflows together
_VERDICTS = frozenset(verdict.name.lower() for verdict in Verdict)

TAGS: Mapping[str, frozenset[str] | None] = {
    "endpoint": FAMILIES | set(_KINDS.values()) | {OTHER},
    "reason": _VERDICTS,
    "verdict": _VERDICTS,
    "paused": frozenset({"polls", "submissions"}),
    "hostname": None,
}
"""The values of each tag; ``None`` where there is one per triggerer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """
    A metric.

    :param name: as Airflow's ``Stats`` takes it; Airflow puts its own prefix, ``airflow.``, before it.
    :param kind: what it is; a timer is in milliseconds.
    :param tags: the names of its tags.
    :param meaning: what it counts or measures, as the documentation says it.
    """

    name: str
    kind: Literal["counter", "timer", "gauge"]
    tags: tuple[str, ...]
    meaning: str


JOBS_SUBMITTED = Metric(
    "modelslab.jobs.submitted",
    "counter",
    ("endpoint",),
    "Jobs that ModelsLab has accepted: each is paid for.",
)
JOBS_SUCCEEDED = Metric(
    "modelslab.jobs.succeeded",
    "counter",
    ("endpoint",),
    "Jobs that a wait has found done, counted when the wait ends. Two waits for one job count it twice.",
)
JOBS_FAILED = Metric(
    "modelslab.jobs.failed",
    "counter",
    ("endpoint", "reason"),
    "Jobs that a wait has found failed, counted likewise: `failed` by ModelsLab's own word, `not_found`, `no_output` "
    "or `empty_error` after that answer has come again and again, `refused` as malformed. A timeout fails no job.",
)
JOBS_TIME_TO_READY = Metric(
    "modelslab.jobs.time_to_ready",
    "timer",
    ("endpoint",),
    "From the submission until the job was ready. ModelsLab does not tell that moment: it is estimated as the "
    "geometric mean of the last poll that found the job in progress and the first that found it done. A job without "
    "two such polls is not measured.",
)
JOBS_TIME_TO_NOTICE = Metric(
    "modelslab.jobs.time_to_notice",
    "timer",
    ("endpoint",),
    "From that estimated moment until the poll that found the job done: how late the wait noticed.",
)
SUBMISSIONS_REFUSED = Metric(
    "modelslab.submissions.refused",
    "counter",
    ("endpoint", "reason"),
    "Submissions that ModelsLab has not accepted, each try counted: `rate_limited` while the queue is full, "
    "`transient` where ModelsLab could not be reached, `no_credits`, `invalid_key`, `not_in_plan`, or `refused` for "
    "their parameters.",
)
SUBMISSIONS_AMBIGUOUS = Metric(
    "modelslab.submissions.ambiguous",
    "counter",
    ("endpoint",),
    "Submissions without a usable reply, which may have been billed.",
)
POLLS = Metric(
    "modelslab.polls",
    "counter",
    ("verdict",),
    "Polls by what their reply said. A triggerer adds up its own and reports them every 10 s.",
)
PAUSED_SECONDS = Metric(
    "modelslab.paused_seconds",
    "counter",
    ("paused",),
    "Seconds of the pauses that ModelsLab has asked for by rate limits: of all `polls` that a triggerer, or a task on "
    "its worker, sends over one connection, or of a task's `submissions`. Counted when a pause begins.",
)
TRIGGERER_WAITS = Metric(
    "modelslab.triggerer.waits",
    "gauge",
    ("hostname",),
    "Triggers that wait in a triggerer, reported every 10 s and when the last one ends.",
)
TRIGGERER_JOBS = Metric(
    "modelslab.triggerer.jobs",
    "gauge",
    ("hostname",),
    "Unfinished jobs that these triggers wait for.",
)
TRIGGERER_NEXT_DUE = Metric(
    "modelslab.triggerer.next_due",
    "gauge",
    ("hostname",),
    "Seconds until the next of their polls: 0 while polls wait for their turn, and where nothing is waited for.",
)
OUTPUT_FILES = Metric(
    "modelslab.outputs.files",
    "counter",
    (),
    "Files of outputs that were stored. Files that were there already do not count.",
)
OUTPUT_BYTES = Metric(
    "modelslab.outputs.bytes",
    "counter",
    (),
    "Bytes of these files.",
)

METRICS = (
    JOBS_SUBMITTED,
    JOBS_SUCCEEDED,
    JOBS_FAILED,
    JOBS_TIME_TO_READY,
    JOBS_TIME_TO_NOTICE,
    SUBMISSIONS_REFUSED,
    SUBMISSIONS_AMBIGUOUS,
    POLLS,
    PAUSED_SECONDS,
    TRIGGERER_WAITS,
    TRIGGERER_JOBS,
    TRIGGERER_NEXT_DUE,
    OUTPUT_FILES,
    OUTPUT_BYTES,
)


def submission_answered(endpoint: str, verdict: Verdict) -> None:
    """
    Count a submission, and the job where it ended at once.

    :param endpoint: the family that its job is fetched under.
    :param verdict: what the reply said.
    """
    if verdict in (Verdict.SUCCESS, Verdict.PROCESSING, Verdict.FAILED):
        _emit(JOBS_SUBMITTED, 1, _family(endpoint))
        if verdict is not Verdict.PROCESSING:
            jobs_finished(endpoint, verdict)
    elif verdict is Verdict.AMBIGUOUS:
        _emit(SUBMISSIONS_AMBIGUOUS, 1, _family(endpoint))
    else:
        _emit(SUBMISSIONS_REFUSED, 1, _family(endpoint), _word(verdict))


def jobs_finished(endpoint: str, verdict: Verdict, jobs: int = 1) -> None:
    """
    Count jobs that a wait has found done or failed.

    :param endpoint: their family.
    :param verdict: what the last reply said.
    :param jobs: how many.
    """
    if verdict is Verdict.SUCCESS:
        _emit(JOBS_SUCCEEDED, jobs, _family(endpoint))
    else:
        _emit(JOBS_FAILED, jobs, _family(endpoint), _word(verdict))


def job_timed(endpoint: str, time_to_ready: float, time_to_notice: float) -> None:
    """
    Tell how long a job took.

    :param endpoint: its family.
    :param time_to_ready: seconds from its submission until it was ready.
    :param time_to_notice: seconds from then to the poll that found it so.
    """
    _emit(JOBS_TIME_TO_READY, time_to_ready, _family(endpoint))
    _emit(JOBS_TIME_TO_NOTICE, time_to_notice, _family(endpoint))


def polled(verdict: Verdict, polls: int = 1) -> None:
    """Count polls whose replies said the same."""
    if polls:
        _emit(POLLS, polls, _word(verdict))


def paused(what: Literal["polls", "submissions"], seconds: float) -> None:
    """Count the seconds of a pause that ModelsLab has asked for."""
    if whole := round(seconds):  # StatsD adds up whole numbers
        _emit(PAUSED_SECONDS, whole, what)


def waiting(triggers: int, jobs: int, next_due: float) -> None:
    """
    Tell how much is waited for in this triggerer.

    :param triggers: how many triggers wait.
    :param jobs: for how many unfinished jobs.
    :param next_due: seconds until the next poll.
    """
    host = socket.gethostname()
    _emit(TRIGGERER_WAITS, triggers, host)
    _emit(TRIGGERER_JOBS, jobs, host)
    _emit(TRIGGERER_NEXT_DUE, round(next_due, 1), host)


def file_stored(size: int) -> None:
    """Count a stored file of so many bytes."""
    _emit(OUTPUT_FILES, 1)
    _emit(OUTPUT_BYTES, size)


def _family(endpoint: str) -> str:
    if endpoint in FAMILIES:
        return endpoint
    kind = kind_of(endpoint)
    return OTHER if kind is None else _KINDS[kind]


def _word(verdict: Verdict) -> str:
    return verdict.name.lower()


def _emit(metric: Metric, value: float, *tags: str) -> None:
    named = dict(zip(metric.tags, tags, strict=True))
    try:
        if metric.kind == "counter":
            Stats.incr(metric.name, int(value), tags=named)
        elif metric.kind == "timer":
            Stats.timing(metric.name, 1000 * value, tags=named)  # of a timedelta, Airflow 2.11 makes seconds for some
        else:
            Stats.gauge(metric.name, value, tags=named)
    except Exception:  # no error of a metrics backend may end the task
        _log.debug("Metric %s was not emitted", metric.name, exc_info=True)
