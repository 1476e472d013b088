"""The application without models: its answers when it cannot run requests."""

from __future__ import annotations

import asyncio
import sys

import pytest
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.serve import application
from animatediff_v2v.api.settings import Settings
from animatediff_v2v.api.storage.data_folder import OWN

from ...api.homes import data_uri, write_clip
from .test_store import request

SUBMIT = "/fal/queue.fal.run/fal-ai/animatediff-v2v"
WISH = {"video_url": "http://192.168.0.1/a.mp4", "prompt": "p"}


def call(tmp_path, story, *, models=(), **settings):
    """Run a scenario with a client of an application that has these (empty) model files."""
    for name in models:
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    async def run():
        app = application(
            tmp_path / "data",
            models=tmp_path / "models",
            settings=Settings(**settings),
            workers=(),
        )
        key = KeyRing(tmp_path / "data" / OWN).add("test")
        headers = {"Authorization": f"Key {key}"}
        async with TestClient(TestServer(app), headers=headers) as client:
            return await story(client)

    return asyncio.run(run())


BOTH = ("checkpoints/cardosAnime_v20.safetensors", "animatediff_models/mm_sd_v15_v2.ckpt")


@pytest.mark.parametrize(
    ("models", "status", "said"),
    [
        ((), 500, "No motion module is installed in models/animatediff_models."),
        (BOTH[1:], 422, "base_model 'cardosAnimev20' is not installed"),
        (BOTH, 200, ""),
    ],
)
def test_missing_models_are_told_before_anything_is_queued(tmp_path, models, status, said):
    async def story(client):
        answer = await client.post(SUBMIT, json=WISH)
        return answer.status, await answer.text()

    found, text = call(tmp_path, story, models=models)
    assert found == status
    assert said in text


@pytest.mark.parametrize(
    ("limits", "status"),
    [({"max_queued": 1}, 503), ({"max_queued_per_key": 1}, 200), ({"max_queued": 2}, 200)],
)
def test_a_full_queue_is_answered_with_503(tmp_path, limits, status):
    async def story(client):
        # One of another key that this process knows nothing of, and so never ends.
        other = Store(tmp_path / "data" / OWN / "api.sqlite")
        other.submit(request(owner="another"), most=10, most_of_owner=10)
        other.close()
        answer = await client.post(SUBMIT, json=WISH)
        return answer.status, await answer.json()

    found, body = call(tmp_path, story, models=BOTH, **limits)
    assert found == status
    assert body.get("error_type") == ("queue_full" if status == 503 else None)


def test_cancelling_twice_and_at_the_last_moment_ends_the_request(tmp_path):
    async def story(client):
        ended = []
        for _ in range(20):
            submitted = await (await client.post(SUBMIT, json=WISH)).json()
            path = f"{SUBMIT}/requests/{submitted['request_id']}"
            await asyncio.gather(*(client.put(f"{path}/cancel") for _ in range(3)))
            for _ in range(500):
                status = await (await client.get(f"{path}/status")).json()
                if status["status"] == "COMPLETED":
                    break
                await asyncio.sleep(0.01)
            ended.append((status["status"], status.get("error_type")))
        return ended

    ended = call(tmp_path, story, models=BOTH)
    assert {status for status, _ in ended} == {"COMPLETED"}
    assert {kind for _, kind in ended} <= {"request_cancelled", "file_download_error"}


def test_the_stream_ends_with_the_request(tmp_path):
    async def story(client):
        submitted = await (await client.post(SUBMIT, json=WISH)).json()
        path = f"{SUBMIT}/requests/{submitted['request_id']}/status/stream"
        answer = await client.get(path)
        text = await answer.text()
        return answer.headers["Content-Type"], text

    content_type, text = call(tmp_path, story, models=BOTH)
    assert content_type == "text/event-stream"
    assert '"COMPLETED"' in text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("models", "settings", "said"),
    [
        (
            (),
            {},
            [
                "No checkpoint is installed in models/checkpoints.",
                "No motion module is installed in models/animatediff_models.",
            ],
        ),
        (BOTH, {}, []),
        (
            BOTH,
            {"base_models": {"mine": "gone.ckpt"}, "turbo_motion_module": "x"},
            [
                "The turbo_motion_module of api.json, 'x' in models/animatediff_models, is not "
                "installed.",
                "base_models of api.json maps 'mine' to 'gone.ckpt', which does not match exactly "
                "one file of models/checkpoints.",
            ],
        ),
    ],
)
def test_missing_models_are_logged_at_the_start(tmp_path, caplog, models, settings, said):
    async def story(_client):
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    warnings = call(tmp_path, story, models=models, **settings)
    assert [each for each in warnings if each.startswith("Requests")] == [
        f"Requests will be refused: {each}" for each in said
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_files_are_readable_only_by_this_user(tmp_path):
    own = tmp_path / "data" / OWN
    own.mkdir(parents=True)
    own.chmod(0o755)

    async def story(client):
        await client.post(SUBMIT, json=WISH)
        return {each.name: each.stat().st_mode & 0o777 for each in own.glob("api.sqlite*")}

    modes = call(tmp_path, story, models=BOTH)
    assert own.stat().st_mode & 0o777 == 0o700
    assert "api.sqlite" in modes
    assert set(modes.values()) == {0o600}


def test_keys_take_turns(tmp_path):
    """A key's only request does not wait for all earlier requests of another key."""
    clip = write_clip(tmp_path / "clip.mp4", frames=2, frame_rate=1)
    wish = WISH | {"video_url": data_uri(clip)}

    async def story(client):
        other = KeyRing(tmp_path / "data" / OWN).add("other")
        theirs = {"Authorization": f"Key {other}"}
        sent = []
        for headers in (None, None, None, None, None, None, theirs, theirs):
            async with client.post(SUBMIT, json=wish, headers=headers) as answer:
                sent.append(((await answer.json())["request_id"], headers))
        for _ in range(30):
            positions = [await position(client, *each) for each in sent]
            # The last request in the long queue gets a later position until its files are fetched.
            if positions[:3] + positions[6:] == [0, 2, 4, 1, 3]:
                return positions
            await asyncio.sleep(0.02)
        return positions

    assert call(tmp_path, story, models=BOTH) == [0, 2, 4, 5, 6, 7, 1, 3]


async def position(client, request_id, headers):
    path = f"{SUBMIT}/requests/{request_id}/status"
    async with client.get(path, headers=headers) as answer:
        return (await answer.json())["queue_position"]
