"""The calls that the guard lets through, and its answers to the others."""

import asyncio
import logging
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.http.guard import Guard, caller_of, needs_no_key
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.wire.bodies import read_json
from animatediff_v2v.api.wire.problems import RequestRefused, error_response

BODY_LIMIT = 100
on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux shows the user of a connection"
)
NO_USER = (401, "No user found for Key ID and Secret")
MALFORMED = (
    401,
    "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
)
FOREIGN_PAGE = (403, "Pages of other sites may not call this server")
TOO_LARGE = (413, "The body is larger than the limit of 100 bytes")
NO_JSON = (400, "The body is not valid JSON")


async def _who(request):
    return web.Response(text=caller_of(request).name)


async def _echo(request):
    return web.json_response(await read_json(request, max_bytes=BODY_LIMIT))


@needs_no_key
async def _open(_request):
    return web.Response(text="open")


async def _refuse(_request):
    raise RequestRefused(error_response(418, "I am a teapot", "teapot"))


async def _host_route(_request):
    return web.Response(text="not ours")


def asked(tmp_path, method, path, *, settings=None, **request):
    """Return status and text, or status and detail, of one call."""
    return asked_all(tmp_path, [(method, path, request)], settings=settings)[0]


def asked_all(tmp_path, calls, *, settings=None):
    options = {"keyless_loopback": False, "allowed_hosts": ["Studio.local"], "rate": 1000}
    options |= settings or {}

    async def run():
        guard = Guard(
            KeyRing(tmp_path),
            keyless_loopback=options["keyless_loopback"],
            allowed_hosts=options["allowed_hosts"],
            max_body_bytes=BODY_LIMIT,
            requests_per_minute=options["rate"],
        )
        app = web.Application(middlewares=[guard.middleware])
        for prefix in ("", "/api"):
            app.router.add_route("*", f"{prefix}/fal/who", _who)
            app.router.add_route("*", f"{prefix}/fal/echo", _echo)
            app.router.add_route("*", f"{prefix}/fal/open", _open)
            app.router.add_route("*", f"{prefix}/fal/refuse", _refuse)
            app.router.add_route("*", f"{prefix}/falsehood", _host_route)
            app.router.add_route("*", f"{prefix}/prompt", _host_route)
        async with TestClient(TestServer(app)) as client:
            return [await _answer(client, *call) for call in calls]

    return asyncio.run(run())


async def _answer(client, method, path, request):
    async with client.request(method, path, **request) as response:
        if response.content_type == "application/json":
            body = await response.json()
            return response.status, body.get("detail", body) if type(body) is dict else body
        return response.status, await response.text()


@pytest.fixture
def key(tmp_path):
    return {"Authorization": f"Key {KeyRing(tmp_path).add('laptop')}"}


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_keys(tmp_path, key, prefix):
    calls = [
        ("GET", f"{prefix}/fal/who", {}),
        ("GET", f"{prefix}/fal/who", {"headers": {"Authorization": "Key nonsense"}}),
        ("GET", f"{prefix}/fal/who", {"headers": {"Authorization": "Basic YTpi"}}),
        ("GET", f"{prefix}/fal/who", {"headers": {"Authorization": "Key a:b"}}),
        ("GET", f"{prefix}/fal/who", {"headers": key}),
        ("GET", f"{prefix}/fal/who", {}),
        ("GET", f"{prefix}/fal/open", {}),
        ("GET", f"{prefix}/fal/nowhere", {}),
        ("GET", f"{prefix}/prompt", {}),
        ("GET", f"{prefix}/falsehood", {}),
        ("POST", f"{prefix}/fal/refuse", {"headers": key}),
    ]
    assert asked_all(tmp_path, calls) == [
        NO_USER,
        MALFORMED,
        MALFORMED,
        NO_USER,
        (200, "laptop"),
        NO_USER,  # the connection is the same, the caller is not
        (200, "open"),
        NO_USER,
        (200, "not ours"),
        (200, "not ours"),
        (418, "I am a teapot"),
    ]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("localhost", None),
        ("localhost:8188", None),
        ("LOCALHOST.", None),
        ("127.0.0.1:8188", None),
        ("[::1]:8188", None),
        ("192.168.1.7", None),
        ("studio.local:8188", None),
        ("evil.example", "evil.example"),
        ("evil.example:8188", "evil.example"),
        ("127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("localhost.evil.example", "localhost.evil.example"),
        ("evil.example@localhost.evil", "localhost.evil"),
        ("", ""),
        ("[::1", ""),
        ("x" * 200, "x" * 100),
    ],
)
def test_hosts(tmp_path, host, shown, key):
    sentence = (
        f"This server does not answer to the name {shown!r}: call it by its address, "
        "or add the name to allowed_hosts"
    )
    for path, answer in (("/fal/open", "open"), ("/fal/who", "laptop")):
        expected = (200, answer) if shown is None else (403, sentence)
        assert asked(tmp_path, "GET", path, headers={"Host": host} | key) == expected


