"""The links that Airflow's UI shows on a task."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_modelslab._tasks.results import JOBS_KEY
from airflow_provider_modelslab.ui import PAGE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

__all__ = ["ModelsLabOutputLink", "ModelsLabOutputsLink"]

_AIRFLOW_2 = airflow_version.startswith("2.")


class ModelsLabOutputLink(BaseOperatorLink):
    """
    Leads to the first output of a task's jobs.

    While an operator waits, it leads to where ModelsLab says the file will be, if it says so.
    """

    name = "Output"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or an empty text while there is none."""
        # Airflow 3 asks in the task's own process, and logs an error when an XCom is not there.
        if not (_AIRFLOW_2 or getattr(operator, "has_pushed_jobs", False)):
            return ""
        records = XCom.get_value(ti_key=ti_key, key=JOBS_KEY) or []
        urls = [url for record in records for url in record["outputs"]]
        announced = [url for record in records for url in record["proxy_links"]]
        return next((url for url in urls + announced if url.startswith(("https://", "http://"))), "")


class ModelsLabOutputsLink(BaseOperatorLink):
    """
    Leads to the page "Outputs" of a task, in Airflow itself.

    The link is relative: the browser resolves it against the path of ``[api] base_url``.
    """

    name = "Outputs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL; the page tells by itself what there is."""
        query = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        return f"{PAGE}?{urlencode(query)}"


OUTPUT_LINKS: tuple[BaseOperatorLink, ...] = (ModelsLabOutputLink(),)
"""The links of each task of ours; Airflow 2 cannot serve the page."""

if not _AIRFLOW_2:
    OUTPUT_LINKS += (ModelsLabOutputsLink(),)
