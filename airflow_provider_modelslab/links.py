"""The links that Airflow's UI shows on a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_modelslab._tasks.results import JOBS_KEY

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

__all__ = ["ModelsLabOutputLink"]


class ModelsLabOutputLink(BaseOperatorLink):
    """
    Leads to the first output of a task's jobs.

    While an operator waits, it leads to where ModelsLab says the file will be, if it says so.
    """

    name = "Output"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or an empty text while there is none."""
        records = XCom.get_value(ti_key=ti_key, key=JOBS_KEY) or []
        urls = [url for record in records for url in record["outputs"]]
        announced = [url for record in records for url in record["proxy_links"]]
        return next((url for url in urls + announced if url.startswith(("https://", "http://"))), "")
