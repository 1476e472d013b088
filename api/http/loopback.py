"""Recognition of calls by programs of this server's user on this machine.

The address alone is no proof: calls that a proxy or tunnel on this machine forwards come from
127.0.0.1 too. Linux names the user of each socket; on other systems no call is recognized.
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
# The user id that a user namespace shows for users without an id in it.
OVERFLOW_USER = Path("/proc/sys/kernel/overflowuid")
# Headers that proxies and tunnels add; a name that ends in - is a prefix.
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
    """A row of the kernel's table of sockets."""

    local: Address
    remote: Address
    user: int
    inode: int


def unsupported() -> str | None:
    """Return why this system cannot recognize own calls, or None if it can."""
    if not sys.platform.startswith("linux") or not TABLES[0].is_file():
        return "only Linux shows which user a connection belongs to"
    if _is_overflow_user(os.geteuid()):
        return "the server runs as a user id that stands for many users"
    return None


def is_own_call(request: web.Request) -> bool:
    """Return whether a request comes from a program of this process's user on this machine.

    Calls that a proxy or tunnel of the same user forwards do not count if they can be recognized:
    by a header, by a Host that is not this machine's, or by an old version of HTTP.
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
        if each.inode  # inode 0: a closed socket, which the table shows as user 0's
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
    """Return address and port of a socket's name; IPv4-mapped addresses become IPv4."""
    if not isinstance(name, tuple) or len(name) < 2:
        return None
    try:
        ip = ipaddress.ip_address(name[0])
    except ValueError:
        return None
    return _canonical(ip), int(name[1])


def _canonical(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
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
    """Decode an address of the table: hexadecimal 32-bit words in this machine's byte order.

    >>> _decoded("0100007F:1FFB") if sys.byteorder == "little" else ("127.0.0.1", 8187)
    ('127.0.0.1', 8187)
    """
    address, port = field.split(":")
    words = (int(address[start : start + 8], 16) for start in range(0, len(address), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return _canonical(ipaddress.ip_address(packed)), int(port, 16)
