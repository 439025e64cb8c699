"""The loopback interface and its ports."""

from __future__ import annotations

import secrets
import socket

#: Everything listens on, and talks to, this address only.
HOST = "127.0.0.1"

#: Ports that no system hands out by itself, as Linux does from 32768 on: those might be another's before they are used.
_PORTS = range(20_000, 32_000)


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on a TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: not stopped by closed connections
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Find a TCP port of the loopback interface on which nobody listens."""
    while not port_is_free(port := secrets.choice(_PORTS)):
        pass
    return port
