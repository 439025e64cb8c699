"""A StatsD server: a UDP socket that keeps what arrives, tags in the form of InfluxDB."""

from __future__ import annotations

import socket
import threading
from typing import Any, NamedTuple

LONGEST = 65535

PREFIX = "airflow.modelslab"

KINDS = {"c": "counter", "ms": "timer", "g": "gauge"}


class Sample(NamedTuple):
    """One value of a metric, as it came over the wire."""

    name: str
    kind: str
    tags: dict[str, str]
    value: float


def read_sample(text: str) -> Sample:
    """Read a line such as ``airflow.modelslab.polls,verdict=success:3|c``."""
    named, _, valued = text.rpartition(":")
    name, *tags = named.split(",")
    value, kind = valued.split("|")[:2]
    return Sample(name, KINDS[kind], dict(tag.split("=", 1) for tag in tags), float(value))


class StatsdServer:
    """Receives metrics on a free port until it is stopped."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        """What Airflow must be told to send its metrics here."""
        host, port = self._socket.getsockname()
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
            # Airflow sends many metrics of its own, and a busy machine drops unread datagrams.
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": PREFIX.partition(".")[2],
            "AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY": "True",  # as Airflow 3 does anyway
        }

    @property
    def samples(self) -> list[Sample]:
        """What has arrived of this provider, in that order, without Airflow's own prefix."""
        samples = (read_sample(line) for line in list(self._lines) if line.startswith(PREFIX))
        return [sample._replace(name=sample.name.removeprefix("airflow.")) for sample in samples]

    def stop(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> StatsdServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def _receive(self) -> None:
        while packet := self._socket.recv(LONGEST):
            self._lines += packet.decode().splitlines()
