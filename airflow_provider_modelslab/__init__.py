"""Airflow provider for ModelsLab: wait for queued generation jobs without holding a worker."""

from __future__ import annotations

__version__ = "0.1.0"
