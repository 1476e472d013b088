"""Which addresses the server may call on somebody else's behalf: public ones, and no others.

A name is looked up once, its addresses are judged, and the connection goes to the addresses that
were judged. So a name that answers differently the second time gains nothing.
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

# IPv6 addresses that stand for an IPv4 address, which may be a private one: IPv4-compatible,
# IPv4-mapped, IPv4-translated, NAT64 (RFC 6052 and 8215), Teredo, 6to4.
_STANDING_FOR_IPV4 = [
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
# Names that lead nowhere on the internet: RFC 6761, 6762 and 8375, and ICANN's .internal.
PRIVATE_NAMES = (".localhost", ".local", ".home.arpa", ".internal")
LOOKUP_SECONDS = 3.0
LOOKUPS_AT_ONCE = 4
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class AddressRefused(AnimateDiffV2VError):
    """A URL leads to an address that is not on the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Private, loopback, link-local, shared (carrier-grade NAT), multicast, reserved and unspecified
    ones are not, nor is an IPv6 address that stands for an IPv4 one.
    """
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        return False
    if ip.version == 4:
        return True
    # ISATAP (RFC 5214) keeps an IPv4 address in the last half of any prefix.
    isatap = (int(ip) >> 32) & 0xFDFFFFFF == 0x5EFE
    return not (isatap or ip in _SITE_LOCAL or any(ip in each for each in _STANDING_FOR_IPV4))


def check_literal(url: URL) -> None:
    """Refuse a URL whose host is written as an address that is not public.

    Such a host never reaches the resolver. Nor do, in some versions of aiohttp, the spellings that
    the system's resolver knows besides (127.1, 2130706433): all that ends in a number is refused,
    as no name on the internet does. Raises AddressRefused.
    """
    host = url.raw_host or ""
    try:
        literal = str(ipaddress.ip_address(host))
    except ValueError:
        if ":" in host or _ENDS_IN_A_NUMBER.search(host):
            raise AddressRefused(f"{host} is no address as it is usually written.") from None
        return  # a name: the resolver's answer is judged
    _check(literal, [literal])


class PublicResolver(AbstractResolver):
    """Looks names up as the system does, and gives public addresses alone."""

    def __init__(self) -> None:
        """Use the system's resolver in a thread."""
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up; raises AddressRefused if any of its addresses is not public."""
        found = await self._system.resolve(host, port, family)
        _check(host, [each["host"] for each in found])
        return found

    async def close(self) -> None:
        """Release the system's resolver."""
        await self._system.close()


class Lookup:
    """Tells beforehand that a URL leads to an address that is not public.

    In threads of its own: names that are slow to look up hold nothing else up.
    """

    def __init__(self) -> None:
        """Look nothing up yet."""
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="lookup")

    async def check(self, url: URL) -> None:
        """Refuse a URL that surely leads inside; raises AddressRefused.

        A name that is not found, or not in time, passes: the call itself is judged again.
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
        """Wait for no lookup any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str) -> list[str]:
    return [str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _check(host: str, addresses: list[str]) -> None:
    if not all(is_public(address) for address in addresses):
        raise _inside(host)


def _inside(host: str) -> AddressRefused:
    return AddressRefused(f"{host} is not on the public internet, and only that may be called.")


def open_session(*, seconds: float, public_only: bool = True) -> aiohttp.ClientSession:
    """Open a session without proxies, cookies and decompression, for calls of at most `seconds`.

    Its callers follow redirects themselves, if at all, with `check_literal` before every call.
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
