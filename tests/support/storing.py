"""What the tests of stored outputs have in common: files, jobs that lead to them, and workers that store."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

from airflow_provider_modelslab._http.connection import DownloadOptions
from airflow_provider_modelslab._outputs import saving as saving_module
from airflow_provider_modelslab._outputs.downloads import RetryPolicy
from airflow_provider_modelslab.jobs import Job, Output
from airflow_provider_modelslab.sandbox.media import make
from tests.support.raw_server import reply

PNG = make("png", "a lighthouse") + bytes(5000)  # longer than the head by which files are judged
ENCODED = base64.b64encode(PNG).decode()
RESIGNED = RetryPolicy(absent=0, faults=0, pause=0.001, longest_pause=0.01)

PATIENT = RetryPolicy(
    absent=3600, faults=3600, pause=0.001, longest_pause=0.01, silence=3600, least_speed=100, slow_after=0.5
)
"""Gives up on what drips, within a second or two, and on nothing that a busy machine holds up."""

LOOPBACK = DownloadOptions(allowed_hosts=frozenset({("127.0.0.1", None), ("localhost", None)}))
"""As a connection does that lists this machine in ``output_hosts``."""


def save_outputs(*args: Any, **kwargs: Any) -> list[str]:
    """Store outputs as tasks do, also from this machine, and return where they are."""
    return [path for path, _ in saving_module.save_outputs(*args, **{"download_options": LOOPBACK, **kwargs})]


def picture(content: bytes = PNG, **headers: str) -> bytes:
    return reply(content, headers={"Content-Type": "image/png", **{k.replace("_", "-"): v for k, v in headers.items()}})


def job(*outputs: Output, job_id: str = "147", **more: Any) -> Job:
    return Job(job_id, "v6/images", "success", list(outputs), **more)


def saving(url: str, output_path: str) -> str:
    """Return the code of a worker that stores one file."""
    return f"""
from airflow_provider_modelslab.jobs import Job, Output
from tests.support.storing import save_outputs
save_outputs([Job("147", "v6/images", "success", [{url!r}])], {output_path!r})
"""


def run_python(code: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent.parent, **options)
