"""Examples that need a real scheduler: a DAG that an asset wakes, and a person who is asked."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS
from airflow_instance import PATIENCE, AirflowInstance

from airflow_provider_modelslab.sandbox import Sandbox
from tests.system.steps import check_run, wait_until_parked


def test_new_pictures_wake_the_visitor_of_the_gallery(airflow: AirflowInstance, held_sandbox: Sandbox):
    airflow.unpause("modelslab_gallery_visitor")
    run_id = airflow.trigger("modelslab_gallery")
    wait_until_parked(airflow, "modelslab_gallery", run_id, "draw")
    held_sandbox.finish_all()
    check_run(airflow, "modelslab_gallery", run_id)
    airflow.wait_until(lambda: airflow.runs("modelslab_gallery_visitor"), PATIENCE, "the visitor was not woken")
    (visit,) = airflow.runs("modelslab_gallery_visitor")
    check_run(airflow, "modelslab_gallery_visitor", visit)
    drawn = airflow.xcom("modelslab_gallery", run_id, "draw")
    assert len(drawn) == 2
    assert airflow.xcom("modelslab_gallery_visitor", visit, "show") == drawn


@pytest.mark.skipif(not AIRFLOW_V_3_1_PLUS, reason="earlier releases ask nobody")
def test_pictures_are_published_when_a_person_chooses_them(airflow: AirflowInstance, held_sandbox: Sandbox):
    run_id = airflow.trigger("modelslab_approval")
    wait_until_parked(airflow, "modelslab_approval", run_id, "draw")
    held_sandbox.finish_all()
    wait_until_parked(airflow, "modelslab_approval", run_id, "pick")
    shown = airflow.xcom("modelslab_approval", run_id, "pick", "candidates")
    assert len(shown) == 3
    airflow.answer("modelslab_approval", run_id, "pick", shown[0]["label"], shown[2]["label"])
    check_run(airflow, "modelslab_approval", run_id)
    assert airflow.xcom("modelslab_approval", run_id, "publish") == [shown[0]["output"], shown[2]["output"]]
