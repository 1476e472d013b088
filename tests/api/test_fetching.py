"""Downloads and refusals: the exact errors, and no file left behind."""

import asyncio
import gzip

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from animatediff_v2v.api.net import addresses
from animatediff_v2v.api.net.fetching import FetchLimits, InputRefused, fetch

LIMITS = FetchLimits(max_bytes=1000, timeout_seconds=5, max_redirects=3)
HERE, NEVER = "127.0.0.1", "127.0.0.2"
FAILED = "Failed to download the file. "


async def _slow(request):
    response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x")
        await asyncio.sleep(0.05)
    return response


async def _endless(request):
    """A body without a length, which only the limit on its size can end."""
    response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 200)


async def _short(request):
    """A body that ends before its length."""
    response = web.StreamResponse(headers={"Content-Type": "video/mp4", "Content-Length": "500"})
    await response.prepare(request)
    await response.write(b"x" * 100)
    request.transport.close()
    return response


def _body(content=b"x" * 10, status=200, **headers):
    async def answer(_request):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=content, status=status, headers=named)

    return answer


def _to(location):
    async def answer(request):
        return web.Response(
            status=302, headers={"Location": location.format(port=request.url.port)}
        )

    return answer


PAGES = {
    "/good.mp4": _body(Content_Type="video/mp4"),
    "/untyped.webm": _body(),
    "/loop": _to("/loop"),
    "/once": _to("/good.mp4"),
    "/thrice": _to("/twice"),
    "/twice": _to("/once"),
    "/nowhere": _body(status=302),
    "/private": _to("http://127.0.0.2:{port}/good.mp4"),
    "/private-name": _to("http://localhost.test:{port}/good.mp4"),
    "/private-v6": _to("http://[::ffff:127.0.0.2]:{port}/good.mp4"),
    "/file": _to("file:///etc/passwd"),
    "/ftp": _to("ftp://127.0.0.1/x"),
    "/data": _to("data:video/mp4;base64,AAAA"),
    "/missing": _body(status=404),
    "/forbidden": _body(status=403),
    "/partial": _body(status=206),
    "/html": _body(b"<html>", Content_Type="text/html; charset=utf-8"),
    "/empty": _body(b"", Content_Type="video/mp4"),
    "/large": _body(b"x" * 1001, Content_Type="video/mp4"),
    "/largest": _body(b"x" * 1000, Content_Type="video/mp4"),
    "/bomb": _body(gzip.compress(bytes(10**6)), Content_Type="video/mp4", Content_Encoding="gzip"),
    "/slow": _slow,
    "/endless": _endless,
    "/short": _short,
}
NOT_PUBLIC = " is not on the public internet. Upload the file instead."
TOO_LARGE = "The file is larger than the limit of 1000 bytes."

REFUSED = [
    ("/loop", "There are more than 3 redirects."),
    ("/nowhere", "'' is not an http or https URL."),
    ("/private", f"{NEVER}{NOT_PUBLIC}"),
    ("/private-name", f"localhost.test{NOT_PUBLIC}"),
    ("/private-v6", f"::ffff:7f00:2{NOT_PUBLIC}"),
    ("/file", "'file:///etc/passwd' is not an http or https URL."),
    ("/ftp", "'ftp://127.0.0.1/x' is not an http or https URL."),
    ("/data", "'data:video/mp4;base64,AAAA' is not an http or https URL."),
    ("/missing", "127.0.0.1 answered 404."),
    ("/forbidden", "127.0.0.1 answered 403."),
    ("/partial", "127.0.0.1 answered 206."),
    ("/html", "Its type is 'text/html'."),
    ("/empty", "The file is empty (0 bytes)."),
    ("/bomb", "127.0.0.1 sent it compressed (gzip), which was not requested."),
    ("/short", "The download from 127.0.0.1 failed (ClientPayloadError)."),
]


