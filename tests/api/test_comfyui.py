"""Actions of ComfyUI's own users while the API runs, and what they see of it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from pathlib import Path

import aiohttp
import pytest

from ..host.conftest import PATHS
from .test_queue import CANCELLED, wait_for_positions


@pytest.fixture(scope="module", params=PATHS or [None], ids=lambda path: Path(path or "none").name)
def home(request, make_home):
    if request.param is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    with make_home(request.param) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def long_job(home):
    request = home.submit_long()
    yield request
    home.cancel(request)
    home.wait(request)


@pytest.fixture
def prompt(home):
    """Queue a prompt as a browser tab does, and return its id."""
    clip = base64.b64decode(home.clip.partition(",")[2])
    (home.server.folder / "input" / "clip.mp4").write_bytes(clip)
    inputs = {
        "video": "clip.mp4",
        "prompt": "a tab's",
        "negative_prompt": "",
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "base_model": "cardosAnime_v20.safetensors",
        "motion_module": "mm_sd_v15_v2.safetensors",
        "select_every_nth_frame": 2,
        "seed": 1,
    }

    def queue(seed):
        node = {"class_type": "ADV2V_VideoToVideo", "inputs": inputs | {"seed": seed}}
        return home.server.queue({"job": node})

    return queue


class Tab:
    """An open tab of the frontend, with all messages that it receives."""

    def __init__(self, home):
        self._url = f"{home.url}/ws?clientId=tab"
        self.told = []
        self._connected = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._hear()])

    async def _hear(self):
        self._stop = asyncio.Event()
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url) as socket:
            self._connected.set()
            stop = asyncio.ensure_future(self._stop.wait())
            while not stop.done():
                message = asyncio.ensure_future(socket.receive())
                await asyncio.wait({message, stop}, return_when=asyncio.FIRST_COMPLETED)
                if message.done():
                    data = message.result()
                    is_text = data.type is aiohttp.WSMsgType.TEXT
                    self.told.append(json.loads(data.data)["type"] if is_text else "a picture")
                else:
                    message.cancel()

    def __enter__(self):
        self._thread.start()
        self._connected.wait(30)
        return self

    def __exit__(self, *_error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def test_open_tabs_see_no_foreign_progress(home):
    with Tab(home) as tab:
        requests = [home.submit(num_inference_steps=3, seed=index) for index in range(3)]
        cancelled = home.submit()
        home.cancel(cancelled)
        for request in (*requests, cancelled):
            home.wait(request)
    assert tab.told and set(tab.told) <= {"status", "feature_flags"}, set(tab.told)


def wait_for_pending(home, count):
    """Wait until ComfyUI itself has queued this many prompts: earlier positions are forecasts."""
    until = time.monotonic() + 30
    while len(home.server.get("/queue")["queue_pending"]) != count:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_positions_count_the_tabs_prompts(home, long_job, prompt):
    of_tab = prompt(1)
    behind = home.submit()
    wait_for_positions(home, [behind], [2])
    wait_for_pending(home, 2)
    later = prompt(2)
    wait_for_positions(home, [behind], [2])
    low = home.submit(headers={"x-fal-queue-priority": "low"})
    wait_for_positions(home, [behind, low], [2, 4])
    home.cancel(long_job)
    assert home.result(behind).status_code == 200
    assert home.result(low).status_code == 200
    for each in (of_tab, later):
        assert home.server.wait(each)["status"]["status_str"] == "success"


def test_the_interrupt_button_ends_the_request(home, long_job, prompt):
    neighbour = home.submit()
    assert home.server.post("/interrupt", {})[0] == 200
    result = home.result(long_job)
    assert (result.status_code, result.json()) == (499, CANCELLED)
    assert home.result(neighbour).status_code == 200


def test_clearing_the_queue_cancels_waiting_requests(home, long_job, prompt):
    waiting = [home.submit(seed=index) for index in range(3)]
    wait_for_pending(home, 3)
    wait_for_positions(home, waiting, [1, 2, 3])
    assert home.server.post("/queue", {"clear": True})[0] == 200
    for request in waiting:
        result = home.result(request)
        assert (result.status_code, result.json()) == (499, CANCELLED)
    assert home.status(long_job)["status"] == "IN_PROGRESS"


def test_clearing_the_history_leaves_results_alone(home):
    request = home.submit()
    made = home.result(request).json()
    assert home.server.post("/history", {"clear": True})[0] == 200
    assert home.server.get("/history") == {}
    assert home.result(request).json() == made


def test_cancelling_a_request_leaves_the_tabs_prompts_alone(home, long_job, prompt):
    of_tab = [prompt(seed) for seed in (11, 12)]
    waiting = home.submit()
    home.cancel(waiting)
    home.cancel(long_job)
    assert home.result(waiting).status_code == 499
    for each in of_tab:
        assert home.server.wait(each)["status"]["status_str"] == "success"


def test_every_path_is_served_under_api_as_well(home):
    for path in ("/animatediff-v2v", "/animatediff-v2v/openapi.json", "/.well-known/jwks.json"):
        assert home.get(path, key=None).content == home.get(f"/api{path}", key=None).content
    headers = {"x-fal-target-url": "https://queue.fal.run/fal-ai/animatediff-v2v"}
    submitted = home.post("/api/fal/proxy", home.wish(), headers=headers)
    assert home.result(submitted.json()).status_code == 200


def test_the_api_is_off_unless_switched_on(make_home):
    if not PATHS:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    with make_home(PATHS[0], enabled=False) as home:
        for path in ("/animatediff-v2v", "/fal/fal.run/fal-ai/animatediff-v2v", "/fal/proxy"):
            assert home.post(path, {}).status_code in (404, 405)
        assert "hosted API" not in home.log()
