"""Airflow's REST API, as a user sees it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import requests

#: Seconds to wait for a reply: an api-server that shares two cores with hundreds of tasks is slow.
REQUEST_TIMEOUT = 120.0


class AirflowInstanceError(RuntimeError):
    """Airflow did not start, died, refused a request or did not get somewhere in time."""


class RestApi:
    """
    Questions to an api-server.

    :param url: where it is, without a path.
    :param login: name and password of a user, where visitors are not administrators anyway.
    """

    def __init__(self, url: str, login: tuple[str, str] | None = None) -> None:
        self._url = url
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False  # Neither a proxy nor a .netrc stands between this machine and itself.
        self._session.headers["Accept"] = "application/json"

    def close(self) -> None:
        """Close the connections; another question opens one again."""
        self._session.close()

    def serves_tasks(self) -> bool:
        """
        Tell whether the api-server is ready.

        Its first reply to a task takes 8 s, which no task shall have to wait: it begins with the first question here.
        """
        # Without a header of our own, the api-server logs the failure to read its own token.
        headers = {"Authorization": "none"}
        try:
            return self._session.get(f"{self._url}/execution/health", headers=headers, timeout=2).ok
        except requests.RequestException:
            return False

    def get(self, path: str, *, missing_ok: bool = False, **params: Any) -> Any:
        """Return the JSON of a reply; None if there is no such thing and ``missing_ok``."""
        response = self.request("GET", path, missing_ok=missing_ok, params=params)
        return None if response.status_code == requests.codes.not_found else response.json()

    def request(self, method: str, path: str, *, missing_ok: bool = False, **arguments: Any) -> requests.Response:
        """
        Send a request.

        :param path: what follows ``/api/v2/``.
        :param arguments: for ``requests``.
        :raises AirflowInstanceError: if it is refused.
        """
        if "Authorization" not in self._session.headers:
            self._session.headers["Authorization"] = f"Bearer {self._token()}"
        response = self._session.request(method, f"{self._url}/api/v2/{path}", timeout=REQUEST_TIMEOUT, **arguments)
        if response.ok or (missing_ok and response.status_code == requests.codes.not_found):
            return response
        raise AirflowInstanceError(f"{method} {response.url}: {response.status_code} {response.text}")

    def _token(self) -> str:
        url = f"{self._url}/auth/token"
        if self._login is None:
            response = self._session.get(url, timeout=REQUEST_TIMEOUT)
        else:
            user = dict(zip(("username", "password"), self._login, strict=True))
            response = self._session.post(url, json=user, timeout=REQUEST_TIMEOUT)
        token: str = response.json()["access_token"]
        return token


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path of a DAG's run."""
    return f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}"


def task_path(dag_id: str, run_id: str, task_id: str) -> str:
    """Return the path of a run's task instance; of a mapped task, that of all its instances."""
    return f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"


def quoted(segment: str) -> str:
    """Return a name as one segment of a path."""
    return quote(segment, safe="")
