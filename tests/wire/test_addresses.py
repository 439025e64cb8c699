"""Outputs come from public addresses, and from hosts that the connection names: no spelling and no way gets round that."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_modelslab._http.addresses import is_public
from airflow_provider_modelslab._http.connection import DownloadOptions
from airflow_provider_modelslab.exceptions import ModelsLabSaveError
from airflow_provider_modelslab.operators import ModelsLabGenerateOperator
from airflow_provider_modelslab.sensors import ModelsLabJobSensor
from tests.support.raw_server import RawServer, reply, ssl_context_of
from tests.support.storing import PNG, RESIGNED, job, picture, save_outputs
from tests.support.tasks import RecordingTaskInstance
from tests.support.waiting import wait_until

SECRET = b"AccessKeyId"

REFUSED = {
    "loopback": "127.0.0.1",
    "another loopback": "127.255.255.254",
    "a dot at the end": "127.0.0.1.",
    "two parts": "127.1",
    "three parts": "127.0.1",
    "decimal": "2130706433",
    "hexadecimal": "0x7f000001",
    "hexadecimal parts": "0x7f.0x0.0x0.0x1",
    "octal parts": "0177.0.0.1",
    "octal": "017700000001",
    "unspecified": "0.0.0.0",
    "zero": "0",
    "a name": "localhost",
    "a name in capitals": "LOCALHOST.",
    "a name below": "a.localhost",
    "user-info": "modelslab.com@127.0.0.1",
    "user-info with a port": "modelslab.com:443@127.0.0.1",
    "v6 loopback": "[::1]",
    "v6 loopback in full": "[0:0:0:0:0:0:0:1]",
    "v6 unspecified": "[::]",
    "mapped": "[::ffff:127.0.0.1]",
    "mapped in hexadecimal": "[::ffff:7f00:1]",
    "compatible": "[::127.0.0.1]",
    "translated": "[64:ff9b::7f00:1]",
    "translated locally": "[64:ff9b:1::7f00:1]",
    "6to4": "[2002:7f00:1::1]",
    "Teredo": "[2001:0:7f00:1::1]",
    "metadata service": "169.254.169.254",
    "metadata service in decimal": "2852039166",
    "metadata service in hexadecimal": "0xa9fea9fe",
    "metadata service in octal": "0251.0376.0251.0376",
    "metadata service, mapped": "[::ffff:a9fe:a9fe]",
    "metadata service of v6": "[fd00:ec2::254]",
    "metadata service of Alibaba": "100.100.100.200",
    "metadata service of Oracle": "192.0.0.192",
    "wire server of Azure": "168.63.129.16",
    "private 10": "10.0.0.1",
    "private 172": "172.16.0.1",
    "private 192": "192.168.1.1",
    "link-local of v6": "[fe80::1]",
    "site-local of v6": "[fec0::1]",
    "multicast": "224.0.0.1",
    "multicast of v6": "[ff02::1]",
    "broadcast": "255.255.255.255",
    "documentation": "192.0.2.1",
}
"""Hosts that are refused by the address that they are."""

REFUSED_AS_URLS = {
    "full-width digits": "\uff11\uff12\uff17.0.0.1",
    "circled digits": "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "ideographic dots": "127\u30020\u30020\u30021",
    "percent-encoded": "%31%32%37.0.0.1",
    "a backslash": "127.0.0.1\\@modelslab.com",
    "too large a part": "383.0.0.1",
    "empty": "",
}
"""Hosts that lead nowhere, or to a name that a resolver may take for an address: the socket is judged in the end."""

by_form = pytest.mark.parametrize(
    "host", [*REFUSED.values(), *REFUSED_AS_URLS.values()], ids=[*REFUSED, *REFUSED_AS_URLS]
)


@pytest.fixture
def inner() -> Iterator[RawServer]:
    """A service of the network that a worker is in, which nobody outside should reach."""
    with RawServer() as server:
        server.answer(reply(SECRET, headers={"Content-Type": "image/png"}))
        yield server


@pytest.fixture(autouse=True)
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], None]:
    """Let names resolve to what a test says, and otherwise not at all: tests ask no network."""
    resolve, known = socket.getaddrinfo, dict[str, list[str]]()

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        addresses = known.get(name)
        if addresses is None and any(letter.isalpha() and letter not in "xabcdef" for letter in name.lower()):
            addresses = ["127.0.0.1"] if "localhost" in name else []
        if addresses is None:
            return resolve(host, port, *args, **kwargs)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [info for address in addresses for info in resolve(address, port, 0, socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known.update


def only(server: RawServer, **more: Any) -> DownloadOptions:
    """Return what a connection says whose own host is this server."""
    return DownloadOptions(allowed_hosts=frozenset({("127.0.0.1", server.port)}), **more)


def refusal(url: str, folder: Path, options: DownloadOptions) -> str:
    """Return the error of an output at a URL; nothing may have been stored."""
    with pytest.raises(ModelsLabSaveError) as caught:
        save_outputs([job(url)], str(folder), retry_policy=RESIGNED, download_options=options)
    assert not list(folder.iterdir())
    assert caught.value.without_files == () or "public address" not in str(caught.value)
    return str(caught.value)


@by_form
def test_no_spelling_of_an_inner_address_is_fetched(raw_server, inner, tmp_path, host):
    message = refusal(f"http://{host}:{inner.port}/a.png", tmp_path, only(raw_server))
    assert not inner.requests
    if host in REFUSED.values():
        assert "is no public address: if outputs are there, list the host" in message
        assert "'output_hosts'" in message


@by_form
def test_no_redirect_leads_to_an_inner_address(raw_server, inner, tmp_path, host):
    target = f"http://{host}:{inner.port}/b.png"
    head = b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % target.encode()
    raw_server.answer(head)
    message = refusal(f"{raw_server.url}/a.png", tmp_path, only(raw_server))
    assert len(raw_server.requests) == 1
    assert not inner.requests
    assert host not in REFUSED.values() or "'output_hosts'" in message


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
def test_a_name_that_resolves_to_an_inner_address(raw_server, inner, tmp_path, no_resolver, address):
    """What counts is where the socket is: whatever the name has meant before, or means next."""
    no_resolver({"cdn.rebinding.example": [address]})
    message = refusal(f"http://cdn.rebinding.example:{inner.port}/a.png", tmp_path, only(raw_server))
    assert f"{address} (cdn.rebinding.example) is no public address" in message
    wait_until(lambda: inner.connections == 1)
    assert not inner.requests


def test_over_tls_not_even_the_handshake_is_begun(raw_server, inner, tmp_path, no_resolver):
    no_resolver({"cdn.rebinding.example": ["127.0.0.1"]})
    message = refusal(f"https://cdn.rebinding.example:{inner.port}/a.png", tmp_path, only(raw_server))
    assert "no public address" in message
    assert not inner.requests


def test_proxy_links_are_judged_too(raw_server, inner, tmp_path):
    raw_server.answer(reply(b"", 404))
    one = job(f"{raw_server.url}/a.png", proxy_links=[f"{inner.url}/a.png"])
    with pytest.raises(ModelsLabSaveError):
        save_outputs([one], str(tmp_path), retry_policy=RESIGNED, download_options=only(raw_server))
    assert not inner.requests


def test_the_other_source_serves_where_one_is_refused(raw_server, inner, tmp_path):
    raw_server.answer(picture())
    one = job(f"{inner.url}/a.png", proxy_links=[f"{raw_server.url}/a.png"])
    (stored,) = save_outputs([one], str(tmp_path), retry_policy=RESIGNED, download_options=only(raw_server))
    assert Path(stored).read_bytes() == PNG
    assert not inner.requests


@pytest.mark.parametrize("allowed", [("127.0.0.1", None), ("127.0.0.1", 0)])
def test_a_host_that_is_allowed_may_have_any_address(inner, tmp_path, allowed):
    inner.answer(picture())
    host, port = allowed
    options = DownloadOptions(allowed_hosts=frozenset({(host, inner.port if port == 0 else None)}))
    (stored,) = save_outputs([job(f"{inner.url}/a.png")], str(tmp_path), download_options=options)
    assert Path(stored).read_bytes() == PNG


# --- the connection says it ---


def connect(monkeypatch: pytest.MonkeyPatch, server: RawServer, **extra: Any) -> None:
    connection = json.loads(server.connection)
    connection["extra"] |= extra
    monkeypatch.setenv("AIRFLOW_CONN_MODELSLAB_DEFAULT", json.dumps(connection))


def storing_sensor(url: str, folder: Path) -> ModelsLabJobSensor:
    """Return a sensor whose jobs come from a run's params: it asks ModelsLab for nothing."""
    record = {"endpoint": "v6/images", "id": 1, "status": "success", "output": [url]}
    return ModelsLabJobSensor(task_id="wait", jobs=record, output_path=str(folder), deferrable=False)


