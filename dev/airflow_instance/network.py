"""The loopback interface and its ports."""

from __future__ import annotations

import socket

#: Everything listens on, and talks to, this address only.
HOST = "127.0.0.1"


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
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
