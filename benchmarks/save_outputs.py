"""
How much memory and time it takes to store outputs, on local files and on S3.

Everything is real but far away: one process serves the files over HTTP, one is an S3 server (moto), and one of its own
per store calls ``save_outputs``. The memory is the peak of that process's resident set, as the kernel counts it, less
what it was before: before the first call of all, which imports Airflow's and the store's libraries, and before the
same call in a process that has stored one small file already. Linux only.

    python benchmarks/save_outputs.py [--megabytes 1000] [--file-megabytes 100] [--stores local s3] [--json]
"""

from __future__ import annotations

import argparse
import http.server
import json
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MB = 10**6
HEAD = b"\0\0\0\x18ftypmp42"
PATTERN = bytes(range(256)) * 2048
REGION = "us-east-1"
PROCESSES = multiprocessing.get_context("spawn")


class Films(http.server.BaseHTTPRequestHandler):
    """Serves ``/<anything>-<bytes>.mp4``: so many bytes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = int(re.findall(r"-(\d+)\.mp4", self.path)[0])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        self.wfile.write(HEAD)
        left = size - len(HEAD)
        while left:
            left -= self.wfile.write(PATTERN[:left])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve_films(ready: Connection) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Films) as server:
        ready.send(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()


def serve_s3(ready: Connection) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    sys.stdout = sys.stderr
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    ready.send(f"http://{host}:{port}")
    time.sleep(24 * 3600)


def store_films(ready: Connection, films: str, output_path: str, sizes: list[int], warm: bool) -> None:
    """Store files of the sizes given, and send what it took."""
    logging.disable(logging.CRITICAL)
    sys.stdout = sys.stderr
    from airflow_provider_modelslab._http.connection import DownloadOptions
    from airflow_provider_modelslab._outputs.saving import save_outputs
    from airflow_provider_modelslab.jobs import Job

    def job(job_id: str, sizes: list[int]) -> Job:
        return Job(job_id, "v6/video", "success", [f"{films}/{job_id}-{size}.mp4" for size in sizes])

    here = DownloadOptions(allowed_hosts=frozenset({("127.0.0.1", None)}))
    if warm:
        save_outputs([job("small", [1000])], output_path, download_options=here)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now
    started = time.monotonic()
    stored = save_outputs([job("large", sizes)], output_path, download_options=here)
    seconds = time.monotonic() - started
    ready.send({"files": len(stored), "seconds": seconds, "memory": (memory("VmHWM") - before) / MB})


def memory(name: str) -> int:
    """Return a figure of this process's memory in bytes."""
    return 1024 * int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


@contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[object]:
    """Run a function in a process of its own, and yield the first that it sends."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=target, args=(sending, *args))
    child.start()
    sending.close()
    try:
        yield receiving.recv()
    finally:
        child.terminate()
        child.join()


@contextmanager
def local_store(folder: str) -> Iterator[str]:
    yield f"file://{folder}/stored/"


@contextmanager
def s3_store(folder: str) -> Iterator[str]:
    import boto3

    with process(serve_s3) as url:
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="benchmark", aws_secret_access_key="benchmark", region_name=REGION
        )
        client.create_bucket(Bucket="films")
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(
            {
                "conn_type": "aws",
                "login": "benchmark",
                "password": "benchmark",
                "extra": {"endpoint_url": url, "region_name": REGION},
            }
        )
        yield "s3://aws_default@films/stored/"


STORES = {"local": local_store, "s3": s3_store}


def measure(store: str, sizes: list[int]) -> dict[str, Any]:
    """Return what storing takes: from nothing, and again in a process that has stored before."""
    with tempfile.TemporaryDirectory(prefix="save-outputs-") as folder:
        os.environ["TMPDIR"] = folder  # where moto keeps what it is given
        os.environ["AIRFLOW_HOME"] = folder
        with process(serve_films) as films, STORES[store](folder) as output_path:
            run = partial(process, store_films, films)
            with run(f"{output_path}cold", sizes, False) as cold, run(f"{output_path}warm", sizes, True) as warm:
                return {"store": store, "files": len(sizes), "megabytes": sum(sizes) / MB, "cold": cold, "warm": warm}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--file-megabytes", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = [options.file_megabytes * MB] * (options.megabytes // options.file_megabytes)
    results = [measure(store, sizes) for store in options.stores]
    if options.json:
        print(json.dumps(results))
        return
    print("| store | stored | seconds | memory above the process before | above one that has stored before |")
    print("|---|---|---|---|---|")
    for result in results:
        cold, warm = result["cold"], result["warm"]
        print(
            f"| {result['store']} | {result['files']} files, {result['megabytes']:.0f} MB | {warm['seconds']:.1f} | "
            f"{cold['memory']:.0f} MB | {warm['memory']:.0f} MB |"
        )


if __name__ == "__main__":
    main()
