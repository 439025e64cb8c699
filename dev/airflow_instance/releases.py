"""
What differs between the releases of Airflow: components, settings, and the API that answers.

Airflow 3 has four components. In Airflow 2.11 the scheduler parses the DAG files, and a webserver serves UI and API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from airflow_instance import settings
from airflow_instance.rest import RestApi, RestApi1, RestApi2

#: Which rows of ``task_instance`` are meant: a try that is running. Airflow 3.4 has no map index there.
_TRY = (
    "WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id "
    "AND try_number = :try_number AND state = 'running'"
)


@dataclass(frozen=True)
class Release:
    """
    One line of Airflow's releases.

    :param components: in the order of their start, each with the job that it reports in the metadata database; the
        first one serves UI and API, and reports none.
    :param needs_database: whether that first one needs the tables of the database from its beginning.
    :param settings: environment variables that only these releases know.
    :param address: the sections and options of UI and API: the URL and the port.
    :param rest_api: asks that API.
    :param expire_heartbeat: SQL that sets the last heartbeat of a running try of a task instance to a moment.
    """

    components: Mapping[str, str | None]
    needs_database: bool
    settings: Mapping[str, str]
    address: tuple[str, str]
    rest_api: type[RestApi]
    expire_heartbeat: str


AIRFLOW_2 = Release(
    components={"webserver": None, "scheduler": "SchedulerJob", "triggerer": "TriggererJob"},
    needs_database=True,
    settings=settings.AIRFLOW_2,
    address=("AIRFLOW__WEBSERVER__BASE_URL", "AIRFLOW__WEBSERVER__WEB_SERVER_PORT"),
    rest_api=RestApi1,
    expire_heartbeat=f"UPDATE job SET latest_heartbeat = :moment WHERE id IN (SELECT job_id FROM task_instance {_TRY})",  # noqa: S608 - constants only
)

AIRFLOW_3 = Release(
    components={
        "api-server": None,
        "scheduler": "SchedulerJob",
        "dag-processor": "DagProcessorJob",
        "triggerer": "TriggererJob",
    },
    needs_database=False,
    settings=settings.AIRFLOW_3,
    address=("AIRFLOW__API__BASE_URL", "AIRFLOW__API__PORT"),
    rest_api=RestApi2,
    expire_heartbeat=f"UPDATE task_instance SET last_heartbeat_at = :moment {_TRY}",  # noqa: S608 - constants only
)


def installed() -> Release:
    """Return the release in this environment."""
    return AIRFLOW_2 if version("apache-airflow").startswith("2.") else AIRFLOW_3
