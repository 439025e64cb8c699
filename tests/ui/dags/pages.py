"""DAGs for the page: one that pushes what a test asks for, and ones whose tasks really generate."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.picking import ModelsLabPickOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

START = pendulum.datetime(2026, 1, 1, tz="UTC")


@task
def tell(xcoms=None, ti=None, dag_run=None):
    """Push the XComs that the run's conf (or a mapped argument) holds; then wait for a file, where it names one."""
    for key, value in (xcoms or dag_run.conf["xcoms"]).items():
        ti.xcom_push(key=key, value=value)
    while "until" in dag_run.conf and not Path(dag_run.conf["until"]).exists():
        time.sleep(0.2)


@dag(schedule=None, start_date=START)
def told():
    tell()


@dag(schedule=None, start_date=START, tags=["modelslab"])
def posters():
    tell.override(task_id="generate")()


@dag(schedule=None, start_date=START)
def private_told():
    tell()


@dag(schedule=None, start_date=START)
def told_mapped():
    @task
    def each(dag_run=None):
        return dag_run.conf["each"]

    tell.expand(xcoms=each())


@dag(schedule=None, start_date=START, tags=["modelslab"], params={"folder": ""})
def draws():
    ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payloads={
            "lighthouse": {"model_id": "flux", "prompt": "a lighthouse at dusk, oil on canvas"},
            "harbour": {"model_id": "flux", "prompt": "a harbour in the morning fog"},
        },
        output_path="{{ params.folder }}",
        deferrable=True,
        poke_interval=1,
    )
    ModelsLabGenerateOperator(
        task_id="film",
        endpoint="v6/video/text2video",
        payload={"model_id": "cogvideox", "prompt": "waves under a lighthouse, slow motion"},
        deferrable=True,
        poke_interval=1,
    )
    ModelsLabGenerateOperator(
        task_id="speak",
        endpoint="v6/voice/text_to_audio",
        payload={"prompt": "the sea is calm tonight", "language": "english"},
        deferrable=True,
        poke_interval=1,
    )


@dag(schedule=None, start_date=START, render_template_as_native_obj=True)
def picks():
    told = tell()
    pick = ModelsLabPickOperator(
        task_id="pick",
        jobs="{{ ti.xcom_pull(task_ids='tell', key='jobs') }}",
        files="{{ ti.xcom_pull(task_ids='tell', key='files') }}",
    )

    @task
    def use(urls):
        return urls

    told >> pick
    use(pick.output)


@dag(schedule=None, start_date=START, render_template_as_native_obj=True)
def picks_in_time():
    told = tell()
    pick = ModelsLabPickOperator(
        task_id="pick",
        jobs="{{ ti.xcom_pull(task_ids='tell', key='jobs') }}",
        multiple=False,
        default="none",
        response_timeout=timedelta(seconds=2),
        # For what Airflow itself fails on a busy machine: a task that goes on before the scheduler has heard that it waits.
        retries=3,
        retry_delay=timedelta(seconds=1),
    )
    told >> pick


@dag(schedule=None, start_date=START)
def refused():
    ModelsLabJobSensor(task_id="wait", jobs="{{ 'no id' }}", endpoint="v6/video")


@dag(schedule=None, start_date=START, tags=["modelslab"])
def waits():
    ModelsLabJobSensor(
        task_id="wait",
        jobs="{{ dag_run.conf['jobs'] }}",
        endpoint="v6/video",
        modelslab_conn_id="modelslab_held",
        deferrable=True,
        poke_interval=1,
    )


told()
posters()
private_told()
told_mapped()
draws()
picks()
picks_in_time()
refused()
waits()
