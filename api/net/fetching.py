"""Download of files: http(s) from the public internet, and data URIs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import aiohttp
from yarl import URL

from ...pipeline.errors import AnimateDiffV2VError
from .addresses import AddressRefused, check_literal, open_session

CHUNK_BYTES = 1 << 18
DATA_URI_PIECE = 1 << 18
MEBIBYTE = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_DATA_URI = re.compile(rb"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
# Pages and scripts, the usual result of a wrong link.
_NEVER = ("text/html", "application/xhtml+xml", "text/javascript", "text/css")


class InputRefused(AnimateDiffV2VError):
    """An input of a request cannot be used.

    type: fal's error type, such as "file_download_error" or "file_too_large".
    ctx: the context that fal sends with that type, such as {"max_size": bytes}.
    """

    def __init__(self, message: str, *, type: str, ctx: Mapping[str, Any] | None = None) -> None:
        """Add fal's type and context to the message."""
        super().__init__(message)
        self.type = type
        self.ctx = dict(ctx or {})


@dataclass(frozen=True)
class FetchLimits:
    """Limits on a download."""

    max_bytes: int = 500 * MEBIBYTE
    timeout_seconds: float = 120.0
    """For all redirects and the body together."""
    max_redirects: int = 5
    content_types: tuple[str, ...] = ()
    """Prefixes of accepted content types, such as "video/"; empty accepts all but web pages. A file
    without a type, or of application/octet-stream, is always accepted."""


@dataclass(frozen=True)
class FetchedFile:
    """A file that was downloaded."""

    path: Path
    content_type: str
    """As the server or the data URI says, without parameters, in lower case."""
    size: int
    """Bytes."""


def is_data_uri(url: str | memoryview) -> bool:
    """Return whether a URL is a data URI; bytes always are one."""
    return not isinstance(url, str) or url[:5].lower() == "data:"


async def fetch(url: str | memoryview, into: Path, *, limits: FetchLimits) -> FetchedFile:
    """Download an http(s) URL or a data URI into the folder `into`, under a random name.

    url: a data URI may also be given as ASCII bytes, which are decoded piece by piece.

    Only public addresses are called, also after redirects. No file is
    left behind when this raises or is cancelled.

    Raises:
        InputRefused: the URL is malformed or unreachable, or its file is too large, too slow or
            of the wrong type.
    """
    into.mkdir(parents=True, exist_ok=True)
    if not isinstance(url, str) or is_data_uri(url):
        return await asyncio.to_thread(_fetch_data_uri, url, into, limits)
    return await _fetch_http(_http_url(url), into, limits)


# --- http --------------------------------------------------------------------------------------


def _http_url(text: str) -> URL:
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        url, port = URL(), None
    if url.scheme not in ("http", "https") or not url.host or port in (None, 0):
        raise _failed(f"{_shown(text)} is not an http or https URL.")
    return url


async def _fetch_http(url: URL, into: Path, limits: FetchLimits) -> FetchedFile:
    try:
        async with (
            open_session(seconds=limits.timeout_seconds) as session,
            _followed(session, url, limits) as response,
        ):
            content_type = _checked_type(response.content_type, limits)
            _check_size(response.content_length or 0, limits)
            path = into / _new_name(content_type, url)
            size = await _write(response.content.iter_chunked(CHUNK_BYTES), path, limits)
            return FetchedFile(path=path, content_type=content_type, size=size)
    except AddressRefused as error:
        raise _failed(f"{error} Upload the file instead.") from error
    except (TimeoutError, asyncio.TimeoutError) as error:  # two classes before Python 3.11
        raise _failed(f"The download took over {limits.timeout_seconds:g} seconds.") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _failed(f"The download from {url.host} failed ({type(error).__name__}).") from error