@pytest.mark.parametrize(
    ("headers", "comes_in"),
    [
        ({}, True),
        ({"Origin": "http://{host}"}, True),
        ({"Sec-Fetch-Mode": "cors"}, True),  # Node's fetch
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost:1"}, False),
        ({"Origin": "http://[bad"}, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@on_linux
def test_pages_of_others_cannot_use_what_needs_no_key(tmp_path, headers, comes_in, method):
    headers = {name: value.format(host="127.0.0.1:8188") for name, value in headers.items()}
    headers |= {"Host": "127.0.0.1:8188"}
    got = asked(tmp_path, method, "/fal/who", headers=headers, settings={"keyless_loopback": True})
    assert got == ((200, "local") if comes_in else FOREIGN_PAGE)


async def _pieces(size):
    for _ in range(size // 10):
        yield b" " * 10


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (lambda: b'{"a": 1}', (200, {"a": 1})),
        (lambda: b"", (200, {})),
        (lambda: b"[1]", (200, [1])),
        (lambda: b"{", NO_JSON),
        (lambda: b"\xff", NO_JSON),
        (lambda: b"[" * BODY_LIMIT, NO_JSON),
        (lambda: b'"' + b"x" * 98 + b'"', (200, "x" * 98)),
        (lambda: b'"' + b"x" * 99 + b'"', TOO_LARGE),
        (lambda: _pieces(90), NO_JSON),
        (lambda: _pieces(10_000), TOO_LARGE),  # without a length: read no further than that
    ],
)
def test_bodies(tmp_path, data, answer, key):
    assert asked(tmp_path, "POST", "/fal/echo", headers=key, data=data()) == answer


def test_rate(tmp_path, key):
    """Status calls do not count, so that many requests can be followed; never 408, 409 or 429."""
    calls = [("POST", "/fal/who", {"headers": key})] * 3 + [("GET", "/fal/who", {"headers": key})]
    assert asked_all(tmp_path, calls, settings={"rate": 2}) == [
        (200, "laptop"),
        (200, "laptop"),
        (403, "Too many calls with this key; wait a minute, or raise requests_per_minute"),
        (200, "laptop"),
    ]


def test_logs_hold_no_secrets(tmp_path, key, caplog):
    caplog.set_level(logging.DEBUG)
    prompt = "a secret prompt"
    calls = [
        ("POST", "/fal/echo?fal_webhook=http://hook.test/token", {"headers": key, "data": prompt}),
        ("POST", "/fal/who", {"headers": {"Authorization": "Key a:wrong-secret"}}),
        *[("POST", "/fal/who", {"headers": key})] * 3,
    ]
    asked_all(tmp_path, calls, settings={"rate": 2})
    # aiohttp's own access log is off wherever the API is served.
    said = [each.getMessage() for each in caplog.records if each.name != "aiohttp.access"]
    for secret in (prompt, key["Authorization"].split(":")[1], "wrong-secret", "hook.test/token"):
        assert secret not in "\n".join(said)
    assert "The key 'laptop' exceeds its limit of calls." in said
