"""
An update of the provider meets waits that an earlier version began: their triggers and events stand in the database.

``fixtures/waits-<version>.json`` has, for each released version, what it stored: the trigger as ``serialize()`` returned
it, the method that was to resume, and an event of each kind. At a release, copy the newest file under the new version's
name, and change in the copy what that version writes differently; the files of earlier versions stay as they are for
ever. The tests here say what is missing.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab import __version__
from airflow_provider_modelslab.exceptions import ModelsLabAuthError, ModelsLabJobFailed, ModelsLabTimeout
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.tasks import RecordingTaskInstance, deferral_of
from tests.support.triggers import event_of

ROOT = Path(__file__).parent.parent.parent
STORED = {
    file.stem.removeprefix("waits-"): json.loads(file.read_text())
    for file in sorted((ROOT / "tests" / "fixtures").glob("waits-*.json"))
}
OUTCOMES = {
    "failed": ModelsLabJobFailed,
    "timeout": ModelsLabTimeout,
    "refused": ModelsLabAuthError,
    "defect": AirflowException,
}

every_version = pytest.mark.parametrize("stored", STORED.values(), ids=STORED)


def trigger_of(stored: dict[str, Any]) -> Any:
    """Make the trigger as the triggerer does."""
    path, arguments = stored["trigger"]
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


def resumed(stored: dict[str, Any], event: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Resume the task as the worker does; return its result and its XComs."""
    task_instance = RecordingTaskInstance()
    sensor = ModelsLabJobSensor(task_id="wait", jobs=[1], endpoint="v3", deferrable=True)
    return getattr(sensor, stored["method_name"])({"ti": task_instance}, event), task_instance.xcoms


def test_every_released_version_has_stored_its_waits():
    released = set(re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert released | {__version__} <= set(STORED)


@every_version
def test_a_stored_trigger_goes_on(stored, sandbox: Sandbox):
    event = event_of(trigger_of(stored))
    assert event["status"] == "finished"
    assert [job["status"] for job in event["jobs"]] == ["success", "success", "failed"]
    assert event["jobs"][0] == stored["trigger"][1]["jobs"][0]


@every_version
def test_a_stored_event_is_understood(stored):
    urls, xcoms = resumed(stored, stored["events"]["finished"])
    assert urls == ["https://cdn.example/a.png"]
    assert [(job["id"], job["status"]) for job in xcoms["jobs"]] == [("12202888", "success")]
    for name, exception in OUTCOMES.items():
        with pytest.raises(exception):
            resumed(stored, stored["events"][name])
    assert {"finished", *OUTCOMES} == set(stored["events"])


def test_this_version_stores_what_its_file_says():
    """Otherwise the file is not this version's, and the next one would be tested against something else."""
    stored = STORED[__version__]
    assert json.loads(json.dumps(trigger_of(stored).serialize())) == stored["trigger"]
    assert stored["method_name"] == ModelsLabJobSensor.execute_complete.__name__


def test_this_version_sends_what_its_file_says(sandbox: Sandbox):
    stored = STORED[__version__]
    trigger = trigger_of(stored)
    assert event_of(trigger).keys() == stored["events"]["finished"].keys()
    trigger.deadline = 0.0
    assert event_of(trigger).keys() == stored["events"]["timeout"].keys()


@every_version
def test_an_operator_resumes(stored, sandbox: Sandbox):
    ti = RecordingTaskInstance()
    ti.xcom_push("items", stored["operator"]["items"])
    task = ModelsLabGenerateOperator(task_id="draw", endpoint="v6/video/text2video", payload={}, deferrable=True)
    resume = getattr(task, stored["operator"]["method_name"])
    urls = resume({"ti": ti}, stored["operator"]["event"])
    assert urls == ["https://cdn.example/owl.png", "https://cdn.example/hare.png"]
    assert [(item["name"], item["outputs"]) for item in ti.xcoms["manifest"]["items"]] == [
        ("owl", urls[:1]),
        ("hare", urls[1:]),
    ]


def _without_digest(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item without what its receipt's name says of host, key, run and number."""
    return {**item, "receipt": re.sub(r"^dag/[^/]+/|\.[0-9a-f]{16}\.\d\.json$", "", item["receipt"])}


def test_this_version_keeps_what_its_file_says_of_an_operator(sandbox: Sandbox):
    stored = STORED[__version__]["operator"]
    ti = RecordingTaskInstance()
    payloads = {item["name"]: item["payload"] for item in stored["items"]}
    task = ModelsLabGenerateOperator(task_id="draw", endpoint="v6/images/text2img", payloads=payloads, deferrable=True)
    state = deferral_of(task, {"ti": ti}).trigger.state
    assert list(map(_without_digest, ti.xcoms["items"])) == list(map(_without_digest, stored["items"]))
    assert state.keys() == stored["event"]["state"].keys()
    assert state["arguments"] == stored["event"]["state"]["arguments"]
