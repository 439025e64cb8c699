"""Tasks that return jobs themselves, without ``to_dict()``, and what takes them."""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

with DAG("jobs", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False) as jobs_dag:

    @task(retries=0)
    def submit(prompt: str):
        return ModelsLabHook().submit("v6/video/text2video", {"prompt": prompt})

    @task(retries=0)
    def submit_annotated() -> Job:
        return ModelsLabHook().submit("v6/video/text2video", {"prompt": "an owl"})

    @task
    def wait(job):
        return ModelsLabHook().wait(job)

    @task
    def outputs(job):
        return job["outputs"]

    jobs = submit.expand(prompt=["a fox", "a hare"])
    outputs.expand(job=wait.expand(job=jobs))
    ModelsLabJobSensor(task_id="sense", jobs=jobs, deferrable=True, timeout=600)
    ModelsLabJobSensor(task_id="sense_one", jobs=submit_annotated(), deferrable=True, timeout=600)