@asynccontextmanager
async def _followed(
    session: aiohttp.ClientSession, url: URL, limits: FetchLimits
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Follow redirects to the response with the file, checking each address on the way."""
    deadline = asyncio.get_running_loop().time() + limits.timeout_seconds
    for _ in range(limits.max_redirects + 1):
        check_literal(url)
        left = aiohttp.ClientTimeout(total=max(0.001, deadline - asyncio.get_running_loop().time()))
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        async with session.get(
            url, headers=headers, allow_redirects=False, timeout=left
        ) as response:
            if response.status not in _REDIRECTS:
                _check_answer(response, url)
                yield response
                return
            location = response.headers.get("Location", "")
        url = _http_url(str(url.join(URL(location))) if location else "")
        # A password in a URL must not reach the host of a redirect.
        url = url.with_user(None)
    raise _failed(f"There are more than {limits.max_redirects} redirects.")


def _check_answer(response: aiohttp.ClientResponse, url: URL) -> None:
    if response.status != 200:
        raise _failed(f"{url.host} answered {response.status}.")
    # A small compressed body can become a large file.
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise _failed(f"{url.host} sent it compressed ({encoding[:20]}), which was not requested.")


async def _write(chunks: AsyncIterator[bytes], path: Path, limits: FetchLimits) -> int:
    size = 0
    try:
        with path.open("xb") as file:
            async for chunk in chunks:
                size += len(chunk)
                _check_size(size, limits)
                await asyncio.to_thread(file.write, chunk)
        _check_not_empty(size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size


# --- data URIs ---------------------------------------------------------------------------------


def _fetch_data_uri(url: str | memoryview, into: Path, limits: FetchLimits) -> FetchedFile:
    letters = memoryview(url.encode(errors="replace")) if isinstance(url, str) else url
    head = _DATA_URI.match(letters[:1000])
    if head is None:
        raise _failed("The data URI does not have the form data:video/mp4;base64,...")
    content_type = _checked_type(head[1].decode(errors="replace").strip() or "text/plain", limits)
    pieces = _unquoted(letters, head.end())
    if head[2].lower().endswith(b";base64"):
        pieces = _from_base64(pieces)
    path, size = into / _new_name(content_type), 0
    try:
        with path.open("xb") as file:
            for piece in pieces:
                size += len(piece)
                _check_size(size, limits)
                file.write(piece)
        _check_not_empty(size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FetchedFile(path=path, content_type=content_type, size=size)


def _unquoted(letters: memoryview, start: int) -> Iterator[bytes]:
    """Decode percent-encoding piece by piece, as one call for all would block other threads."""
    while start < len(letters):
        piece = bytes(letters[start : start + DATA_URI_PIECE])
        cut = piece.find(b"%", -2)
        if cut > 0 and start + len(piece) < len(letters):  # the rest of it is in the next piece
            piece = piece[:cut]
        yield unquote_to_bytes(piece)
        start += len(piece)


def _from_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, is_over = b"", False
    for piece in pieces:
        letters = rest + b"".join(piece.split())
        usable = len(letters) // 4 * 4
        rest = letters[usable:]
        if is_over and letters:
            raise _failed("The data URI is not valid base64: there is data after the padding.")
        is_over = letters[:usable].endswith(b"=")
        yield _decoded(letters[:usable])
    yield _decoded(rest + b"=" * (-len(rest) % 4))


def _decoded(letters: bytes) -> bytes:
    try:
        return base64.b64decode(letters, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _failed(f"The data URI is not valid base64: {error}.") from error


# --- checks ---------------------------------------------------------------------------


def _checked_type(content_type: str, limits: FetchLimits) -> str:
    content_type = content_type.lower()
    if content_type in ("", "application/octet-stream", "binary/octet-stream"):
        return "application/octet-stream"
    wanted = limits.content_types
    if content_type in _NEVER or (wanted and not content_type.startswith(wanted)):
        expected = " or ".join(f"{each}*" if each.endswith("/") else each for each in wanted)
        raise _failed(
            f"Its type is {content_type[:60]!r}" + (f"; expected {expected}." if wanted else ".")
        )
    return content_type


def _check_size(size: int, limits: FetchLimits) -> None:
    if size > limits.max_bytes:
        raise InputRefused(
            f"The file is larger than the limit of {limits.max_bytes} bytes.",
            type="file_too_large",
            ctx={"max_size": limits.max_bytes},
        )


def _check_not_empty(size: int) -> None:
    if size == 0:
        raise _failed("The file is empty (0 bytes).")


def _failed(reason: str) -> InputRefused:
    return InputRefused(f"Failed to download the file. {reason}", type="file_download_error")


def _shown(text: str) -> str:
    """Return the part of a URL that holds no secrets, for an error sentence."""
    head = text[:80].split("?", maxsplit=1)[0].rsplit("@", maxsplit=1)[-1]
    return repr(head)


def _new_name(content_type: str, url: URL | None = None) -> str:
    """Return a random name with a plain suffix from the content type or the URL."""
    suffix = mimetypes.guess_extension(content_type) or ""
    if content_type == "application/octet-stream":
        suffix = url.suffix if url is not None else ""
    return secrets.token_hex(16) + (suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", suffix) else "")
