"""
A real Airflow on this machine, started and stopped from Python.

:class:`AirflowInstance` runs the api-server, the scheduler, the dag-processor and the triggerer as separate
processes over one ``AIRFLOW_HOME`` and talks to them through the REST API, as a user would. Only such an
installation shows what ``dag.test()`` hides: deferral, restarts of triggers, timeouts, retries, masking.

It runs the Airflow of this environment: 2.11, or 3.0 and later.

- ``instance`` starts, kills and asks the components, with the ``settings`` that are the same for all instances;
- ``releases`` says what differs between Airflow 2 and 3;
- ``rest`` carries the questions, ``database`` reads what no API shows;
- ``processes`` finds and ends processes, ``network`` finds ports, ``logs`` writes Airflow's messages as text.
"""

from airflow_instance.database import Database
from airflow_instance.instance import PATIENCE, AirflowInstance
from airflow_instance.network import HOST, free_port, port_is_free
from airflow_instance.rest import AirflowInstanceError

__all__ = ["HOST", "PATIENCE", "AirflowInstance", "AirflowInstanceError", "Database", "free_port", "port_is_free"]
