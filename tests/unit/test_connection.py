from __future__ import annotations

import json
import logging
import traceback
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from airflow_provider_modelslab._http.connection import ClientOptions, read_connection
from airflow_provider_modelslab.provider_info import CONNECTION_FIELDS


def connection(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"host": None, "port": None, "schema": None, "password": "secret-key", "extra": None, **fields}
    )


def test_defaults():
    assert read_connection(connection()) == ClientOptions("secret-key", None, 30.0, 3)


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": ""}, None),
        ({"host": "https://modelslab.com/"}, None),
        ({"host": "modelslab.com"}, None),
        ({"host": "https://stablediffusionapi.com"}, "https://stablediffusionapi.com"),
        ({"host": "http://127.0.0.1:8787"}, "http://127.0.0.1:8787"),
        ({"host": "http://127.0.0.1:8787/api/"}, "http://127.0.0.1:8787"),
        ({"host": " http://127.0.0.1 ", "port": 8787}, "http://127.0.0.1:8787"),
        ({"host": "gateway.example", "port": 0}, "https://gateway.example"),  # what Airflow's form makes of nothing
        ({"host": "127.0.0.1", "port": 8787, "schema": "http"}, "http://127.0.0.1:8787"),
        ({"host": "gateway.example"}, "https://gateway.example"),
        ({"host": "127.0.0.1", "port": 8787}, "http://127.0.0.1:8787"),
        ({"host": "localhost:8787"}, "http://localhost:8787"),
        ({"host": "https://gateway.example/modelslab"}, "https://gateway.example/modelslab"),
        ({"host": "http://[::1]:8787"}, "http://[::1]:8787"),
        ({"host": "[::1]:8787"}, "http://[::1]:8787"),
        ({"host": "127.8.9.1:8787"}, "http://127.8.9.1:8787"),
        ({"host": "127.0.0.1.gateway.example"}, "https://127.0.0.1.gateway.example"),
        ({"host": "localhost.gateway.example"}, "https://localhost.gateway.example"),
        ({"host": "localhost-gateway"}, "https://localhost-gateway"),
        ({"host": "[2001:db8::1]:8787"}, "https://[2001:db8::1]:8787"),
        ({"host": "https://modelslab.com/api/v6"}, None),
        ({"host": "modelslab.com/api/v6/images/text2img/"}, None),
        ({"host": "https://stablediffusionapi.com/api/v3"}, "https://stablediffusionapi.com"),
        ({"host": "http://stablediffusionapi.com:80"}, "https://stablediffusionapi.com"),
        ({"host": "https://gateway.example/api/v6/"}, "https://gateway.example"),
        ({"host": "https://gateway.example/lab/api"}, "https://gateway.example/lab"),
        ({"host": "https://gateway.example/lab/apis"}, "https://gateway.example/lab/apis"),
        ({"host": "gateway.example", "port": 65535}, "https://gateway.example:65535"),
    ],
)
def test_hosts(fields, base_url):
    assert read_connection(connection(**fields)).base_url == base_url


@pytest.mark.parametrize(
    "host",
    [
        "ftp://x",
        "https://user:secret-key@x",
        "https://x?key=1",
        "https://x#y",
        "https://",
        "http://[::1",
        "http://x:99999",
        "a b",
        "a\x1bb",
        "modelslab.com\\.evil.example",
    ],
)
def test_bad_hosts_are_refused_by_name(host):
    with pytest.raises(ValueError, match="host") as caught:
        read_connection(connection(host=host))
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_are_checked(port):
    with pytest.raises(ValueError, match=f"host has no port {port}: ports are whole numbers from 1 to 65535"):
        read_connection(connection(host="gateway.example", port=port))


@pytest.mark.parametrize("password", [None, "", "  "])
def test_a_missing_key_is_refused(password):
    with pytest.raises(ValueError, match="no API key"):
        read_connection(connection(password=password))


@pytest.mark.parametrize("key", ["a-key-with-\na-line-break", "a-key-with-\ra-return", "a-key-with-\0a-NUL"])
def test_a_key_that_no_header_can_hold_is_refused(key):
    with pytest.raises(ValueError, match="line break or another control character") as caught:
        read_connection(connection(password=key))
    assert "a-key-with" not in str(caught.value)


@pytest.mark.parametrize("key", ["images", "success", "v6/video", "https", "output", "e", "modelslab.com"])
def test_a_key_that_stands_in_every_reply_is_refused(key):
    with pytest.raises(ValueError, match="its API key is a word") as caught:
        read_connection(connection(password=key))
    assert repr(key) not in str(caught.value)


@pytest.mark.parametrize(("key", "warned"), [("k3Y-8chr", True), ("k" * 15, True), ("k" * 16, False)])
def test_a_short_key_is_warned_of(key, warned, caplog):
    caplog.set_level(logging.WARNING)
    read_connection(connection(password=key))
    assert ["less than 16 characters" in record.getMessage() for record in caplog.records] == [True] * warned
    assert key not in caplog.text


def test_a_traceback_with_local_variables_does_not_show_the_key():
    class Fields(SimpleNamespace):
        __repr__ = object.__repr__

    with pytest.raises(ValueError, match="request_timeout") as caught:
        read_connection(Fields(**vars(connection(extra='{"request_timeout": 0}'))))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret-key" not in shown
    assert "key = '***'" in shown


