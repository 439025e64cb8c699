"""
Airflow provider for ModelsLab: wait for queued generation jobs without holding a worker.

Import from ``operators``, ``sensors``, ``hooks``, ``triggers``, ``decorators``, ``links``, ``jobs``, ``endpoints``,
``exceptions`` and ``sandbox``. Folders with an underscore are private. ``docs/architecture.md`` in the repository tells
the way of a job through the modules.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: Airflow finds this function by the distribution's entry point."""
    from airflow_provider_modelslab.provider_info import provider_info

    return provider_info()
