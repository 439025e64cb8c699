"""
Events on the span that Airflow has opened around a task or a trigger.

Airflow exports its spans, where traces are configured; where no span is open, nothing happens. The events tell
endpoints, ids and numbers, and never a prompt or a URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_modelslab.jobs import Job

try:
    from opentelemetry.trace import get_current_span
except ImportError:  # no Airflow needs it
    get_current_span = None  # type: ignore[assignment]


def submitted(job: Job) -> None:
    """Note that ModelsLab has accepted a job."""
    _add_event("submitted", {"endpoint": job.endpoint, "job_id": job.id})


def queue_full(endpoint: str, retry_after: float) -> None:
    """Note that ModelsLab takes no submission for some seconds."""
    _add_event("queue_full", {"endpoint": endpoint, "retry_after": retry_after})


def done(jobs: Sequence[Job]) -> None:
    """Note which jobs a wait has found finished; nothing if there are none."""
    if jobs:
        failed = sum(job.status == "failed" for job in jobs)
        _add_event("done", {"succeeded": len(jobs) - failed, "failed": failed})


def _add_event(name: str, attributes: Mapping[str, str | int | float]) -> None:
    if get_current_span is not None:
        named = {f"modelslab.{key}": value for key, value in attributes.items()}
        get_current_span().add_event(f"modelslab.{name}", named)
