"""Uploads in the ways of all clients, and refusals."""

import asyncio
import json
import logging
import os
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.events import Events
from animatediff_v2v.api.http.guard import Guard
from animatediff_v2v.api.http.upload_routes import upload_routes
from animatediff_v2v.api.intake import uploads
from animatediff_v2v.api.intake.upload_entries import display_name
from animatediff_v2v.api.intake.uploads import UploadLimits, UploadStore
from animatediff_v2v.api.keys import KeyRing

REST = "/fal/rest.fal.ai/storage"
CDN = "/fal/v3.fal.media/files/upload"
GONE = (404, "There is no such upload, or it is complete or has expired")
NO_FILE = (404, "There is no such file, or it has expired")
NO_TOKEN = (401, "The token is unknown or has expired; ask for another")
FULL = (507, "The server's folder for uploads is full")


class Site:
    """A server with uploads, and a client that has a key."""

    def __init__(self, client, store, key):
        self.client, self.store, self.key = client, store, {"Authorization": f"Key {key}"}

    async def json(self, method, path, **request):
        request["headers"] = self.key | request.get("headers", {})
        async with self.client.request(method, path, **request) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def begin(self, *, multipart=False, name="clip.mp4", content_type="video/mp4"):
        path = f"{REST}/upload/initiate{'-multipart' if multipart else ''}?storage_type=fal-cdn-v3"
        body = {"content_type": content_type, "file_name": name}
        return await self.json("POST", path, json=body)

    async def send(self, method, url, **request):
        """Send without a key, as the JavaScript clients send parts; return status and text."""
        async with self.client.session.request(method, url, **request) as response:
            text = await response.text()
            if response.content_type == "application/json":
                text = json.loads(text).get("detail", text)
            return response.status, text


@asynccontextmanager
async def opened(folder, **limits):
    store = UploadStore(folder / "uploads", limits=UploadLimits(**limits))
    key = KeyRing(folder)
    guard = Guard(key, max_body_bytes=10_000, requests_per_minute=1000)
    app = web.Application(middlewares=[guard.middleware])
    app.router.add_routes(upload_routes(store, Events()))
    async with TestClient(TestServer(app)) as client:
        yield Site(client, store, key.add("test") if not key.names() else "")


def case(folder, test, **limits):
    async def run():
        async with opened(folder, **limits) as site:
            return await test(site)

    return asyncio.run(run())


# --- the clients' ways -------------------------------------------------------------------------