def storing_operator(url: str, folder: Path) -> ModelsLabGenerateOperator:
    return ModelsLabGenerateOperator(
        task_id="draw", endpoint="v6/images/text2img", payload={}, output_path=str(folder), deferrable=False
    )


def answer_with_output(server: RawServer, url: str) -> None:
    done = reply({"status": "success", "id": 1, "output": [url]})
    server.answer_to = lambda request: done if request.startswith(b"POST") else picture()


tasks = pytest.mark.parametrize("task", [storing_sensor, storing_operator])


@tasks
def test_what_an_upstream_hands_in_leads_to_no_inner_address(raw_server, inner, tmp_path, monkeypatch, task):
    url = f"{inner.url}/latest/meta-data/iam/security-credentials/role"
    connect(monkeypatch, raw_server)
    answer_with_output(raw_server, url)
    with pytest.raises(AirflowException, match=r"127\.0\.0\.1 is no public address.*'output_hosts'"):
        task(url, tmp_path).execute({"ti": RecordingTaskInstance()})
    assert not inner.requests
    assert not list(tmp_path.glob("v6.*"))


@tasks
def test_the_connections_own_host_needs_no_setting(raw_server, tmp_path, monkeypatch, task):
    connect(monkeypatch, raw_server)
    answer_with_output(raw_server, url := f"{raw_server.url}/a.png")
    ti = RecordingTaskInstance()
    task(url, tmp_path).execute({"ti": ti})
    assert Path(ti.xcoms["files"][0]).read_bytes() == PNG


