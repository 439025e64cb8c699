"""
Airflow provider for ModelsLab: wait for queued generation jobs without holding a worker.

How data flows, by module: on a worker, ``sensors`` and ``operators`` turn what they are given into jobs
(``job_arguments``, ``submissions``) and ask ``hooks``, which reads the ``connection``, addresses ``endpoints`` and
sends by ``transport``; ``jobs`` says what a reply means. What is not done goes by ``deferral`` to ``triggers``,
where one ``poller`` looks at all jobs of the triggerer, each when ``schedule`` says so, by ``async_transport``;
``waits`` says what the polls amount to. The event comes back to the worker, where ``results`` makes XComs of it,
and ``outputs`` stores the files.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: Airflow finds this function by the distribution's entry point."""
    from airflow_provider_modelslab.provider_info import provider_info

    return provider_info()