def test_whole(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def test(site):
        for rest in (REST, REST.replace("rest.", "rest.alpha.")):
            begun = await site.json("POST", f"{rest}/upload/initiate", json={})
            assert await site.send("PUT", begun["upload_url"], data=b"bytes") == (200, "{}")
            assert site.store.resolve(begun["file_url"]).read_bytes() == b"bytes"
            assert await site.send("GET", begun["file_url"]) == (200, "bytes")
            headers = {"Range": "bytes=1-2"}
            assert await site.send("GET", begun["file_url"], headers=headers) == (206, "yt")

    case(tmp_path, test)
    assert caplog.messages.count("upload received bytes=5") == 2


def test_parts_of_the_javascript_client(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def test(site):
        begun = await site.begin(multipart=True)
        url, parts = begun["upload_url"], []
        for number, part in enumerate((b"one ", b"two ", b"three"), start=1):
            async with site.client.session.put(f"{url}/{number}", data=part) as response:
                answer = await response.json()
                assert (response.status, answer["partNumber"]) == (200, number)
                assert response.headers["ETag"] == f'"{answer["etag"]}"'
                parts.append(answer)
        body = {"parts": parts}
        assert await site.send("POST", f"{url}/complete", json=body) == (200, "{}")
        assert site.store.resolve(begun["file_url"]).read_bytes() == b"one two three"
        assert len(list((tmp_path / "uploads").iterdir())) == 2

    case(tmp_path, test)
    assert caplog.messages.count("upload received bytes=13") == 1


def test_the_python_client(tmp_path):
    """With a token, and parts in any order."""

    async def test(site):
        token = await site.json("POST", f"{REST}/auth/token?storage_type=fal-cdn-v3", json={})
        assert set(token) == {"token", "token_type", "base_url", "expires_at"}
        assert token["expires_at"].endswith("+00:00")
        assert token["base_url"].endswith("/fal/v3.fal.media")
        headers = {"Authorization": f"{token['token_type']} {token['token']}"}
        named = headers | {"X-Fal-File-Name": "c.webm", "Content-Type": "video/webm"}
        async with site.client.session.post(
            f"{token['base_url']}/files/upload", data=b"bytes", headers=named
        ) as response:
            url = (await response.json())["access_url"]
        assert url.endswith("/c.webm")
        assert site.store.resolve(url).read_bytes() == b"bytes"
        async with site.client.session.post(
            f"{token['base_url']}/files/upload/multipart", headers=named
        ) as response:
            begun = await response.json()
        url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
        for number in (3, 1, 2):
            async with site.client.session.put(f"{url}/{number}", data=b"%d" % number) as response:
                assert response.headers["etag"]
        parts = [{"partNumber": number, "etag": ""} for number in (2, 3, 1)]
        assert await site.send("POST", f"{url}/complete", json={"parts": parts}) == (200, "{}")
        assert site.store.resolve(begun["access_url"]).read_bytes() == b"123"

    case(tmp_path, test)


def test_an_upload_outlives_a_restart(tmp_path):
    async def begin(site):
        begun = await site.begin(multipart=True)
        assert (await site.send("PUT", f"{begun['upload_url']}/1", data=b"one"))[0] == 200
        return begun

    begun = case(tmp_path, begin)

    async def end(site):
        url = begun["upload_url"].split("/", 3)[3]
        url = str(site.client.make_url(f"/{url}"))
        assert (await site.send("PUT", f"{url}/2", data=b"two"))[0] == 200
        parts = [{"partNumber": number, "etag": ""} for number in (1, 2)]
        assert (await site.send("POST", f"{url}/complete", json={"parts": parts}))[0] == 200
        assert site.store.resolve(begun["file_url"]).read_bytes() == b"onetwo"

    case(tmp_path, end)


# --- what nobody may do ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("my clip (1).mp4", "my_clip_1_.mp4"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/cron.d/x", "x"),
        (".htaccess", "htaccess"),
        ("..", "file"),
        ("", "file"),
        ("a\x00b\r\nSet-Cookie: x", "a_b_Set-Cookie_x"),
        ("видео.mp4", "_.mp4"),
        ("x" * 500 + ".mp4", "x" * 76 + ".mp4"),
        ("%2e%2e%2fx", "_2e_2e_2fx"),
        ('"><script>.mp4', "_script_.mp4"),
    ],
)
def test_names_never_reach_the_file_system(tmp_path, name, shown):
    assert display_name(name) == shown

    async def test(site):
        begun = await site.begin(name=name)
        assert begun["file_url"].rsplit("/", 1)[1] == shown
        assert (await site.send("PUT", begun["upload_url"], data=b"x"))[0] == 200
        assert await site.send("GET", begun["file_url"]) == (200, "x")

    case(tmp_path, test)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files if path.parent.name == "uploads"}
    assert all(len(name.removesuffix(".json")) == 32 for name in names)
    assert {path.name for path in files} - names == {"api-keys.json"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/write/{secret}x"),
        ("PUT", "/write/"),
        ("PUT", "/write/{id}"),
        ("PUT", "/write/%2e%2e"),
        ("PUT", "/write/{secret}/1/2"),
        ("POST", "/write/complete"),
        ("PUT", "/multipart/wrong/1"),
        ("POST", "/multipart/wrong/complete"),
        ("DELETE", ""),
        ("PUT", ""),
    ],
)
def test_only_the_secret_writes(tmp_path, method, path):
    async def test(site):
        begun = await site.begin()
        upload_id, secret = begun["upload_url"].split("/")[-4], begun["upload_url"].split("/")[-1]
        url = begun["file_url"] + path.format(secret=secret, id=upload_id)
        body = {"json": {"parts": [{"partNumber": 1}]}} if method == "POST" else {"data": b"evil"}
        status, _ = await site.send(method, url, **body)
        assert status in (401, 404)
        assert site.store.resolve(begun["file_url"]) is None

    case(tmp_path, test)


