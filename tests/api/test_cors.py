"""Pages of other sites: which ones the owner allows, and the CORS headers for browsers."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.http.guard import Guard, caller_of
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.settings import Settings
from pydantic import ValidationError

PAGE = "https://studio.example"
ASKS = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-fal-queue-priority",
}


@web.middleware
async def refuse_pages(request, handler):
    """Behave as ComfyUI does behind the guard."""
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        return web.Response(status=403)
    return await handler(request)


async def _who(request):
    return web.Response(text=f"{caller_of(request).name} {await request.text()}")


async def _stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    return response


def asked(tmp_path, method, path, **options):
    """Return status, headers and text of a call."""

    async def run():
        guard = Guard(
            KeyRing(tmp_path), allowed_origins=[PAGE], max_body_bytes=99, requests_per_minute=9
        )
        app = web.Application(middlewares=[guard.middleware, refuse_pages])
        app.on_response_prepare.append(guard.cors.let_read)
        app.router.add_post("/fal/who", _who)
        app.router.add_get("/fal/stream", _stream)
        app.router.add_get("/prompt", _stream)
        async with (
            TestClient(TestServer(app)) as client,
            client.request(method, path, **options) as answer,
        ):
            return answer.status, answer.headers, await answer.text()

    return asyncio.run(run())


@pytest.fixture
def key(tmp_path):
    return {"Authorization": f"Key {KeyRing(tmp_path).add('page')}"}


def test_preflight_requests_are_answered(tmp_path):
    status, headers, _ = asked(tmp_path, "OPTIONS", "/fal/who", headers=ASKS)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Headers"] == ASKS["Access-Control-Request-Headers"]
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Vary"] == "Origin"


def test_private_network_preflights_are_answered(tmp_path):
    more = {"Access-Control-Request-Private-Network": "true"}
    _, headers, _ = asked(tmp_path, "OPTIONS", "/fal/who", headers=ASKS | more)
    assert headers["Access-Control-Allow-Private-Network"] == "true"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://studio.example", f"{PAGE}:8443", "null", PAGE + "x"]
)
def test_pages_of_other_origins_are_refused(tmp_path, origin, key):
    status, headers, _ = asked(tmp_path, "OPTIONS", "/fal/who", headers=ASKS | {"Origin": origin})
    assert status == 401
    assert "Access-Control-Allow-Origin" not in headers
    _, headers, _ = asked(tmp_path, "POST", "/fal/who", headers=key | {"Origin": origin})
    assert "Access-Control-Allow-Origin" not in headers


def test_the_page_gets_through_with_its_key(tmp_path, key):
    page = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    status, headers, text = asked(tmp_path, "POST", "/fal/who", headers=key | page, data="body")
    assert (status, text) == (200, "page body")
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-Fal-Request-Id" in headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/fal/who", 401), ("GET", "/fal/stream", 200)]
)
def test_the_page_can_read_refusals_and_streams(tmp_path, method, path, status, key):
    headers = {"Origin": PAGE} | (key if status == 200 else {})
    found, headers, _ = asked(tmp_path, method, path, headers=headers)
    assert (found, headers["Access-Control-Allow-Origin"]) == (status, PAGE)


def test_other_paths_are_not_guarded(tmp_path):
    status, headers, _ = asked(tmp_path, "GET", "/prompt", headers={"Origin": PAGE})
    assert (status, headers.get("Access-Control-Allow-Origin")) == (403, None)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://a.example", "https://a.example"),
        ("HTTPS://A.example:443", "https://a.example"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("*", None),
        ("null", None),
        ("https://a.example/path", None),
        ("a.example", None),
        ("ftp://a.example", None),
    ],
)
def test_origins_are_written_as_browsers_do(text, origin):
    if origin is None:
        with pytest.raises(ValidationError, match="is not an origin"):
            Settings(allowed_origins=[text])
    else:
        assert Settings(allowed_origins=[text]).allowed_origins == (origin,)
