"""Every path of the API, and whether it needs a key."""

import asyncio
import re
from itertools import product

import pytest
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.serve import application
from animatediff_v2v.api.settings import Settings

# Files whose URL is the secret, uploads with a token or a secret of their own, what is public.
OPEN = {
    "GET /",
    "GET /.well-known/jwks.json",
    "GET /fal/rest.fal.ai/.well-known/jwks.json",
    "GET /fal/rest.alpha.fal.ai/.well-known/jwks.json",
    "GET /animatediff-v2v",
    "GET /animatediff-v2v/health",
    "GET /animatediff-v2v/openapi.json",
    "GET /animatediff-v2v/files/{token}/{name}",
    "GET /fal/uploads/{id}/{name}",
    "PUT /fal/uploads/{id}/{name}/write/{secret}",
    "PUT /fal/uploads/{id}/{name}/write/{secret}/{number}",
    "POST /fal/uploads/{id}/{name}/write/{secret}/complete",
    "PUT /fal/uploads/{id}/{name}/multipart/{secret}/{number}",
    "POST /fal/uploads/{id}/{name}/multipart/{secret}/complete",
    "POST /fal/v3.fal.media/files/upload",
    "POST /fal/v3.fal.media/files/upload/multipart",
}
ENDPOINTS = (
    "fal-ai/animatediff-v2v",
    "fal-ai/animatediff-v2v/turbo",
    "fal-ai/fast-animatediff/turbo/video-to-video",
    "fal-ai/fast-animatediff/video-to-video",
)
APPS = ("fal-ai/animatediff-v2v", "fal-ai/fast-animatediff")
FOLLOWED = ("GET {}/status", "GET {}/status/stream", "GET {}", "PUT {}/cancel")
CLOSED = {
    "GET /metrics",
    "GET /animatediff-v2v/metrics",
    *(f"POST /fal/fal.run/{each}" for each in ENDPOINTS),
    *(f"POST /fal/queue.fal.run/{each}" for each in ENDPOINTS),
    *(
        each.format(f"/fal/queue.fal.run/{app}/requests/{{request_id}}")
        for app in APPS
        for each in FOLLOWED
    ),
    *(
        f"POST /fal/{rest}/storage/{each}"
        for rest in ("rest.fal.ai", "rest.alpha.fal.ai")
        for each in ("upload/initiate", "upload/initiate-multipart", "auth/token")
    ),
    "* /fal/proxy",
    "* /fal/{tail}",
}


@pytest.fixture
def app(tmp_path):
    for name in ("checkpoints/a.ckpt", "animatediff_models/mm_sd_v15_v2.ckpt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    settings = Settings(enabled=True)
    return application(tmp_path / "data", models=tmp_path, settings=settings, workers=())


def test_every_path_is_listed_here(app):
    """A new path needs a decision: who may use it?"""
    found = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.method != "HEAD"
    }
    doors = OPEN | CLOSED
    assert found == doors | {each.replace(" /", " /api/") for each in doors}


def test_closed_paths_need_a_key(app):
    async def run():
        async with TestClient(TestServer(app)) as client:
            doors = sorted(CLOSED | OPEN)
            for door, prefix in [*product(doors, ("", "/api"))]:
                method, path = door.replace("*", "POST").split(" ")
                path = prefix + path
                path = re.sub(r"\{\w+\}", "x", path)
                async with client.request(method, path) as answer:
                    body = await answer.text()
                no_user = "No user found for Key ID and Secret" in body
                assert (answer.status == 401 and no_user) == (door in CLOSED), (door, body)
                assert answer.status < 500

    asyncio.run(run())
