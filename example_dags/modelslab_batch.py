"""
Many pictures: as mapped tasks, one per prompt, and as one task that keeps the account's queue full.

Mapped tasks are seen, retried and cleared one by one; where many run at once, give them a pool with as many slots as
the account has queue slots. One task is cheaper, and hands on a manifest with the result of each item by its name.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator

PICTURE = {"model_id": "flux", "width": 512, "height": 512}


@dag(
    description="Many pictures: as mapped tasks, one per prompt, and as one task for all.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "animals": Param(
            ["fox", "owl", "hare", "badger"],
            type="array",
            items={"type": "string"},
            title="Animals",
            description="One picture of each, one per line.",
        )
    },
    tags=["modelslab"],
)
def modelslab_batch():
    @task(multiple_outputs=False)
    def describe(params: dict | None = None) -> dict:
        return {animal: {**PICTURE, "prompt": f"a {animal} in the snow"} for animal in params["animals"]}

    @task
    def one_by_one(payloads: dict) -> list[dict]:
        return list(payloads.values())

    payloads = describe()

    ModelsLabGenerateOperator.partial(
        task_id="draw_each",
        endpoint="v6/images/text2img",
        deferrable=True,
        timeout=1800,
        map_index_template="{{ task.payload['prompt'] }}",
    ).expand(payload=one_by_one(payloads))

    draw_all = ModelsLabGenerateOperator(
        task_id="draw_all",
        endpoint="v6/images/text2img",
        payloads=payloads,
        fail_on_partial_error=False,
        deferrable=True,
        timeout=1800,
    )

    @task
    def report(manifest: dict) -> dict[str, str]:
        for item in manifest["items"]:
            print(item["name"], item["status"], *item["outputs"], item["message"])
        return {item["name"]: item["status"] for item in manifest["items"]}

    report(draw_all.output["manifest"])


modelslab_batch()
