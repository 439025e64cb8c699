"""
The hook in plain `@task` code: submit in one task, wait in the next.

Two tasks rather than one, so that a retry of the wait does not submit, and pay, again. This way of waiting holds a
worker; the sensor does not.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_modelslab.hooks import ModelsLabHook


@dag(
    description="Submit and wait with the hook, in plain Python tasks.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["modelslab"],
)
def modelslab_plain_python():
    @task(retries=0, multiple_outputs=False)
    def submit() -> dict:
        return ModelsLabHook().submit("v6/3d/text_to_3d", {"prompt": "a chess knight, carved from oak"})

    @task(retries=2)
    def wait(job: dict) -> list[str]:
        return ModelsLabHook().wait(job, timeout=1800).outputs

    @task
    def show(urls: list[str]) -> None:
        print("\n".join(urls))

    show(wait(submit()))


modelslab_plain_python()
