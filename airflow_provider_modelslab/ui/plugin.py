"""
The plugin that tells Airflow where the page "Outputs" and its tabs are.

Every process of Airflow imports this module, so it imports nothing heavy: what serves the page is imported by the
api-server, when the first request comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowPlugin, conf

from airflow_provider_modelslab.ui import PAGE

URL_PREFIX = "/modelslab"

OPERATOR_NAMES = ["ModelsLabGenerateOperator", "ModelsLabJobSensor", "ModelsLabPickOperator", "@task.modelslab"]

DAG_TAG = "modelslab"
"""A DAG run has no operator to select it by: DAGs with this tag get the tab."""

Message = MutableMapping[str, Any]


async def serve(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer a request: an ASGI application that is imported at the first one."""
    from airflow_provider_modelslab.ui.server import app

    await app(scope, receive, send)


def tabs(version: str, everywhere: bool) -> list[dict[str, Any]]:
    """
    Return the tabs on the pages of task instances and DAG runs.

    :param version: that of Airflow. From 3.4 a tab can be limited to some operators; before, it stands on every task.
    :param everywhere: whether it may stand on every task.
    """
    selects_operators = tuple(map(int, version.split(".")[:2])) >= (3, 4)
    if not (selects_operators or everywhere):
        return []
    run = "dag_id={DAG_ID}&run_id={RUN_ID}"
    task_tab = {
        "name": "Outputs",
        "destination": "task_instance",
        "url_route": "modelslab-outputs",
        "href": f"{PAGE}?{run}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
    }
    run_tab = {
        "name": "Outputs",
        "destination": "dag_run",
        "url_route": "modelslab-run-outputs",
        "href": f"{PAGE}?{run}",
    }
    if not selects_operators:
        return [task_tab, run_tab]
    return [
        {**task_tab, "applies_to": {"operator_name": OPERATOR_NAMES}},
        {**run_tab, "applies_to": {"dag.tags.name": [DAG_TAG]}},
    ]


class ModelsLabPlugin(AirflowPlugin):
    """Serves the page "Outputs" under the api-server, from Airflow 3 on, and shows it in tabs."""

    name = "modelslab"
    # Airflow declares both as attributes of instances, and reads them from the class.
    fastapi_apps: list[Any] = [{"app": serve, "url_prefix": URL_PREFIX, "name": "ModelsLab outputs"}]  # noqa: RUF012
    external_views: list[Any] = tabs(airflow_version, conf.getboolean("modelslab", "tab", fallback=False))
