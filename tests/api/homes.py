"""The API in its two hosts, `serve` and ComfyUI, as processes that can be stopped and killed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import requests
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.storage.data_folder import DataFolder
from animatediff_v2v.pipeline.video import VideoWriter
from safetensors.torch import save_file

from ..host.comfy_server import ComfyServer
from ..unit.files import miniatures as mini

START_SECONDS = 300
JOB_SECONDS = 120
QUEUE = "/fal/queue.fal.run"
V2V = "/fal-ai/animatediff-v2v"
MINIATURE = Path(__file__).parents[2] / "demo" / "models"
MODELS = {
    "checkpoints": ("miniature", "cardosAnime_v20"),
    "animatediff_models": ("miniature_motion", "mm_sd_v15_v2"),
    "loras": ("miniature_outlined", "style_lora"),
}


class Home:
    """A host of the API: a folder with settings and two keys, an address, and shortcuts for calls.

    Calls are made with the first key unless another one, or None, is given.
    """

    is_comfyui = False

    def __init__(self, data, clip, **settings):
        data.mkdir(parents=True, exist_ok=True)
        self.root, self.data = data, DataFolder.open(data).path
        values = {"enabled": True, "private_webhooks": True, "requests_per_minute": 100_000}
        (data / "api.json").write_text(json.dumps(values | settings))
        ring = KeyRing(self.data)
        self.key, self.other_key = ring.add("first"), ring.add("second")
        self.clip = data_uri(clip)
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def restart(self, *, kill):
        self.stop(kill=kill)
        self.start()

    def wait_until_up(self, is_running):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            assert is_running(), self.log()
            try:
                self.session.get(f"{self.url}/animatediff-v2v/openapi.json", timeout=5)
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"The server did not start.\n{self.log()}")

    def leftovers(self):
        """Return the fetched videos that have not been removed."""
        return sorted(path.name for path in self.inputs.iterdir())

    # --- calls ---------------------------------------------------------------------------------

    def call(self, method, path, *, key="", **options):
        headers = dict(options.pop("headers", {}))
        key = self.key if key == "" else key
        if key is not None:
            headers.setdefault("Authorization", f"Key {key}")
        url = path if path.startswith("http") else self.url + path
        return self.session.request(method, url, headers=headers, timeout=60, **options)

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, path, body, **options):
        return self.call("POST", path, json=body, **options)

    def wish(self, **values):
        """Return a small valid input with some values replaced; None leaves one out."""
        wish = {
            "video_url": self.clip,
            "prompt": "a rocket",
            "num_inference_steps": 1,
            "guidance_scale": 1,
            "seed": 1,
        } | values
        return {name: value for name, value in wish.items() if value is not None}

    def submit(self, *, endpoint=V2V, headers=None, query="", key="", **values):
        """Submit an input and return the answer."""
        path = f"{QUEUE}{endpoint}{query}"
        answer = self.post(path, self.wish(**values), headers=headers or {}, key=key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit_long(self):
        """Submit a job that lasts longer than the test, and return it once it runs."""
        clip = write_clip(self.root / "large.mp4", frames=16, frame_rate=8, size=128)
        values = {"num_inference_steps": 100, "guidance_scale": 7, "select_every_nth_frame": 1}
        request = self.submit(video_url=data_uri(clip), **values)
        self.wait(request, until=("IN_PROGRESS",))
        return request

    def status(self, request, *, logs=0):
        answer = self.get(f"{request['status_url']}?logs={logs}")
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def wait(self, request, *, until=("COMPLETED",)):
        """Wait until a request has one of these statuses, and return the whole status."""
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            status = self.status(request, logs=1)
            if status["status"] in until:
                return status
            time.sleep(0.02)
        raise AssertionError(f"The request did not end.\n{self.log()}")

    def result(self, request):
        """Wait for the end of a request and return the answer to its result call."""
        self.wait(request)
        return self.get(request["response_url"])

    def cancel(self, request, **options):
        return self.call("PUT", request["cancel_url"], **options)


class BareHome(Home):
    """`animatediff-v2v serve`."""

    entry = ("-m", "animatediff_v2v.cli")

    def __init__(self, folder, clip, models, *, data=None, devices=(), options=(), **settings):
        super().__init__(data or folder / "data", clip, **settings)
        self._options = [*options]
        self._devices = [option for device in devices for option in ("--device", device)]
        self._models, self._log_path, self._folder = models, folder / "server.log", folder
        self.inputs, self.outputs = self.data / "inputs", self.data / "outputs"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, *self.entry, "serve", str(self.root)]
        command += ["--models", str(self._models), "--port", str(self.port), *self._devices]
        command += self._options
        self._log = self._log_path.open("ab")
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.wait_until_up(lambda: self.process.poll() is None)

    def stop(self, *, kill=False):
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(timeout=30)
        self._log.close()

    def log(self):
        return self._log_path.read_text(encoding="utf-8", errors="replace")


class QuickHome(BareHome):
    """`animatediff-v2v serve` with workers that load no networks."""

    entry = (str(Path(__file__).with_name("quick_server.py")),)


class ComfyHome(Home):
    """ComfyUI with this pack, switched on by its settings."""

    is_comfyui = True

    def __init__(self, comfyui, folder, clip, models, weights, **settings):
        self.server = ComfyServer(comfyui, folder / "base", weights)
        shutil.rmtree(self.server.folder / "models")
        shutil.copytree(models, self.server.folder / "models")
        super().__init__(self.server.folder / "user" / "animatediff_v2v", clip, **settings)
        self.port, self.url = self.server.port, f"http://127.0.0.1:{self.server.port}"
        self.inputs = self.server.folder / "input" / "animatediff_v2v_api"
        self.outputs = self.server.folder / "output" / "animatediff_v2v"
        self._logs = []

    def start(self):
        self.server.__enter__()
        self.process = self.server._process

    def stop(self, *, kill=False):
        if kill:
            self.process.kill()
        self.server.__exit__()
        self._logs.append(self.server.log())

    def log(self):
        return "\n".join([*self._logs, self.server.log()])


def workers_of(pid):
    """Return the process ids of a server's workers, on Linux."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def write_clip(path, *, frames, frame_rate, size=48):
    with VideoWriter(
        path, width=size, height=size, frame_rate=Fraction(frame_rate), overwrite=True
    ) as writer:
        for index in range(frames):
            writer.write(np.full((1, size, size, 3), 240 * index // frames, np.uint8))
    return path


def data_uri(path):
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def model_folder(folder):
    """Make a folder like ComfyUI's models: the miniature under names that the hosted API uses."""
    for kind, (name, hosted) in MODELS.items():
        (folder / kind).mkdir(parents=True)
        source, target = (f"{each}.safetensors" for each in (name, hosted))
        shutil.copy(MINIATURE / kind / source, folder / kind / target)
    (folder / "controlnet").mkdir()
    save_file(
        mini.sparsectrl_for_the_miniature(),
        folder / "controlnet" / "v3_sd15_sparsectrl_rgb.safetensors",
    )
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
