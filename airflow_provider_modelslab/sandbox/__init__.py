"""
A stateful stand-in for the ModelsLab API on this machine, to develop and test DAGs without a key and without credits.

``python -m airflow_provider_modelslab.sandbox`` starts one, :class:`Sandbox` runs one inside a test, and the fixture
``modelslab_sandbox`` hands one to a pytest test. How a request travels:

- ``server`` turns bytes into values of ``http``, ``request_log`` keeps them, ``sandbox`` guards the rest with a lock;
- ``api`` finds the route and checks the request, ``state`` keeps the jobs, ``faults`` decides what goes wrong;
- ``replies`` spells the answers, ``media`` has the files of finished jobs, ``webhooks`` calls the clients;
- ``control_api`` serves ``/sandbox/``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_modelslab.sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run, for the fixture: load the server only where one is started.
    if name == "Sandbox":
        from airflow_provider_modelslab.sandbox.sandbox import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
