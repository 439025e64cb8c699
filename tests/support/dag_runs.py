"""Running a DAG of a file with ``dag.test()``, and reading what it left: states and XComs."""

from __future__ import annotations

import os
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

try:
    from airflow.dag_processing.dagbag import DagBag  # Airflow 3.2 and later

    _WITHOUT_EXAMPLES: dict[str, Any] = {"bundle_name": "dags-folder"}
except ImportError:
    from airflow.models.dagbag import DagBag  # type: ignore[no-redef]

    _WITHOUT_EXAMPLES = {"include_examples": False}

AIRFLOW_3_0 = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

EXAMPLE_DAGS = Path(__file__).parents[2] / "example_dags"
TEST_DAGS = Path(__file__).parents[1] / "dags"
DAGS_FOLDER = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])


def load_dags(file: Path) -> dict[str, DAG]:
    """Return the DAGs that a file defines, by their id."""
    bag = DagBag(dag_folder=str(file), **_WITHOUT_EXAMPLES)
    assert not bag.import_errors
    return bag.dags


def activate_outlets(dag: DAG) -> None:
    """Do what Airflow 3.0 leaves to the scheduler, without which its ``dag.test()`` finds an asset inactive."""
    from airflow.models.asset import AssetActive, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        for asset in {asset.name: asset for task in dag.tasks for asset in task.outlets}.values():
            if not session.get(AssetActive, (asset.name, asset.uri)):
                session.add(AssetModel.from_public(asset))
                session.flush()
                session.add(AssetActive.for_asset(asset))


class Run:
    """
    A run of a DAG that ``dag.test()`` has finished.

    :param dag: the DAG.
    :param conf: the run's ``conf``, whose values replace the DAG's params.
    :param moment: the logical date: of the same one, it is the same run again.
    """

    def __init__(self, dag: DAG, conf: dict[str, Any] | None = None, moment: datetime | None = None) -> None:
        if AIRFLOW_3_0:
            activate_outlets(dag)
        if not AIRFLOW_V_3_0_PLUS:
            # Before it runs again, the run is deleted with its notes, which refer to users.
            import_module("airflow.providers.fab.auth_manager.models")
        names = ("logical_date", "run_after") if AIRFLOW_V_3_0_PLUS else ("execution_date",)
        dates: dict[str, Any] = {} if moment is None else dict.fromkeys(names, moment)
        run = dag.test(run_conf=conf, **dates)
        self.state = str(getattr(run.state, "value", run.state))
        self._instances = {(each.task_id, each.map_index): each for each in run.get_task_instances()}

    @property
    def states(self) -> dict[tuple[str, int], str]:
        """The state of each task instance, by task id and map index."""
        return {name: str(getattr(each.state, "value", each.state)) for name, each in self._instances.items()}

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a downstream task would get."""
        instance = self._instances[task_id, map_index]
        return instance.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)
