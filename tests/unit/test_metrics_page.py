"""The page about metrics and its dashboard say what the table of metrics says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airflow_provider_modelslab._telemetry.metrics import METRICS, TAGS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text()
DASHBOARD = (DOCS / "metrics-dashboard.json").read_text()

EXPORTED = {f"airflow.{metric.name}".replace(".", "_"): metric for metric in METRICS}
"""The metrics by the names that ``statsd_exporter`` makes."""

SUFFIXES = {"timer": {"_sum", "_count"}, "counter": {""}, "gauge": {""}}


def rows(columns: int) -> list[list[str]]:
    """Return the rows of the page's tables that have so many columns."""
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in PAGE.splitlines() if "|" in line]
    return [row for row in cells if len(row) == columns]


def exported_names(text: str) -> set[str]:
    return set(re.findall(r"airflow_modelslab_\w+", text))


def is_exported(name: str) -> bool:
    return any(name == base + suffix for base, metric in EXPORTED.items() for suffix in SUFFIXES[metric.kind])


def test_each_metric_has_its_line_with_an_alert_and_no_other_has():
    documented = {line[0].strip("`"): line for line in rows(5) if line[0].startswith("`modelslab.")}
    assert list(documented) == [metric.name for metric in METRICS]
    for metric in METRICS:
        _, kind, tags, meaning, alert = documented[metric.name]
        assert (kind, meaning) == (metric.kind, metric.meaning)
        assert tuple(re.findall(r"`(\w+)`", tags)) == metric.tags
        assert len(alert) > 10


def test_each_tag_has_its_line_with_the_number_of_its_values():
    told = {line[0].strip("`"): line[1] for line in rows(3) if line[0].strip("`") in TAGS}
    assert told == {tag: "one per triggerer" if values is None else str(len(values)) for tag, values in TAGS.items()}
    assert {tag for metric in METRICS for tag in metric.tags} == set(TAGS)


@pytest.mark.parametrize("text", [PAGE, DASHBOARD], ids=["page", "dashboard"])
def test_alerts_and_dashboard_use_documented_names_only(text):
    names = exported_names(text)
    assert names
    assert {name for name in names if not is_exported(name)} == set()


def test_the_dashboard_shows_every_metric():
    dashboard = json.loads(DASHBOARD)
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    shown = {name for name in EXPORTED if any(used.startswith(name) for used in exported_names(expressions))}
    assert shown == set(EXPORTED)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_names_and_tags_are_fit_for_every_backend():
    for metric in METRICS:
        assert re.fullmatch(r"modelslab(\.[a-z_]+){1,2}", metric.name)
        assert len(f"airflow.{metric.name}") <= 63  # what OpenTelemetry takes
    for values in TAGS.values():
        assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", value) for value in values or ())