def test_a_complete_upload_cannot_be_written_again(tmp_path):
    async def test(site):
        begun = await site.begin()
        url = begun["upload_url"]
        assert (await site.send("PUT", url, data=b"first"))[0] == 200
        assert await site.send("PUT", url, data=b"second") == GONE
        assert await site.send("PUT", f"{url}/1", data=b"second") == GONE
        assert await site.send("POST", f"{url}/complete", json={}) == GONE
        assert await site.send("GET", begun["file_url"]) == (200, "first")

    case(tmp_path, test)


@pytest.mark.parametrize("number", ["0", "-1", "10000", "1e3", "٣", "x", "..%2f..%2fx", "1%00"])
def test_part_numbers(tmp_path, number):
    async def test(site):
        begun = await site.begin(multipart=True)
        status, said = await site.send("PUT", f"{begun['upload_url']}/{number}", data=b"x")
        assert status == 400
        assert said.endswith(" is not a part number; use 1 to 9999")
        assert not list((tmp_path / "uploads").glob("*.part"))

    case(tmp_path, test)


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"parts": []}, {"parts": {}}, {"parts": [1]}, {"parts": [{"partNumber": True}]}]
    + [{"parts": [{"partNumber": number}]} for number in ("1", 0, -1, 1.5, 10_000, None)],
)
def test_lists_of_parts(tmp_path, body):
    async def test(site):
        begun = await site.begin(multipart=True)
        sentence = 'The body must be {"parts": [{"partNumber": 1, "etag": "..."}, ...]}'
        url = f"{begun['upload_url']}/complete"
        assert await site.send("POST", url, json=body) == (400, sentence)

    case(tmp_path, test)


def test_a_missing_part(tmp_path):
    async def test(site):
        begun = await site.begin(multipart=True)
        await site.send("PUT", f"{begun['upload_url']}/1", data=b"x")
        body = {"parts": [{"partNumber": 1}, {"partNumber": 2}]}
        url = f"{begun['upload_url']}/complete"
        assert await site.send("POST", url, json=body) == (400, "Part 2 was not uploaded")
        assert site.store.resolve(begun["file_url"]) is None

    case(tmp_path, test)


async def _pieces(count):
    for _ in range(count):
        yield b"x" * 10


@pytest.mark.parametrize("data", [lambda: b"x" * 101, lambda: _pieces(11)], ids=["known", "stream"])
def test_too_large(tmp_path, data):
    async def test(site):
        sentence = (413, "The body is larger than the limit of 100 bytes")
        whole = await site.begin()
        assert await site.send("PUT", whole["upload_url"], data=data()) == sentence
        parts = await site.begin(multipart=True)
        assert (await site.send("PUT", f"{parts['upload_url']}/1", data=b"x" * 60))[0] == 200
        assert await site.send("PUT", f"{parts['upload_url']}/2", data=b"x" * 60) == sentence
        assert (await site.send("PUT", f"{parts['upload_url']}/2", data=b"x" * 40))[0] == 200
        assert not list((tmp_path / "uploads").glob("*.incoming"))

    case(tmp_path, test, max_bytes=100)


def test_the_folder_has_a_limit(tmp_path):
    async def test(site):
        begun = await site.begin()
        assert await site.send("PUT", begun["upload_url"], data=b"x" * 2000) == FULL
        async with site.client.post(
            f"{REST}/upload/initiate", json={}, headers=site.key
        ) as response:
            assert response.status == 200

    case(tmp_path, test, total_bytes=1000)


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer x", "Key a:b", "Bearer \xff"])
@pytest.mark.parametrize("path", [CDN, f"{CDN}/multipart"])
def test_tokens(tmp_path, authorization, path):
    async def test(site):
        await site.json("POST", f"{REST}/auth/token", json={})
        headers = {} if authorization is None else {"Authorization": authorization}
        url = site.client.make_url(path)
        assert await site.send("POST", url, data=b"x", headers=headers) == NO_TOKEN

    case(tmp_path, test)


