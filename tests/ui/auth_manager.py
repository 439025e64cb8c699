"""The users of the Airflow in these tests: Airflow's own simple ones, but one may not read some DAGs."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

PASSWORDS = {"admin": "of the admin", "viewer": "of the viewer", "stranger": "of the stranger"}

PRIVATE = "private_"
"""How the ids of the DAGs begin that the stranger may not read."""


class PerDagAuthManager(SimpleAuthManager):
    """Refuses the stranger all that belongs to a private DAG."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        if user.username == "stranger" and (details is None or (details.id or "").startswith(PRIVATE)):
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
