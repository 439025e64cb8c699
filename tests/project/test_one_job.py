"""How much code one job touches on its way from the sensor to a stored file: what a newcomer has to read."""

from __future__ import annotations

from tests.project.test_imports import run

MOST_FUNCTIONS = 350
"""Of a job that is awaited on the worker, as long as a deferral takes, and then in the triggerer; on a slow machine, some more."""

# In a process of its own: the profiler must see every thread, and nothing that other tests have loaded.
LIFE_OF_ONE_JOB = """
import asyncio, os, sys, tempfile, threading
from pathlib import Path

import airflow_provider_modelslab
from airflow_provider_modelslab._http import async_transport, sync_transport
from airflow_provider_modelslab._outputs import saving
from airflow_provider_modelslab.sandbox import Sandbox
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from airflow.providers.common.compat.sdk import TaskDeferred

PACKAGE = str(Path(airflow_provider_modelslab.__file__).parent)
touched = set()

def profile(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(PACKAGE) and "/sandbox/" not in code.co_filename:
        if not code.co_name.startswith("<"):  # a lambda or a comprehension is part of the function around it
            touched.add(f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_firstlineno} {code.co_name}")

class TaskInstance:
    task_id, map_index, start_date = "wait", -1, None
    def xcom_push(self, key, value): pass

async def finish_once_polled(sandbox):
    polls = sandbox.state()["requests"]["fetch"]
    while sandbox.state()["requests"]["fetch"] == polls:
        await asyncio.sleep(0.01)
    sandbox.finish_all()

async def event_of(trigger, sandbox):
    finishing = asyncio.create_task(finish_once_polled(sandbox))
    return [event async for event in trigger.run()][0].payload

with Sandbox(duration=float("inf")) as sandbox, tempfile.TemporaryDirectory() as folder:
    os.environ["AIRFLOW_CONN_MODELSLAB_DEFAULT"] = sandbox.connection
    reply = sandbox.submit("v6/images/text2img", {"prompt": "a fox"})
    threading.setprofile(profile)
    sys.setprofile(profile)
    sensor = ModelsLabJobSensor(task_id="wait", jobs=reply, deferrable=True, output_path=folder)
    context = {"ti": TaskInstance(), "task": sensor}
    try:
        sensor.execute(context)
    except TaskDeferred as deferred:
        path, arguments = deferred.trigger.serialize()
        event = asyncio.run(event_of(type(deferred.trigger)(**arguments), sandbox))
    urls = sensor.execute_complete(context, event)
    sys.setprofile(None)
    assert len(urls) == 1 and len(list(Path(folder).glob("*.png"))) == 1
print(*sorted(touched), sep="\\n")
"""


def test_one_job_touches_few_functions():
    touched = [line for line in run(LIFE_OF_ONE_JOB).splitlines() if line.startswith("/")]
    assert 30 < len(touched) < MOST_FUNCTIONS, "\n".join(touched)
