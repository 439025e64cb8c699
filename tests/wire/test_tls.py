"""Whom TLS connections trust: the same on workers and on event loops, and never nobody's word."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_modelslab._http import tls
from airflow_provider_modelslab.exceptions import ModelsLabArgumentError, ModelsLabSaveError, ModelsLabTransientError
from airflow_provider_modelslab.hooks import ModelsLabHook
from airflow_provider_modelslab.jobs import Job
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.pacing import FAST, set_policy
from tests.support.raw_server import RawServer, reply, ssl_context_of
from tests.support.storing import PNG, RESIGNED, picture, save_outputs
from tests.support.tasks import RecordingTaskInstance
from tests.support.triggers import event_of, make_trigger

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def fetch() -> Job:
    return ModelsLabHook().fetch(1, "v6/video")


def submit() -> Job:
    return ModelsLabHook().submit("v6/video/text2video", {})


def poll_many() -> Job:
    (seen,) = ModelsLabHook().poller.poll_many([Job("1", "v6/video")])
    if not seen.job.finished:
        raise ModelsLabTransientError(seen.job.message)
    return seen.job


def afetch() -> Job:
    return asyncio.run(ModelsLabHook().afetch(1, "v6/video"))


def asubmit() -> Job:
    return asyncio.run(ModelsLabHook().asubmit("v6/video/text2video", {}))


every_way = pytest.mark.parametrize("poll", [fetch, submit, poll_many, afetch, asubmit])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(autouse=True)
def no_bundle_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[RawServer]:
    """A server behind TLS whose certificate comes from an authority of its own."""
    with RawServer(ssl_context=ssl_context_of(authority.issue_cert("127.0.0.1"))) as server:
        server.answer(reply({"status": "success", "id": 1, "output": ["https://cdn.example/a.png"]}))
        yield server


def connect(monkeypatch: pytest.MonkeyPatch, server: RawServer, **extra: Any) -> None:
    connection = json.loads(server.connection)
    connection["extra"] |= extra
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


@every_way
def test_an_untrusted_certificate_is_refused(server: RawServer, monkeypatch, poll):
    connect(monkeypatch, server)
    with pytest.raises(ModelsLabTransientError, match=r"no trusted TLS connection .*ca_bundle"):
        poll()
    assert not server.requests


@every_way
def test_the_connections_bundle_is_trusted(server: RawServer, ca_file, monkeypatch, poll):
    connect(monkeypatch, server, ca_bundle=str(ca_file))
    assert poll().outputs
    assert len(server.requests) == 1


@every_way
@pytest.mark.parametrize("variable", VARIABLES[:3])
def test_the_environments_bundle_is_trusted(server: RawServer, ca_file, monkeypatch, variable, poll):
    connect(monkeypatch, server)
    monkeypatch.setenv(variable, str(ca_file))
    assert poll().outputs


@every_way
def test_the_connections_bundle_comes_before_the_environments(server: RawServer, ca_file, monkeypatch, poll, tmp_path):
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    connect(monkeypatch, server, ca_bundle=str(ca_file))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger))
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger))
    assert poll().outputs
    connect(monkeypatch, server, ca_bundle=str(stranger))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with pytest.raises(ModelsLabTransientError, match="TLS"):
        poll()


@every_way
def test_a_bundle_does_not_cover_another_host(server: RawServer, ca_file, monkeypatch, poll):
    connect(monkeypatch, server, ca_bundle=str(ca_file))
    connection = json.loads(server.connection.replace("127.0.0.1", "localhost"))
    connection["extra"]["ca_bundle"] = str(ca_file)
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))
    with pytest.raises(ModelsLabTransientError, match="TLS"):
        poll()
    assert not server.requests


@every_way
def test_a_wrong_path_is_named(server: RawServer, monkeypatch, poll, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for path, reason in ((tmp_path / "missing.pem", "cannot be read"), (empty, "holds no certificates")):
        connect(monkeypatch, server, ca_bundle=str(path))
        with pytest.raises(ModelsLabArgumentError, match=rf"'modelslab_default'.*'ca_bundle' .*{path}.*{reason}"):
            poll()
    connect(monkeypatch, server)
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with pytest.raises(ModelsLabArgumentError, match=r"CURL_CA_BUNDLE .*missing\.pem"):
        poll()


STORING_TASKS = {
    "sensor": lambda folder: ModelsLabJobSensor(
        task_id="wait", jobs="1", endpoint="v6/video", output_path=folder, deferrable=False
    ),
    "operator": lambda folder: ModelsLabGenerateOperator(
        task_id="draw", endpoint="v6/video/text2video", payload={}, output_path=folder, deferrable=False
    ),
}


@pytest.mark.parametrize("task", STORING_TASKS.values(), ids=STORING_TASKS)
@pytest.mark.parametrize("by", ["ca_bundle", *VARIABLES[:3]])
def test_outputs_are_downloaded_from_whom_requests_trust(server: RawServer, ca_file, monkeypatch, tmp_path, task, by):
    done = reply({"status": "success", "id": 1, "output": [f"{server.url}/a.png"]})
    server.answer_to = lambda request: picture() if request.startswith(b"GET") else done
    if by == "ca_bundle":
        connect(monkeypatch, server, ca_bundle=str(ca_file))
    else:
        connect(monkeypatch, server)
        monkeypatch.setenv(by, str(ca_file))
    task_instance = RecordingTaskInstance()
    task(str(tmp_path / "out")).execute({"ti": task_instance})
    (stored,) = task_instance.xcoms["files"]
    assert Path(stored).read_bytes() == PNG


def test_outputs_are_not_downloaded_from_strangers(server: RawServer, tmp_path):
    done = Job("1", "v6/video", "success", [f"{server.url}/a.png"])
    with pytest.raises(ModelsLabSaveError, match="SSLError"):
        save_outputs([done], str(tmp_path), retry_policy=RESIGNED)
    assert not server.requests


def test_a_folder_of_certificates_will_do(ca_file: Path, tmp_path: Path):
    assert tls.create_ssl_context(str(ca_file.parent)).verify_mode is ssl.CERT_REQUIRED


def test_the_test_of_a_connection_names_a_wrong_path(server: RawServer, monkeypatch):
    connect(monkeypatch, server, ca_bundle="/missing.pem")
    good, message = ModelsLabHook().test_connection()
    assert not good
    assert "/missing.pem" in message


def event(**arguments) -> dict:
    return event_of(make_trigger([{"id": "1", "endpoint": "v6/video"}], **arguments))


def test_the_trigger_trusts_the_connections_bundle(server: RawServer, ca_file, monkeypatch):
    connect(monkeypatch, server, ca_bundle=str(ca_file))
    assert event()["jobs"][0]["outputs"]


def test_the_trigger_names_a_wrong_path(server: RawServer, monkeypatch):
    set_policy(monkeypatch, **FAST)
    connect(monkeypatch, server, ca_bundle="/missing.pem")
    ended = event(poke_interval=None)
    assert ended["status"] == "error"
    assert "/missing.pem" in ended["message"]


def test_who_is_trusted_is_read_once_for_many_jobs_and_off_the_event_loop(server: RawServer, ca_file, monkeypatch):
    readings = []
    original = tls.create_ssl_context

    def create_ssl_context(path: str | None) -> ssl.SSLContext:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        readings.append(path)
        return original(path)

    monkeypatch.setattr(tls, "create_ssl_context", create_ssl_context)
    connect(monkeypatch, server, ca_bundle=str(ca_file))
    ModelsLabHook().poller.poll_many([Job(str(number), "v6/video") for number in range(30)])
    assert len(readings) == 1
    assert event()["status"] == "finished"
    assert len(readings) == 2


def test_without_tls_nothing_is_read(raw_server: RawServer, monkeypatch):
    connect(monkeypatch, raw_server, ca_bundle="/missing.pem")
    assert fetch().status == afetch().status == "processing"