@pytest.mark.parametrize("path", ["upload/initiate", "upload/initiate-multipart", "auth/token"])
def test_starting_an_upload_needs_a_key(tmp_path, path):
    async def test(site):
        url = site.client.make_url(f"{REST}/{path}")
        assert (await site.send("POST", url, json={}))[0] == 401

    case(tmp_path, test)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://h/",
        "http://h/fal/uploads/{id}",
        "http://h/fal/uploads/{id}/",
        "http://h/fal/uploads/../uploads/{id}.json/x",
        "http://h/fal/uploads/{id}.json/x",
        "http://h/fal/uploads/%2e%2e%2fapi-keys.json/x",
        "http://h/fal/uploads/..%2f..%2fetc%2fpasswd/x",
        "http://h/fal/uploads/0123456789abcdef0123456789abcdef/x",
        "http://h/fal/uploads/{pending}/x",
        "http://h/other/uploads/{id}/x",
        "http://[bad/fal/uploads/{id}/x",
    ],
)
def test_urls_of_missing_uploads(tmp_path, url):
    async def test(site):
        begun = await site.begin()
        await site.send("PUT", begun["upload_url"], data=b"x")
        pending = await site.begin()
        ids = [each["file_url"].split("/")[-2] for each in (begun, pending)]
        wanted = url.format(id=ids[0], pending=ids[1])
        found = site.store.resolve(wanted)
        empty_name = url.endswith("{id}/")
        assert (found is None) != empty_name
        if wanted.startswith("http://h/fal/uploads/") and not empty_name:
            path = wanted.removeprefix("http://h")
            assert (await site.send("GET", site.client.make_url(path)))[0] in (401, 404)

    case(tmp_path, test)


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://other.name", "http://h/api"])
def test_an_upload_is_found_under_other_host_names(tmp_path, host):
    async def test(site):
        begun = await site.begin()
        await site.send("PUT", begun["upload_url"], data=b"x")
        path = begun["file_url"].split("/", 3)[3]
        assert site.store.resolve(f"{host}/{path}") == site.store.resolve(begun["file_url"])

    case(tmp_path, test)


def test_uploads_expire(tmp_path):
    async def test(site):
        begun = await site.begin()
        assert await site.send("PUT", begun["upload_url"], data=b"x") == (200, "{}")
        assert await site.send("GET", begun["file_url"]) == NO_FILE
        assert site.store.resolve(begun["file_url"]) is None
        left = tmp_path / "uploads" / ("f" * 32 + ".incoming")
        left.touch()
        await site.begin()
        site.store.sweep()
        assert len(list((tmp_path / "uploads").iterdir())) == 2, "that one may just be written"
        old = time.time() - 7 * 3600
        os.utime(left, (old, old))
        site.store.sweep()
        assert len(list((tmp_path / "uploads").iterdir())) == 1

    case(tmp_path, test, kept_seconds=0)


def test_uploads_must_be_written_in_time(tmp_path):
    async def test(site):
        begun = await site.begin()
        assert await site.send("PUT", begun["upload_url"], data=b"x") == GONE

    case(tmp_path, test, write_seconds=0)


@pytest.mark.parametrize(
    ("content_type", "sent", "shown"),
    [
        ("video/mp4", "video/mp4", True),
        ("text/html", "text/html", False),
        ("image/svg+xml", "image/svg+xml", False),
        ("text/html\r\nX-Evil: 1", "application/octet-stream", False),
        ("nonsense", "application/octet-stream", False),
        ("", "application/octet-stream", False),
    ],
)
def test_a_browser_runs_no_upload(tmp_path, content_type, sent, shown):
    async def test(site):
        begun = await site.begin(content_type=content_type)
        await site.send("PUT", begun["upload_url"], data=b"<script>")
        async with site.client.session.get(begun["file_url"]) as response:
            assert response.headers["Content-Type"] == sent
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert ("Content-Disposition" in response.headers) != shown

    case(tmp_path, test)


def test_many_at_once_do_not_fill_the_disk(tmp_path, monkeypatch):
    """Streams without a length are measured while they arrive."""
    monkeypatch.setattr(uploads, "_LOOK_AGAIN_BYTES", 1000)

    async def test(site):
        begun = await site.begin(multipart=True)
        urls = [f"{begun['upload_url']}/{number}" for number in range(1, 9)]
        answers = await asyncio.gather(
            *(site.send("PUT", url, data=_pieces(300)) for url in urls), return_exceptions=True
        )
        assert FULL in answers
        assert sum(path.stat().st_size for path in (tmp_path / "uploads").iterdir()) < 18_000

    case(tmp_path, test, total_bytes=10_000)
