"""Whether a call comes from a program of the user who runs this server, on this machine.

The address alone does not tell: what a proxy or a tunnel on this machine passes on comes from
127.0.0.1 as well. Linux names the user of each socket; elsewhere nobody is let in.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
# Stands in a user namespace for everybody who has no number there.
OVERFLOW_USER = Path("/proc/sys/kernel/overflowuid")
# What proxies and tunnels add; a name that ends in - stands for all that begin so.
FORWARDED = (
    "forwarded",
    "via",
    "cdn-loop",
    "client-ip",
    "true-client-ip",
    "cf-",
    "fastly-",
    "fly-",
    "ngrok-",
    "tailscale-",
    "x-amz-",
    "x-amzn-",
    "x-appengine-",
    "x-arr-",
    "x-azure-",
    "x-client-ip",
    "x-cloud-trace-context",
    "x-cluster-client-ip",
    "x-envoy-",
    "x-forwarded",
    "x-forwarded-",
    "x-original-",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-",
    "x-vercel-",
)

Address = tuple[str, int]


@dataclass(frozen=True)
class _Socket:
    """A row of the kernel's table."""

    local: Address
    remote: Address
    user: int
    inode: int


def unsupported() -> str | None:
    """Say why nobody can be let in without a key here; None where somebody can."""
    if not sys.platform.startswith("linux") or not TABLES[0].is_file():
        return "only Linux tells which user a connection belongs to"
    if _is_overflow_user(os.geteuid()):
        return "the server runs as a user that stands for many"
    return None


def is_own_call(request: web.Request) -> bool:
    """Whether a request comes from a program of this process's user on this machine.

    A proxy or a tunnel that this very user runs is such a program: what it shows of itself, in a
    header, in a Host that is not this machine's, or in an old version of HTTP, is looked for.
    """
    if unsupported() is not None or request.version < HttpVersion11:
        return False
    if _is_forwarded(request) or not _is_loopback_host(request.headers.get("Host", "")):
        return False
    transport = request.transport
    if transport is None:
        return False
    here, there = (_address(transport.get_extra_info(each)) for each in ("sockname", "peername"))
    if here is None or there is None or not ipaddress.ip_address(there[0]).is_loopback:
        return False
    return any(
        each.local == there and each.remote == here and each.user == os.geteuid()
        for each in _sockets()
        if each.inode  # a socket that its program has let go of belongs to user 0
    )


def _is_forwarded(request: web.Request) -> bool:
    for header in request.headers:
        name = header.lower()
        if any(name.startswith(each) if each[-1] == "-" else name == each for each in FORWARDED):
            return True
    return False


def _is_loopback_host(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_overflow_user(user: int) -> bool:
    try:
        return user == int(OVERFLOW_USER.read_text())
    except (OSError, ValueError):
        return False


def _address(name: object) -> Address | None:
    """Give address and port of a socket's name; an IPv4 address as such, however it is spelt."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    try:
        ip = ipaddress.ip_address(name[0])
    except ValueError:
        return None
    return _usual(ip), int(name[1])


def _usual(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _sockets() -> Iterator[_Socket]:
    for table in TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for row in rows:
            fields = row.split()
            yield _Socket(_decoded(fields[1]), _decoded(fields[2]), int(fields[7]), int(fields[9]))


def _decoded(field: str) -> Address:
    """Read an address of the table: words of 32 bits in this machine's order, in hexadecimal.

    >>> _decoded("0100007F:1FFB") if sys.byteorder == "little" else ("127.0.0.1", 8187)
    ('127.0.0.1', 8187)
    """
    address, port = field.split(":")
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return _usual(ipaddress.ip_address(packed)), int(port, 16)
