"""Time small calls while large data URIs are uploaded: `python benchmarks/api_latency.py`.

The server is `animatediff-v2v serve` in a separate process, with empty model files, so that nothing
is computed.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from animatediff_v2v.api.keys import KeyRing

SUBMIT = "/fal/queue.fal.run/fal-ai/animatediff-v2v"
ASKED = "/animatediff-v2v/openapi.json"
MODELS = ("checkpoints/cardosAnime_v20.safetensors", "animatediff_models/mm_sd_v15_v2.ckpt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=95, help="of each body")
    parser.add_argument("--bodies", type=int, default=4, help="that come at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in MODELS:
            (folder / "models" / model).parent.mkdir(parents=True)
            (folder / "models" / model).touch()
        port = free_port()
        key = made_key(folder / "data")
        command = [sys.executable, "-m", "animatediff_v2v.cli", "serve"]
        command += [str(folder / "data"), "--models", str(folder / "models"), "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as own:
            try:
                wait_until_up(f"http://127.0.0.1:{port}")
                report(f"http://127.0.0.1:{port}", key, options)
            finally:
                own.terminate()


def report(url: str, key: str, options: argparse.Namespace) -> None:
    text = base64.b64encode(bytes(options.megabytes * 750_000)).decode()
    body = json.dumps({"prompt": "p", "video_url": f"data:video/mp4;base64,{text}"}).encode()
    idle = [asked(url) for _ in range(50)]
    senders = [
        threading.Thread(target=submit, args=(url, key, body)) for _ in range(options.bodies)
    ]
    began, waits = time.monotonic(), []
    for each in senders:
        each.start()
    while any(each.is_alive() for each in senders):
        waits.append(asked(url))
        time.sleep(0.01)
    print(f"idle: longest of {len(idle)} calls {max(idle):.3f} s")
    print(
        f"during {options.bodies} bodies of {options.megabytes} MB, "
        f"{time.monotonic() - began:.1f} s in all: longest of {len(waits)} calls "
        f"{max(waits):.3f} s, median {sorted(waits)[len(waits) // 2]:.3f} s"
    )


def asked(url: str) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(url + ASKED, timeout=60) as answer:
        answer.read()
    return time.monotonic() - began


def submit(url: str, key: str, body: bytes) -> None:
    headers = {"Authorization": f"Key {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + SUBMIT, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        answer.read()


def made_key(folder: Path) -> str:
    folder.mkdir()
    return KeyRing(folder).add("benchmark")


def wait_until_up(url: str) -> None:
    for _ in range(600):
        try:
            asked(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    raise SystemExit("The server did not start.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
