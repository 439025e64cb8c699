"""One sensor of ours for each job."""

from __future__ import annotations

from shared import comparison, submitted, used

from airflow_provider_modelslab.sensors import ModelsLabJobSensor

with comparison("sensor_each"):
    (
        ModelsLabJobSensor.partial(
            task_id="wait", modelslab_conn_id="{{ params.conn_id }}", deferrable=True, timeout=3600
        ).expand(jobs=submitted())
        >> used()
    )