def test_extras():
    extra = json.dumps({"request_timeout": "12.5", "retries": 0})
    options = read_connection(connection(extra=extra))
    assert (options.request_timeout, options.retries) == (12.5, 0)
    assert read_connection(connection(extra=json.dumps({"request_timeout": None, "retries": ""}))) == ClientOptions(
        "secret-key"
    )


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ("{", "extra"),
        ("[]", "extra"),
        (json.dumps({"request_timeout": 0}), "request_timeout"),
        (json.dumps({"request_timeout": "soon"}), "request_timeout"),
        (json.dumps({"request_timeout": 1e300}), "request_timeout"),
        (json.dumps({"request_timeout": True}), "request_timeout"),
        (json.dumps({"request_timeout": [1]}), "request_timeout"),
        ('{"request_timeout": 1e999}', "request_timeout"),
        (json.dumps({"retries": -1}), "retries"),
        (json.dumps({"retries": 1.5}), "retries"),
        (json.dumps({"retries": True}), "retries"),
        (json.dumps({"retries": 10**9}), "retries"),
        (json.dumps({"requests_per_second": 0}), "requests_per_second"),
    ],
)
def test_bad_extras_are_refused_by_name(extra, name):
    with pytest.raises(ValueError, match=name):
        read_connection(connection(extra=extra))


@pytest.mark.parametrize("name", ["request_timeout", "retries", "requests_per_second"])
@pytest.mark.parametrize("value", [-1, 0, 0.001, 0.5, 1, 1.5, 3.0, 100, 101, 86400, 86400.5, 1e9])
def test_the_form_and_the_reader_agree(name, value):
    schema = CONNECTION_FIELDS[name]["schema"]
    fields = connection(extra=json.dumps({name: value}))
    if jsonschema.Draft202012Validator(schema).is_valid(value):
        assert getattr(read_connection(fields), name) == value
    else:
        with pytest.raises(ValueError, match=name):
            read_connection(fields)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        (None, set()),
        ("", set()),
        ("minio.internal", {("minio.internal", None)}),
        (" MinIO.internal., 10.1.2.3:9000 ", {("minio.internal", None), ("10.1.2.3", 9000)}),
        ("[::1]:80, fd00::1", {("::1", 80), ("fd00::1", None)}),
    ],
)
def test_hosts_of_outputs(text, hosts):
    options = read_connection(connection(extra=json.dumps({"output_hosts": text})))
    assert options.download_options.allowed_hosts == hosts


@pytest.mark.parametrize("text", ["https://x", "x/y", "me@x", "x:0x50", "x:99999", "*.x", "10.0.0.0/8", ["x"], 7])
def test_what_is_no_host_of_outputs_is_refused_by_name(text):
    with pytest.raises(ValueError, match="'output_hosts'"):
        read_connection(connection(extra=json.dumps({"output_hosts": text})))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("http://127.0.0.1:8787", {("127.0.0.1", 8787)}),
        ("https://Gateway.internal/lab", {("gateway.internal", 443)}),
        ("http://[::1]", {("::1", 80)}),
        ("", set()),
    ],
)
def test_downloads_may_come_from_the_own_host(host, allowed):
    assert read_connection(connection(host=host)).download_options.allowed_hosts == allowed


def test_limits_of_spending_are_optional():
    assert read_connection(connection(extra='{"max_jobs_per_day": ""}')) == ClientOptions("secret-key")
    extra = {"max_jobs_per_day": "0", "max_spending_per_day": 0.5, "prices": '{"v6/images": 0.005}'}
    options = read_connection(connection(extra=json.dumps(extra)))
    assert (options.max_jobs_per_day, options.max_spending_per_day) == (0, 0.5)
    assert options.prices == {"v6/images": 0.005}
    hash(options)  # clients and fingerprints are kept by their options


@pytest.mark.parametrize(
    "wrong",
    [{"max_jobs_per_day": 1.5}, {"max_jobs_per_day": -1}, {"max_spending_per_day": "much"}, {"prices": "0.005"}],
    ids=str,
)
def test_wrong_limits_of_spending_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"its extra field '{name}'"):
        read_connection(connection(extra=json.dumps(wrong)))


def test_the_limits_are_named():
    with pytest.raises(ValueError, match="'request_timeout' must be a number above 0 up to 86400"):
        read_connection(connection(extra='{"request_timeout": 0}'))
    with pytest.raises(ValueError, match="'retries' must be a whole number from 0 up to 100"):
        read_connection(connection(extra='{"retries": 0.5}'))


def test_the_key_is_not_in_the_repr():
    assert "secret-key" not in repr(read_connection(connection()))


def test_the_ledger_is_a_folder():
    assert read_connection(connection()).ledger_path is None
    assert read_connection(connection(extra='{"ledger_path": " /data/ledger "}')).ledger_path == "/data/ledger"
    with pytest.raises(ValueError, match="its extra field 'ledger_path' must be a URL"):
        read_connection(connection(extra='{"ledger_path": "ledger"}'))
