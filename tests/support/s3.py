"""A real S3 server on loopback with one bucket, and how Airflow reaches it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock, Thread
from typing import Any

import pytest


class Bucket:
    """
    The bucket ``bucket`` of a server.

    :param url: where the server is.
    """

    def __init__(self, url: str) -> None:
        import boto3

        self.connection = json.dumps(
            {
                "conn_type": "aws",
                "login": "test",
                "password": "test-secret",
                "extra": {"endpoint_url": url, "region_name": "us-east-1"},
            }
        )
        """The Airflow connection: the value for ``AIRFLOW_CONN_AWS_DEFAULT``."""
        self.client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket="bucket")

    def objects(self) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket="bucket").get("Contents", [])
        return {o["Key"]: self.client.get_object(Bucket="bucket", Key=o["Key"])["Body"].read() for o in found}

    def uploads(self) -> list[str]:
        """Return what is being uploaded and not completed."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])]

    def empty(self) -> None:
        for key in self.objects():
            self.client.delete_object(Bucket="bucket", Key=key)


@contextmanager
def serve_bucket() -> Iterator[Bucket]:
    """Hand out an empty bucket, where a server is installed; else the test is skipped."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    bucket = _bucket()
    bucket.empty()
    yield bucket


@cache
def _bucket() -> Bucket:
    """Start the one server of this process: Airflow keeps its file system of a connection, with the address, for ever."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    return Bucket(f"http://127.0.0.1:{server.port}")


def _one_at_a_time(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return a WSGI application that handles one request at a time: so a conditional write is atomic, as S3's is."""
    lock = Lock()

    def call(*arguments: Any) -> Any:
        with lock:
            return application(*arguments)

    return call
