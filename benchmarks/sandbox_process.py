"""The sandbox as ModelsLab, in a process of its own: it shares neither interpreter nor event loop with anyone."""

from __future__ import annotations

import logging
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from airflow_provider_modelslab.sandbox import Sandbox

PATH = "v6/video/text2video"


@dataclass(frozen=True)
class Submitted:
    """
    A submitted job and what became of it; all moments in seconds since the epoch.

    :param id: its id.
    :param endpoint: the family to fetch it under.
    :param eta: ModelsLab's estimate in seconds.
    :param submitted: when it was submitted.
    :param ready: when it is done.
    :param polls: when it was polled.
    """

    id: str
    endpoint: str
    eta: float | None
    submitted: float
    ready: float
    polls: list[float]

    @property
    def noticed(self) -> float:
        """When the request arrived whose reply was the result."""
        # What finishes between the arrival of a request and the answer to it is noticed at once.
        return next((poll for poll in self.polls if poll >= self.ready), self.ready)

    def record(self) -> dict[str, Any]:
        """Return what the provider's operator hands to the next task."""
        return {"id": self.id, "endpoint": self.endpoint, "eta": self.eta, "submitted": round(self.submitted, 3)}


class SandboxProcess:
    """
    A sandbox in a process; a context manager.

    :param options: for :class:`~airflow_provider_modelslab.sandbox.Sandbox`.
    """

    def __init__(self, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, options), daemon=True)

    def __enter__(self) -> SandboxProcess:
        self._process.start()
        self.url: str
        self.key: str
        self.url, self.key = self._pipe.recv()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.send(("stop", ()))
        self._process.join()

    def submit(self, count: int) -> list[Submitted]:
        """Forget all jobs and submit others: with the same seed, the same count is the same jobs."""
        submitted: list[Submitted] = self._ask("submit", count)
        return submitted

    def seen(self) -> list[Submitted]:
        """Return the jobs with the requests about each until now."""
        seen: list[Submitted] = self._ask("seen")
        return seen

    def polls(self) -> int:
        """Return how many polls have come since the jobs were submitted."""
        return int(self._ask("state")["requests"]["fetch"])

    def finish_all(self) -> None:
        """End all jobs now."""
        self._ask("finish_all")

    def _ask(self, command: str, *arguments: Any) -> Any:
        self._pipe.send((command, arguments))
        return self._pipe.recv()


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    # Importing Airflow, as the main module does, has set up logging: a line for each request.
    logging.getLogger("airflow_provider_modelslab").setLevel(logging.WARNING)
    with Sandbox(**{"queue_limit": None, **options}) as sandbox:
        pipe.send((sandbox.url, sandbox.key))
        while True:
            command, arguments = pipe.recv()
            if command == "stop":
                return
            if command == "submit":
                sandbox.reset()
                for _ in range(*arguments):
                    sandbox.submit(PATH, {"prompt": "a lighthouse at dusk"})
            elif command == "finish_all":
                sandbox.finish_all()
            pipe.send(sandbox.state() if command == "state" else _seen(sandbox))


def _seen(sandbox: Sandbox) -> list[Submitted]:
    to_epoch = time.time() - time.monotonic()
    polls: dict[str, list[float]] = {}
    for request in sandbox.requests:
        polls.setdefault(request.path.rpartition("/")[2], []).append(request.at + to_epoch)
    return [
        Submitted(
            id=str(job.id),
            endpoint=job.request.fetch_endpoint,
            eta=job.eta,
            submitted=job.submitted + to_epoch,
            ready=(job.finished or job.submitted + job.duration) + to_epoch,
            polls=polls.get(str(job.id), []),
        )
        for job in sandbox.jobs.values()
    ]
