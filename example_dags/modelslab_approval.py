"""
Pictures that a person approves before they are published: Airflow asks under "Required Actions".

The person sees a contact sheet. Needs Airflow 3.1, whose standard provider brings the human in the loop.
"""

from __future__ import annotations

from importlib import import_module

import pendulum
from airflow.providers.common.compat.sdk import dag, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"prompt": "a fox in the snow", "samples": 3},
    render_template_as_native_obj=True,
    tags=["modelslab"],
)
def modelslab_approval():
    # From Airflow 3.1 on, you can import it at the top. The dag-processor of Airflow 3.0 imports beforehand what every
    # import statement of a file names, and ends when this one fails.
    hitl = import_module("airflow.providers.standard.operators.hitl")

    draw = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        payload={"model_id": "flux", "prompt": "{{ params.prompt }}", "samples": "{{ params.samples }}"},
        deferrable=True,
        timeout=1800,
    )

    @task
    def contact_sheet(urls: list[str]) -> str:
        """Return the pictures as Markdown: that is what the person sees."""
        return "\n\n".join(f"![picture {number}]({url})" for number, url in enumerate(urls, 1))

    approve = hitl.ApprovalOperator(
        task_id="approve",
        subject="Publish these pictures?",
        body=contact_sheet(draw.output),
    )

    @task
    def publish(urls: list[str]) -> list[str]:
        print("Published:", *urls)
        return urls

    approve >> publish(draw.output)


if AIRFLOW_V_3_1_PLUS:
    modelslab_approval()
