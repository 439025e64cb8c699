"""A real S3 server on loopback with one bucket, and how Airflow reaches it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    return Bucket(f"http://{host}:{port}")
