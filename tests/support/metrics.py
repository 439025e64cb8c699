"""What the documentation says of metrics, held against what was emitted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from airflow_provider_modelslab._telemetry import metrics
from airflow_provider_modelslab._telemetry.metrics import METRICS, TAGS
from tests.support.statsd import Sample

DOCUMENTED = {metric.name for metric in METRICS}

_SHAPES = {metric.name: (metric.kind, set(metric.tags)) for metric in METRICS}


def undocumented(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples whose name, kind, tags or values of tags the table does not have."""
    return [sample for sample in samples if not _is_documented(sample)]


def _is_documented(sample: Sample) -> bool:
    values = ((TAGS[tag], value) for tag, value in sample.tags.items() if tag in TAGS)
    return _SHAPES.get(sample.name) == (sample.kind, set(sample.tags)) and all(
        allowed is None or value in allowed for allowed, value in values
    )


class RecordedStats:
    """Stands in for Airflow's ``Stats`` and keeps what it is told."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def incr(self, stat: str, count: int, *, tags: dict[str, str]) -> None:
        self._keep(stat, "counter", count, tags)

    def timing(self, stat: str, dt: float, *, tags: dict[str, str]) -> None:
        self._keep(stat, "timer", dt / 1000, tags)

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self._keep(stat, "gauge", value, tags)

    def totals(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the sum of a metric's values for each combination of its tags."""
        totals: dict[tuple[str, ...], float] = {}
        for sample in self.samples:
            if sample.name == f"modelslab.{name}":
                key = tuple(sample.tags.values())
                totals[key] = totals.get(key, 0) + sample.value
        return totals

    def all_totals(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return the totals of all metrics that were emitted."""
        names = {sample.name.removeprefix("modelslab.") for sample in self.samples}
        return {name: self.totals(name) for name in names}

    def values(self, name: str) -> list[float]:
        """Return the values of a metric, in the order in which they were emitted."""
        return [sample.value for sample in self.samples if sample.name == f"modelslab.{name}"]

    def _keep(self, name: str, kind: str, value: float, tags: dict[str, str]) -> None:
        self.samples.append(Sample(name, kind, dict(tags), value))


def record_metrics(monkeypatch: pytest.MonkeyPatch, stats: Any) -> None:
    """Let another object than Airflow's ``Stats`` take the metrics."""
    monkeypatch.setattr(metrics, "Stats", stats)
