"""The restriction of outgoing calls to public addresses (SSRF protection).

A host name is resolved once, its addresses are checked, and the connection goes to the checked
addresses. So a name that resolves differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from ...pipeline.errors import AnimateDiffV2VError

# IPv6 addresses that embed an IPv4 address, which may be a private one: IPv4-compatible,
# IPv4-mapped, IPv4-translated, NAT64 (RFC 6052 and 8215), Teredo, 6to4.
_EMBEDDING_IPV4 = [
    ipaddress.IPv6Network(network)
    for network in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
    )
]
_ENDS_IN_A_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)\.?$", re.IGNORECASE)
# Names that never resolve on the internet: RFC 6761, 6762 and 8375, and ICANN's .internal.
PRIVATE_NAMES = (".localhost", ".local", ".home.arpa", ".internal")
LOOKUP_SECONDS = 3.0
LOOKUPS_AT_ONCE = 4
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class AddressRefused(AnimateDiffV2VError):
    """A URL leads to an address that is not on the public internet."""


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet.

    Private, loopback, link-local, shared (carrier-grade NAT), multicast, reserved and unspecified
    addresses are not, nor are IPv6 addresses that embed an IPv4 address.
    """
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        return False
    if ip.version == 4:
        return True
    # ISATAP (RFC 5214) keeps an IPv4 address in the last half of any prefix.
    isatap = (int(ip) >> 32) & 0xFDFFFFFF == 0x5EFE
    return not (isatap or ip in _SITE_LOCAL or any(ip in each for each in _EMBEDDING_IPV4))


def check_literal(url: URL) -> None:
    """Check a URL whose host is an address; raises AddressRefused unless it is public.

    Such a host never reaches the resolver, nor do in some versions of aiohttp other spellings that
    the system's resolver accepts (127.1, 2130706433). So every host that ends in a number and is
    not an address is refused; no name on the internet ends in one.
    """
    host = url.raw_host or ""
    try:
        literal = str(ipaddress.ip_address(host))
    except ValueError:
        if ":" in host or _ENDS_IN_A_NUMBER.search(host):
            raise AddressRefused(f"{host} is not an address in the usual notation.") from None
        return  # a name: PublicResolver checks its addresses
    _check(literal, [literal])


class PublicResolver(AbstractResolver):
    """The system's resolver, restricted to names with only public addresses."""

    def __init__(self) -> None:
        """Use the system's resolver in threads."""
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name; raises AddressRefused if any of its addresses is not public."""
        found = await self._system.resolve(host, port, family)
        _check(host, [each["host"] for each in found])
        return found

    async def close(self) -> None:
        """Release the system's resolver."""
        await self._system.close()


class Lookup:
    """Checks URLs before they are called, in threads of its own, as resolving may be slow."""

    def __init__(self) -> None:
        """Create the thread pool."""
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="lookup")

    async def check(self, url: URL) -> None:
        """Check that a URL leads to public addresses; raises AddressRefused.

        A name that does not resolve in time passes, as the call itself is checked again.
        """
        check_literal(url)
        host = (url.raw_host or "").rstrip(".").lower()
        if host.endswith(PRIVATE_NAMES) or f".{host}" in PRIVATE_NAMES:
            raise _inside(host)
        loop = asyncio.get_running_loop()
        look = loop.run_in_executor(self._threads, _addresses, host)
        try:
            found = await asyncio.wait_for(look, LOOKUP_SECONDS)
        except (OSError, UnicodeError, TimeoutError, asyncio.TimeoutError):
            return
        _check(host, found)

    def close(self) -> None:
        """Stop without waiting for lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str) -> list[str]:
    return [str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _check(host: str, addresses: list[str]) -> None:
    if not all(is_public(address) for address in addresses):
        raise _inside(host)


def _inside(host: str) -> AddressRefused:
    return AddressRefused(f"{host} is not on the public internet.")


def open_session(*, seconds: float, public_only: bool = True) -> aiohttp.ClientSession:
    """Open a session without proxies, cookies and decompression, for calls of at most `seconds`.

    Callers that follow redirects do so themselves, with `check_literal` before every call.
    """
    connector = aiohttp.TCPConnector(
        resolver=PublicResolver() if public_only else None, use_dns_cache=False, force_close=True
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=seconds),
        auto_decompress=False,
        trust_env=False,
    )
