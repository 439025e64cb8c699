"""What both transports share: the headers and limits of a request, and the outcomes of one without a whole reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_modelslab import __version__
from airflow_provider_modelslab._protocol.outcomes import HttpReply, NoReply, retry_after_seconds, running_reply

MAX_REPLY_BYTES = 32 * 2**20
"""A longer body is no reply of ModelsLab's; base64 images fit in."""

MAX_RUNNING_BYTES = 2**20
"""Bytes that are read of the reply to a poll that says at its beginning that the job is running."""

HEADERS = {
    "User-Agent": f"airflow-provider-modelslab/{__version__}",
    "Accept": "application/json",
    # A few bytes can be gigabytes when they are unpacked, and not every release of the HTTP clients stops at a limit.
    "Accept-Encoding": "identity",
}

NOT_CONNECTED = NoReply("no connection to ModelsLab", sent=False)
UNTRUSTED = NoReply(
    "no trusted TLS connection to ModelsLab (the connection's extra field 'ca_bundle' says whom to trust)", sent=False
)
REFUSED_BY_PROXY = NoReply("the proxy made no connection to ModelsLab", sent=False)
CONNECTION_LOST = NoReply("the connection to ModelsLab broke before a reply", sent=True)
TOO_LONG = NoReply(f"the reply is longer than {MAX_REPLY_BYTES // 2**20} MiB", sent=True)
ENCODED = NoReply("the reply is compressed, though the request refused that", sent=True)


def connect_timeout(seconds: float) -> NoReply:
    """Return the outcome of a request that was not sent, since no connection came about."""
    return NoReply(f"no connection to ModelsLab within {seconds:g} s", sent=False)


def reply_timeout(seconds: float) -> NoReply:
    """Return the outcome of a request that was sent and whose reply is not whole in time."""
    return NoReply(f"no whole reply from ModelsLab within {seconds:g} s", sent=True)


def protocol_error(error: Exception) -> NoReply:
    """Return the outcome of a request that was sent and whose reply cannot be read."""
    return NoReply(f"the exchange broke off ({type(error).__name__})", sent=True)


def unaddressable(error: Exception) -> NoReply:
    """Return the outcome of a request whose host or proxy is no address."""
    return NoReply(f"the host or the proxy cannot be addressed ({type(error).__name__})", sent=False)


def is_encoded(headers: Mapping[str, str]) -> bool:
    """
    Return whether a body is compressed.

    :param headers: its headers, in a mapping that ignores the case of names.
    """
    return headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


@dataclass(slots=True)
class IncomingBody:
    """
    The body of a reply as it arrives.

    :param cut_running: whether a long reply that says that a job is running stands for its beginning: of a poll, all
        else is an echo of the request. A reply to a submission is read whole, since the job's id is in it.
    """

    cut_running: bool
    _body: bytearray = field(default_factory=bytearray)
    _running: bytes | None = None

    def add(self, chunk: bytes) -> bool:
        """Take the next part, and return whether the rest need not be read."""
        checked = len(self._body) > MAX_RUNNING_BYTES
        self._body += chunk
        if self.cut_running and not checked and len(self._body) > MAX_RUNNING_BYTES:
            self._running = running_reply(self._body)
        return self._running is not None or len(self._body) > MAX_REPLY_BYTES

    def reply(self, status: int, headers: Mapping[str, str], now: float) -> HttpReply | NoReply:
        """
        Return the reply with this body.

        :param status: the HTTP status code.
        :param headers: its headers, in a mapping that ignores the case of names.
        :param now: the time, in seconds since the epoch.
        """
        if self._running is None and len(self._body) > MAX_REPLY_BYTES:
            return TOO_LONG
        body = bytes(self._body) if self._running is None else self._running
        retry_after = retry_after_seconds(headers.get("Retry-After"), now)
        return HttpReply(status, body, retry_after, headers.get("Location", ""))