@pytest.fixture(autouse=True)
def internet(monkeypatch):
    """Make only 127.0.0.1 count as public, and one name resolve elsewhere."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == HERE)

    async def resolve(_self, host, port=0, family=0):
        found = NEVER if host == "localhost.test" else HERE
        return [
            {"hostname": host, "host": found, "port": port, "family": 2, "proto": 0, "flags": 0}
        ]

    monkeypatch.setattr(addresses.ThreadedResolver, "resolve", resolve)


def fetched(folder, path, limits=LIMITS):
    async def run():
        app = web.Application()
        for page, answer in PAGES.items():
            app.router.add_get(page, answer)
        async with TestServer(app) as server:
            return await fetch(f"http://{HERE}:{server.port}{path}", folder, limits=limits)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "suffix", "content_type", "size"),
    [
        ("/good.mp4", ".mp4", "video/mp4", 10),
        ("/untyped.webm", ".webm", "application/octet-stream", 10),
        ("/once", ".mp4", "video/mp4", 10),
        ("/thrice", ".mp4", "video/mp4", 10),
        ("/largest", ".mp4", "video/mp4", 1000),
    ],
)
def test_fetched(tmp_path, path, suffix, content_type, size):
    file = fetched(tmp_path, path)
    assert (file.path.suffix, file.content_type, file.size) == (suffix, content_type, size)
    assert list(tmp_path.iterdir()) == [file.path]
    assert file.path.read_bytes() == b"x" * size


@pytest.mark.parametrize(("path", "sentence"), REFUSED, ids=[path for path, _ in REFUSED])
def test_refused(tmp_path, path, sentence):
    with pytest.raises(InputRefused) as error:
        fetched(tmp_path, path)
    assert str(error.value) == FAILED + sentence
    assert (error.value.type, error.value.ctx) == ("file_download_error", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_too_large(tmp_path, path):
    with pytest.raises(InputRefused) as error:
        fetched(tmp_path, path)
    assert str(error.value) == TOO_LARGE
    assert (error.value.type, error.value.ctx) == ("file_too_large", {"max_size": 1000})
    assert not list(tmp_path.iterdir())


def test_too_slow(tmp_path):
    with pytest.raises(InputRefused) as error:
        fetched(tmp_path, "/slow", FetchLimits(max_bytes=1000, timeout_seconds=0.5))
    assert str(error.value) == FAILED + "The download took over 0.5 seconds."
    assert not list(tmp_path.iterdir())


def test_only_what_was_asked_for(tmp_path):
    limits = FetchLimits(content_types=("application/json", "image/"))
    with pytest.raises(InputRefused) as error:
        fetched(tmp_path, "/good.mp4", limits)
    assert (
        str(error.value)
        == FAILED + "Its type is 'video/mp4'; expected application/json or image/*."
    )


def test_dns_rebinding_reaches_no_private_address(tmp_path, monkeypatch):
    """The connection goes to the address that was checked: there is no second look-up."""
    looked_up = []
    resolve = addresses.ThreadedResolver.resolve

    async def counted(self, host, port=0, family=0):
        looked_up.append(host)
        return await resolve(self, host if len(looked_up) == 1 else "localhost.test", port, family)

    monkeypatch.setattr(addresses.ThreadedResolver, "resolve", counted)

    async def run():
        app = web.Application()
        app.router.add_get("/good.mp4", PAGES["/good.mp4"])
        async with TestServer(app) as server:
            url = f"http://rebinding.test:{server.port}/good.mp4"
            return await fetch(url, tmp_path, limits=LIMITS)

    assert asyncio.run(run()).size == 10
    assert looked_up == ["rebinding.test"]


URLS = [
    ("", "'' is not an http or https URL."),
    ("rocket.mp4", "'rocket.mp4' is not an http or https URL."),
    ("/etc/passwd", "'/etc/passwd' is not an http or https URL."),
    ("file:///etc/passwd", "'file:///etc/passwd' is not an http or https URL."),
    ("http://", "'http://' is not an http or https URL."),
    ("http://[::1", "'http://[::1' is not an http or https URL."),
    ("http://h:99999/", "'http://h:99999/' is not an http or https URL."),
    ("ftp://u:secret@h/x?key=1", "'h/x' is not an http or https URL."),
    ("http://127.0.0.2/", f"{NEVER}{NOT_PUBLIC}"),
    ("http://localhost.test:1/", f"localhost.test{NOT_PUBLIC}"),
    ("http://[::1]/", f"::1{NOT_PUBLIC}"),
    ("http://[::127.0.0.1]/", f"::7f00:1{NOT_PUBLIC}"),
    ("http://169.254.169.254/latest/meta-data", f"169.254.169.254{NOT_PUBLIC}"),
    *(
        (
            f"http://{host}/",
            f"{host} is not an address in the usual notation. Upload the file instead.",
        )
        for host in ("127.2", "2130706434", "0x7f.2", "0177.0.0.2", "127.0.0.2.")
    ),
    ("http://①②⑦.0.0.2/", f"{NEVER}{NOT_PUBLIC}"),
    ("data:", "The data URI does not have the form data:video/mp4;base64,..."),
    ("data:video/mp4;base64", "The data URI does not have the form data:video/mp4;base64,..."),
    ("data:video/mp4;base64,", "The file is empty (0 bytes)."),
    ("data:video/mp4,", "The file is empty (0 bytes)."),
    ("data:text/html,<script>", "Its type is 'text/html'."),
]


@pytest.mark.parametrize(("url", "sentence"), URLS, ids=[url for url, _ in URLS])
def test_hostile_urls(tmp_path, url, sentence):
    with pytest.raises(InputRefused) as error:
        asyncio.run(fetch(url, tmp_path, limits=LIMITS))
    assert str(error.value) == FAILED + sentence
    assert (error.value.type, error.value.ctx) == ("file_download_error", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("uri", "suffix", "content"),
    [
        ("data:video/mp4;base64,aGVsbG8=", ".mp4", b"hello"),
        ("data:video/mp4;base64,aGVsbG8", ".mp4", b"hello"),
        ("DATA:video/MP4;codecs=avc1;BASE64,aGVs\r\nbG8%3D", ".mp4", b"hello"),
        ("data:video/webm,a%20b", ".webm", b"a b"),
        ("data:;base64,aGVsbG8=", ".txt", b"hello"),
        ("data:../../x/y;base64,aGVsbG8=", "", b"hello"),
    ],
)
def test_data_uris(tmp_path, uri, suffix, content):
    file = asyncio.run(fetch(uri, tmp_path, limits=LIMITS))
    assert file.path.parent == tmp_path
    assert (file.path.suffix, file.path.read_bytes(), file.size) == (suffix, content, len(content))


@pytest.mark.parametrize("text", ["%%%", "aGVsbG8*", "aGVsb", "ä"])
def test_data_uris_that_are_no_base64(tmp_path, text):
    with pytest.raises(InputRefused, match="The data URI is not valid base64"):
        asyncio.run(fetch(f"data:video/mp4;base64,{text}", tmp_path, limits=LIMITS))
    assert not list(tmp_path.iterdir())


def test_data_uris_have_the_same_limit(tmp_path):
    with pytest.raises(InputRefused) as error:
        asyncio.run(fetch("data:video/mp4," + "x" * 1001, tmp_path, limits=LIMITS))
    assert (error.value.type, error.value.ctx) == ("file_too_large", {"max_size": 1000})
    assert not list(tmp_path.iterdir())
