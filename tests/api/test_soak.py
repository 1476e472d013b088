"""Requests while workers and servers are killed, and the disk fills, at random moments.

`API_SOAK=500,20,2 pytest tests/api/test_soak.py -s` for 500 requests, 20 kills, 2 full disks.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.pipeline.video import VideoReader

from .homes import QuickHome, workers_of
from .quick_worker import brightness

REQUESTS, KILLS, FULL_DISKS = map(int, os.environ.get("API_SOAK", "40,3,1").split(","))
DISK_MEBIBYTES = 16
MINUTES_WITHOUT_PROGRESS = 3
OTHERS = (
    "thesis.txt",
    "inputs/holiday.mp4",
    "uploads/notes.txt",
    "outputs/.half.part/a.mp4",
    "animatediff-v2v/outputs/holiday.mp4",
    "animatediff-v2v/inputs/holiday.txt",
)
OWN = re.compile(
    r"api\.json|animatediff-v2v/(format\.json|api-keys\.json|webhook-key\.pem|"
    r"(api|in_use)\.sqlite(-wal|-shm|-journal)?|outputs/[0-9a-f-]{36}\.mp4)"
)


@pytest.fixture
def home(tmp_path, clip, models):
    if not Path("/proc/self/task").is_dir():
        pytest.skip("finds the workers of a server in /proc, which only Linux has")
    place = tmp_path / "disk"
    place.mkdir()
    size = f"size={DISK_MEBIBYTES}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    if FULL_DISKS and subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this user may not mount the small disk that is to fill")
    try:
        with QuickHome(tmp_path, clip, models, data=place, devices=("cpu", "cpu")) as running:
            yield running
    finally:
        if FULL_DISKS:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_nothing_is_lost_under_load_and_failures(home):
    """No request is lost, run twice or left unfinished, and each gets its own file."""
    for name in OTHERS:
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not the service's")
    soak = Soak(home, random.Random(1))
    soak.run()
    answers = soak.answers()
    print(f"\n{soak.notes}\n{Counter(code for code, _ in answers.values())} of {len(answers)}")

    rows = soak.rows("SELECT id, state, attempts FROM requests")
    assert {state for _, state, _ in rows} == {"done"}
    assert set(soak.seeds) <= {each for each, _, _ in rows}
    made = soak.rows("SELECT request_id, COUNT(*) FROM outputs GROUP BY request_id")
    assert {count for _, count in made} == {1}
    for request, (code, body) in answers.items():
        if code == 200:
            assert body["seed"] == soak.seeds[request]
            shown = next(iter(VideoReader(home.outputs / f"{request}.mp4")))
            assert abs(np.mean(shown) - brightness(soak.seeds[request])) < 4
        else:  # each attempt was killed or found the disk full, and the error says so
            assert body["error_type"] in ("runner_disconnected", "storage_full"), body
    assert sum(code != 200 for code, _ in answers.values()) <= KILLS + FULL_DISKS

    found = {path.relative_to(home.root).as_posix() for path in home.root.rglob("*")}
    files = {name for name in found if (home.root / name).is_file()}
    assert set(OTHERS) <= files
    assert not {name for name in files - set(OTHERS) if not OWN.fullmatch(name)}
    videos = {f"animatediff-v2v/outputs/{request}.mp4" for request, _ in made}
    assert videos == {name for name in files if name.endswith(".mp4")} - set(OTHERS)
    assert "Traceback" not in home.log(), home.log()


class Soak:
    """Submits as fast as possible, and causes a failure after every few finished requests."""

    def __init__(self, home, chance):
        self._home, self._chance = home, chance
        self.seeds = {}
        self.notes = Counter()
        moments = chance.sample(range(1, REQUESTS), KILLS + FULL_DISKS)
        harms = [self._fill_disk] * FULL_DISKS
        harms += [self._kill_server, self._kill_worker] * KILLS
        self._harms = dict(zip(moments, harms[: len(moments)], strict=True))

    def run(self):
        """Run until everything that was submitted is done."""
        done, changed = 0, time.monotonic()
        while len(self.seeds) < REQUESTS or done < len(self.rows("SELECT id FROM requests")):
            for _ in range(min(10, REQUESTS - len(self.seeds))):
                self._submit()
            for moment in [each for each in self._harms if each <= done]:
                time.sleep(self._chance.random() / 5)
                self._harms.pop(moment)()
            before, done = done, self._done()
            changed = time.monotonic() if done > before else changed
            assert time.monotonic() - changed < 60 * MINUTES_WITHOUT_PROGRESS, self._home.log()
            if done == before:
                time.sleep(0.05)
            if done >= REQUESTS / 10 and "MiB of the server" not in self.notes:
                self.notes["MiB of the server"] = memory(self._home.process.pid)
        self.notes["MiB more at the end"] = (
            memory(self._home.process.pid) - self.notes["MiB of the server"]
        )

    def answers(self):
        """Return each request's status and body."""
        found = {}
        for request in self.seeds:
            answer = self._home.get(f"/fal/queue.fal.run/fal-ai/animatediff-v2v/requests/{request}")
            found[request] = (answer.status_code, answer.json())
        return found

    def rows(self, query):
        with sqlite3.connect(f"file:{self._home.data / 'api.sqlite'}?mode=ro", uri=True) as found:
            return found.execute(query).fetchall()

    def _done(self):
        return self.rows("SELECT COUNT(*) FROM requests WHERE state = 'done'")[0][0]

    def _submit(self):
        seed = len(self.seeds)
        path = "/fal/queue.fal.run/fal-ai/animatediff-v2v"
        steps = self._chance.randint(1, 8)
        answer = self._home.post(path, self._home.wish(seed=seed, num_inference_steps=steps))
        if answer.status_code == 507:
            assert answer.headers["X-Fal-Retryable"] == "true"
            self.notes["refused for want of room"] += 1
            return
        assert answer.status_code == 200, answer.text
        self.seeds[answer.json()["request_id"]] = seed

    # --- harm ----------------------------------------------------------------------------------

    def _kill_server(self):
        self.notes["servers killed"] += 1
        self._home.restart(kill=True)

    def _kill_worker(self):
        found = workers_of(self._home.process.pid)
        if found:
            self.notes["workers killed"] += 1
            os.kill(self._chance.choice(found), signal.SIGKILL)

    def _fill_disk(self):
        self.notes["disks filled"] += 1
        filler = self._home.root / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            for _ in range(10):
                self._submit()
            time.sleep(1)
        filler.unlink()


def memory(pid):
    """Return a process's memory in MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) // 1024
