"""One sensor of ours for all jobs."""

from __future__ import annotations

from shared import comparison, submitted, used

from airflow_provider_modelslab.sensors import ModelsLabJobSensor

with comparison("one_sensor"):
    (
        ModelsLabJobSensor(
            task_id="wait", jobs=submitted(), modelslab_conn_id="{{ params.conn_id }}", deferrable=True, timeout=3600
        )
        >> used()
    )
