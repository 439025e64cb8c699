"""Airflow provider for ModelsLab: wait for queued generation jobs without holding a worker."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata: Airflow finds this function by the distribution's entry point."""
    from airflow_provider_modelslab.provider_info import provider_info

    return provider_info()
