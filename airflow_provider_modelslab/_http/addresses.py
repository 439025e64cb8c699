"""
Which addresses outputs may be downloaded from: public ones, and the hosts that the connection names.

URLs of outputs are a stranger's: ModelsLab's, an upstream task's, a redirect's. Without this, they would lead a worker
to every address that its network reaches, such as the credentials that a cloud hands out at 169.254.169.254.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Host = tuple[str, int | None]
"""A host as URLs spell it, and its port; ``None`` for every port."""


class ForeignAddressError(Exception):
    """A host is at an address that nothing may be fetched from."""

    def __init__(self, host: str, address: str) -> None:
        where = address if address == host else f"{address} ({host})"
        super().__init__(
            f"{where} is no public address: if outputs are there, list the host in the connection's extra field "
            "'output_hosts'"
        )


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """
    Judges the addresses of downloads.

    :param allowed: hosts that may have any address.
    """

    allowed: frozenset[Host] = frozenset()

    def check(self, host: str, port: int, address: str | None = None) -> None:
        """
        Let a host pass, or raise.

        :param host: the host, as the URL spells it.
        :param port: the port.
        :param address: where the socket is connected to. ``None`` before there is one: then a name passes, and a
            literal address in any spelling is judged.
        :raises ForeignAddressError: it is neither allowed nor public.
        """
        host = bare(host)
        if not self.allowed.isdisjoint({(host, port), (host, None)}):
            return
        address = _literal(host) if address is None else address
        if address is not None and not is_public(address):
            raise ForeignAddressError(host, address)


def bare(host: str) -> str:
    """Return a host as it is compared: in small letters, without brackets and without the dot at its end."""
    return host.strip("[]").rstrip(".").lower()


def is_public(address: str) -> bool:
    """
    Return whether an address is a global unicast one.

    :param address: an IPv4 or IPv6 address, perhaps with a zone. If it wraps an IPv4 address, that one is judged.
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = _embedded(ip)
        if inner is None:
            return ip in _UNICAST and ip.is_global and not _is_reserved(ip)
        ip = inner
    return ip.is_global and not ip.is_multicast and not _is_reserved(ip)


_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")

# What older Pythons take for global, and what Azure serves to its virtual machines at a public address.
_RESERVED = tuple(
    map(
        ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)


def _is_reserved(ip: IPv4Address | IPv6Address) -> bool:
    return any(ip in network for network in _RESERVED)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to: mapped, translated or tunnelled."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _literal(host: str) -> str | None:
    """Return the address that a host is, in any spelling that resolvers understand; ``None`` for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        # Understands 127.1, 0x7f000001, 2130706433 and 0177.0.0.1, as resolvers do.
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None
