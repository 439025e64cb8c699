"""
Wait for jobs that somebody else submitted: their ids come with the run, one sensor for each kind of endpoint.

The default ids are those of ModelsLab's documentation pages. The sandbox knows them as finished jobs; your own
account does not: trigger the DAG with ids of yours, one or a JSON list, and leave the other fields empty.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_modelslab.endpoints import FetchEndpoint
from airflow_provider_modelslab.sensors import ModelsLabJobSensor

ENDPOINTS = {
    "enterprise_images": (FetchEndpoint.ENTERPRISE_IMAGES, "13443927"),
    "enterprise_video": (FetchEndpoint.ENTERPRISE_VIDEO, "147"),
    "v3_images": (FetchEndpoint.V3_IMAGES, "12202888"),
    "v4_dreambooth": (FetchEndpoint.V4_DREAMBOOTH, "13443927"),
    "enterprise_flux_headshot": (FetchEndpoint.ENTERPRISE_FLUX_HEADSHOT, "12202888"),
}


@dag(
    description="Wait for jobs that somebody else has submitted.",
    doc_md=__doc__,
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        name: Param(
            example_id,
            type=["null", "string"],
            title=f"Jobs of {endpoint}",
            description="An id, a JSON list of ids, or nothing.",
        )
        for name, (endpoint, example_id) in ENDPOINTS.items()
    },
    tags=["modelslab"],
)
def modelslab_ids_from_outside():
    @task
    def collect(*urls: list[str]) -> list[str]:
        found = [url for one_endpoint in urls for url in one_endpoint]
        print("\n".join(found))
        return found

    collect(
        *(
            ModelsLabJobSensor(
                task_id=f"wait_for_{name}",
                jobs=f"{{{{ params.{name} or '[]' }}}}",
                endpoint=endpoint,
                deferrable=True,
                timeout=timedelta(hours=1),
            ).output
            for name, (endpoint, _) in ENDPOINTS.items()
        )
    )


modelslab_ids_from_outside()
