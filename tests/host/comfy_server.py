"""A real ComfyUI in a process of its own, with this pack alone and tiny models.

It runs on the CPU unless COMFYUI_GPU is set to anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import aiohttp

PACK = Path(__file__).parents[2]
PACK_NAME = "animatediff-v2v"
PROBE = Path(__file__).parent / "probe"
MODEL_FOLDERS = {
    "checkpoint.safetensors": "checkpoints",
    "motion_module.safetensors": "animatediff_models",
    "style_lora.safetensors": "loras",
    "controlnet.safetensors": "controlnet",
}
START_SECONDS = 900
RUN_SECONDS = 600


class ComfyServer:
    """Starts on entry, stops on exit; `folder` is its base directory."""

    def __init__(self, comfyui, folder, weights, flags=()):
        self.comfyui, self.folder, self._flags = Path(comfyui), folder, flags
        self.log_path = folder / "server.log"
        for name in ("custom_nodes", "input", "output", "temp", "user"):
            (folder / name).mkdir(parents=True)
        for name, models in MODEL_FOLDERS.items():
            (folder / "models" / models).mkdir(parents=True)
            shutil.copy(weights / name, folder / "models" / models / name)
        _link(PACK, folder / "custom_nodes" / PACK_NAME)
        vision = Path(__file__).with_name("other_clip_vision.py")
        shutil.copy(vision, folder / "custom_nodes" / vision.name)
        _link(PROBE, folder / "custom_nodes" / "probe")
        self.port = _free_port()

    def __enter__(self):
        command = [os.environ.get("COMFYUI_PYTHON", sys.executable), "main.py"]
        command += [] if os.environ.get("COMFYUI_GPU") else ["--cpu"]
        command += ["--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.folder), "--disable-api-nodes"]
        command += ["--database-url", f"sqlite:///{self.folder / 'user' / 'comfyui.db'}"]
        command += ["--preview-method", "latent2rgb", *self._flags]
        self._log = self.log_path.open("wb")
        self._process = subprocess.Popen(
            command, cwd=self.comfyui, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_until_up(self):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            assert self._process.poll() is None, self.log()
            try:
                self.get("/system_stats")
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(f"ComfyUI did not start.\n{self.log()}")

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type().endswith("json") else body

    def post(self, path, data):
        """Return the answer's status and JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(data).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body) if body else {}

    def queue(self, prompt, workflow=None, client=None):
        """Queue a prompt in API format; return its id. A `Watcher` of `client` gets its events."""
        extra = {"extra_pnginfo": {"workflow": workflow or {}}}
        body = {"prompt": prompt, "extra_data": extra} | ({"client_id": client} if client else {})
        status, answer = self.post("/prompt", body)
        assert status == 200, answer
        return answer["prompt_id"]

    def watched(self, client=None):
        """Listen to the server's messages for a browser, within a `with`; see Watcher."""
        return Watcher(self.port, client or uuid.uuid4().hex)

    def wait(self, prompt_id):
        """Wait until a prompt is finished, and return its history entry."""
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise AssertionError(f"The prompt did not finish.\n{self.log()}")

    def run(self, prompt, workflow=None, client=None):
        """Run a prompt that must succeed without a complaint in the log."""
        before = len(self.log())
        entry = self.wait(self.queue(prompt, workflow, client))
        said = self.log()[before:]
        assert entry["status"]["status_str"] == "success", f"{entry['status']}\n{said}"
        for complaint in ("Traceback", "Error", "Exception", "memory leak"):
            assert complaint not in said, said
        return entry

    def unload(self):
        """Do what the button "Unload Models and Execution Cache" does, and wait for it."""
        until = time.monotonic() + START_SECONDS
        while True:
            # ComfyUI misses the request if it arrives during the clean-up after a prompt.
            status, _ = self.post("/free", {"unload_models": True, "free_memory": True})
            assert status == 200
            time.sleep(1)
            told = self.get("/probe")
            if not (told["loaded"] or told["patchers"]):
                return
            assert time.monotonic() < until, told

    def files(self, entry):
        """Return the files that a run lists, in its order."""
        shown = [each for node in entry["outputs"].values() for each in node["images"]]
        return [self.folder / each["type"] / each["subfolder"] / each["filename"] for each in shown]


class Watcher:
    """A browser's WebSocket: collects the server's messages while it is open."""

    def __init__(self, port, client):
        self.client = client
        self.events, self.pictures, self.texts, self.said = [], [], {}, []
        self._address = f"ws://127.0.0.1:{port}/ws?clientId={client}"
        self._open, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._open.wait(timeout=30)
        return self

    def __exit__(self, *_error):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=30)

    async def _listen(self):
        self._loop = asyncio.get_running_loop()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._address, max_msg_size=0) as socket,
        ):
            flags = {"supports_preview_metadata": True}
            await socket.send_json({"type": "feature_flags", "data": flags})
            self._open.set()
            collecting = asyncio.create_task(self._collect(socket))
            await self._stop.wait()
            collecting.cancel()

    async def _collect(self, socket):
        async for each in socket:
            if each.type is aiohttp.WSMsgType.TEXT:
                self.events.append(json.loads(each.data))
            elif each.type is aiohttp.WSMsgType.BINARY:
                self._keep(each.data)

    def _keep(self, data):
        """Store a node's text (type 3) or preview with metadata (type 4): both have a header."""
        kind, length = struct.unpack(">II", data[:8])
        head, rest = data[8 : 8 + length], data[8 + length :]
        if kind == 3:
            self.texts[head.decode()] = rest.decode()
            self.said.append((head.decode(), rest.decode()))
        elif kind == 4:
            self.pictures.append((json.loads(head), rest))

    def of(self, kind):
        """Return the data of all messages of a kind so far."""
        return [each["data"] for each in self.events if each["type"] == kind]

    def until(self, found, seconds=RUN_SECONDS):
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < end, [each["type"] for each in self.events][-20:]
            time.sleep(0.02)

    def shares(self, node_id):
        """Return the progress of a node in each message, 0 to 1."""
        told = [each for each in self.of("progress") if each["node"] == node_id]
        return [each["value"] / each["max"] for each in told]


def message(entry, name):
    """Return the data of the first status message with a name in a history entry."""
    return next(data for kind, data in entry["status"]["messages"] if kind == name)


def _link(source, target):
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows does not let everyone make links
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
