"""Airflow's REST API, as a user sees it: version 1 in Airflow 2, version 2 in Airflow 3."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from airflow_instance.logs import line_text, message_text

#: Seconds to wait for a reply: an api-server that shares two cores with hundreds of tasks is slow.
REQUEST_TIMEOUT = 300.0


class AirflowInstanceError(RuntimeError):
    """Airflow did not start, died, refused a request or did not get somewhere in time."""


class RestApi(ABC):
    """
    Questions to Airflow.

    :param url: where it is, without a path.
    :param login: name and password of a user, where visitors are not administrators anyway.
    """

    #: Where the API begins.
    root: str

    def __init__(self, url: str, login: tuple[str, str] | None = None) -> None:
        self._url = url
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False  # Neither a proxy nor a .netrc stands between this machine and itself.
        self._session.headers["Accept"] = "application/json"

    def close(self) -> None:
        """Close the connections; another question opens one again."""
        self._session.close()

    def serves(self) -> bool:
        """Tell whether the API is ready."""
        try:
            return self._probe().ok
        except requests.RequestException:
            return False

    def get(self, path: str, *, missing_ok: bool = False, **params: Any) -> Any:
        """Return the JSON of a reply; None if there is no such thing and ``missing_ok``."""
        response = self.request("GET", path, missing_ok=missing_ok, params=params)
        return None if response.status_code == requests.codes.not_found else response.json()

    def request(self, method: str, path: str, *, missing_ok: bool = False, **arguments: Any) -> requests.Response:
        """
        Send a request.

        :param path: what follows the root of the API; with a leading slash, what follows the address.
        :param arguments: for ``requests``.
        :raises AirflowInstanceError: if it is refused.
        """
        self._authenticate()
        url = f"{self._url}{path}" if path.startswith("/") else f"{self._url}/{self.root}/{path}"
        response = self._session.request(method, url, timeout=REQUEST_TIMEOUT, **arguments)
        if response.ok or (missing_ok and response.status_code == requests.codes.not_found):
            return response
        raise AirflowInstanceError(f"{method} {response.url}: {response.status_code} {response.text}")

    @abstractmethod
    def start_run(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run without a logical date of its own; return its id."""

    @abstractmethod
    def mark(self, task: str, state: str) -> None:
        """Set the state of a task instance, given by its path."""

    @abstractmethod
    def xcom(self, task: str, key: str, map_index: int) -> Any:
        """Return an XCom of a task instance, given by its path."""

    @abstractmethod
    def log(self, task: str, try_number: int, map_index: int) -> list[str]:
        """Return the lines of a log: time, level and message each."""

    @abstractmethod
    def connection_form(self, connection_type: str) -> str:
        """Return what the UI makes the form of a connection type from, as text."""

    @abstractmethod
    def _authenticate(self) -> None:
        """Let the session carry what the API asks for."""

    @abstractmethod
    def _probe(self) -> requests.Response:
        """Ask what is answered first when the API is ready."""


class RestApi1(RestApi):
    """The API of Airflow 2."""

    root = "api/v1"

    def start_run(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        reply = self.request("POST", f"dags/{quoted(dag_id)}/dagRuns", json={"conf": dict(conf)})
        return str(reply.json()["dag_run_id"])

    def mark(self, task: str, state: str) -> None:
        self.request("PATCH", task, json={"dry_run": False, "new_state": state})

    def xcom(self, task: str, key: str, map_index: int) -> Any:
        return self.get(f"{task}/xcomEntries/{quoted(key)}", map_index=map_index, stringify=False)["value"]

    def log(self, task: str, try_number: int, map_index: int) -> list[str]:
        parameters = {"map_index": map_index, "full_content": True}
        path = f"{task}/logs/{try_number}"
        reply = self.request("GET", path, params=parameters, headers={"Accept": "text/plain"})
        return [line_text(line) for line in reply.text.splitlines()]

    def connection_form(self, connection_type: str) -> str:
        return self.request("GET", "/connection/add", headers={"Accept": "text/html"}).text

    def _authenticate(self) -> None:
        self._session.auth = self._login

    def _probe(self) -> requests.Response:
        return self._session.get(f"{self._url}/health", timeout=REQUEST_TIMEOUT)


class RestApi2(RestApi):
    """The API of Airflow 3."""

    root = "api/v2"

    def start_run(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self.request("POST", f"dags/{quoted(dag_id)}/dagRuns", json=body).json()["dag_run_id"])

    def mark(self, task: str, state: str) -> None:
        self.request("PATCH", task, json={"new_state": state})

    def xcom(self, task: str, key: str, map_index: int) -> Any:
        return self.get(f"{task}/xcomEntries/{quoted(key)}", map_index=map_index)["value"]

    def log(self, task: str, try_number: int, map_index: int) -> list[str]:
        parameters = {"map_index": map_index, "full_content": True}
        path = f"{task}/logs/{try_number}"
        # As JSON, the log comes in pages, and each leaves a warning in the log of the api-server.
        reply = self.request("GET", path, params=parameters, headers={"Accept": "application/x-ndjson"})
        return [message_text(json.loads(line)) for line in reply.content.splitlines()]

    def connection_form(self, connection_type: str) -> str:
        forms = self.get("/ui/connections/hook_meta")
        return json.dumps([form for form in forms if form["connection_type"] == connection_type])

    def _authenticate(self) -> None:
        if "Authorization" not in self._session.headers:
            self._session.headers["Authorization"] = f"Bearer {self._token()}"

    def _token(self) -> str:
        url = f"{self._url}/auth/token"
        if self._login is None:
            response = self._session.get(url, timeout=REQUEST_TIMEOUT)
        else:
            user = dict(zip(("username", "password"), self._login, strict=True))
            response = self._session.post(url, json=user, timeout=REQUEST_TIMEOUT)
        token: str = response.json()["access_token"]
        return token

    def _probe(self) -> requests.Response:
        # Its first reply to a task takes 8 s, which no task should have to wait: it begins with the first one here.
        # Without a header of our own, the api-server logs the failure to read its own token.
        headers = {"Authorization": "none"}
        return self._session.get(f"{self._url}/execution/health", headers=headers, timeout=REQUEST_TIMEOUT)


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path of a DAG's run."""
    return f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}"


def task_path(dag_id: str, run_id: str, task_id: str) -> str:
    """Return the path of a run's task instance; of a mapped task, that of all its instances."""
    return f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"


def quoted(segment: str) -> str:
    """Return a name as one segment of a path."""
    return quote(segment, safe="")
