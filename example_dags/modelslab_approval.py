"""
Pictures among which a person chooses before they are published: Airflow asks under "Required Actions".

The person sees a contact sheet. Without an answer nothing is published. Needs Airflow 3.1.
"""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

from airflow_provider_modelslab.operators import ModelsLabGenerateOperator


@dag(
    description="Draw pictures, and let a person choose which of them are published.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "prompt": Param(
            "a fox in the snow", type="string", minLength=1, title="Prompt", description="What the pictures show."
        ),
        "samples": Param(3, type="integer", enum=[1, 2, 3, 4], title="Pictures", description="How many there are."),
    },
    tags=["modelslab"],
)
def modelslab_approval():
    # From Airflow 3.1 on, you can import it at the top. The dag-processor of Airflow 3.0 imports beforehand what every
    # import statement of a file names, and ends when this one fails.
    picking = import_module("airflow_provider_modelslab.picking")

    draw = ModelsLabGenerateOperator(
        task_id="draw",
        endpoint="v6/images/text2img",
        # One template for all of it: the number stays a number, and the text a text.
        payload="{{ {'model_id': 'flux', 'prompt': params.prompt, 'samples': params.samples} }}",
        deferrable=True,
        timeout=1800,
    )

    pick = picking.ModelsLabPickOperator(
        task_id="pick",
        jobs=draw.output["jobs"],
        subject="Which of these pictures do you want to publish?",
        response_timeout=timedelta(days=1),
        default="none",
    )

    @task
    def publish(urls: list[str]) -> list[str]:
        print("Published:", *urls)
        return urls

    publish(pick.output)


if AIRFLOW_V_3_1_PLUS:
    modelslab_approval()