@tasks
def test_output_hosts_may_be_private(raw_server, inner, tmp_path, monkeypatch, task):
    inner.answer(picture())
    connect(monkeypatch, raw_server, output_hosts=f"minio.internal, 127.0.0.1:{inner.port}")
    answer_with_output(raw_server, url := f"{inner.url}/a.png")
    ti = RecordingTaskInstance()
    task(url, tmp_path).execute({"ti": ti})
    assert Path(ti.xcoms["files"][0]).read_bytes() == PNG


# --- on the way ---


def test_no_redirect_leads_from_https_to_http(raw_server, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    raw_server.ssl_context = ssl_context_of(authority.issue_cert("127.0.0.1"))
    with RawServer() as plain:
        raw_server.answer(reply(b"", 302, {"Location": f"{plain.url}/b.png"}))
        options = DownloadOptions(str(tmp_path / "ca.pem"), frozenset({("127.0.0.1", None)}))
        message = refusal(f"{raw_server.url}/a.png", tmp_path / "out", options)
        assert "from https to http" in message
        assert not plain.requests


def test_no_cookie_goes_from_one_download_to_another(raw_server, tmp_path):
    raw_server.answer(
        reply(b"", 302, {"Location": "/b.png", "Set-Cookie": "id=1; Path=/"}),
        picture(Set_Cookie="id=1; Path=/"),
        picture(),
    )
    for number in "12":
        one = job(f"{raw_server.url}/{number}.png", job_id=number)
        save_outputs([one], str(tmp_path), download_options=only(raw_server))
    assert len(raw_server.requests) == 3
    assert b"cookie" not in b"".join(raw_server.requests).lower()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    with RawServer() as server:
        server.answer(picture())
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        yield server


@pytest.mark.parametrize("host", REFUSED.values(), ids=REFUSED)
def test_behind_a_proxy_literal_addresses_are_judged(proxy, raw_server, tmp_path, host):
    assert "'output_hosts'" in refusal(f"http://{host}/a.png", tmp_path, only(raw_server))
    assert not proxy.requests


def test_behind_a_proxy_a_name_is_the_proxys_to_judge(proxy, raw_server, tmp_path):
    """The limit that the page on security names."""
    save_outputs([job("http://inner.example/a.png")], str(tmp_path), download_options=only(raw_server))
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::ffff:10.0.0.1", "5f00::1", "3fff::1", "2001:db8::1", "", "x"])
def test_other_addresses_are_not(address):
    assert not is_public(address)
