"""
Pictures as an asset: one DAG draws them, another one runs when there are new ones.

The asset's event carries the URLs, so the second DAG needs to know nothing of the first.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import Asset, dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

GALLERY = Asset("modelslab_gallery")
START = pendulum.datetime(2026, 1, 1, tz="UTC")


@dag(
    description="Draw pictures, and announce them as an asset.",
    doc_md=__doc__,
    schedule=None,
    start_date=START,
    catchup=False,
    tags=["modelslab"],
)
def modelslab_gallery():
    ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payload={"model_id": "flux", "prompt": "a harbour in the rain", "samples": 2},
        deferrable=True,
        timeout=1800,
        outlets=[GALLERY],
    )


@dag(
    description="Runs when there are new pictures in the gallery.",
    doc_md=__doc__,
    schedule=[GALLERY],
    start_date=START,
    catchup=False,
    tags=["modelslab"],
)
def modelslab_gallery_visitor():
    @task
    def show(triggering_asset_events=None, triggering_dataset_events=None) -> list[str]:
        triggering = triggering_asset_events or triggering_dataset_events  # the latter in Airflow 2
        urls = [url for events in triggering.values() for event in events for url in event.extra["urls"]]
        print("New in the gallery:", *urls)
        return urls

    show()


modelslab_gallery()
modelslab_gallery_visitor()
