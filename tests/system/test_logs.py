"""What the selection leaves in the logs of Airflow's components and tasks: nothing that asks for attention."""

from __future__ import annotations

import re

import pytest
from airflow_instance import AirflowInstance

EXPECTED = {
    "the example that asks a person, which Airflow 3.0 and earlier cannot": r"No viable dags retrieved .*approval\.py",
    "Airflow 3.0 and 3.1, which call themselves what they deprecate": (
        r"Using Connection\.(get_connection_from_secrets|from_json) from `airflow\.models`"
        r"|The `airflow\.operators\.branch\.BranchMixIn` attribute is deprecated"
    ),
    "Airflow before 3.3, which remembers no paid jobs by itself": r"nothing remembers the jobs of this task",
    "tasks that end by their limit of time": r"1 of 1 job not done within",
    "a busy machine, whose scheduler hears of a deferral or a reschedule after the task has gone on": (
        "finished with state success, but the task instance's state attribute is"
    ),
}
"""What the tests of the selection provoke, and Airflow itself."""


@pytest.mark.selection(last=True)
def test_no_log_has_a_warning_or_an_error_of_ours(installation: AirflowInstance):
    expected = re.compile("|".join(EXPECTED.values()))
    # All tasks are ours; components complain of themselves, too.
    ours = [
        f"{file}: {complaint}"
        for file, complaint in installation.complaints()
        if re.search("dag_id=|modelslab_|ModelsLab", f"{file}: {complaint}") and not expected.search(complaint)
    ]
    assert not ours, "\n".join(ours)
