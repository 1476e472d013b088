"""Servers that stop and die: no request is lost, and none runs twice."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .homes import JOB_SECONDS

MANY = int(os.environ.get("API_REQUESTS", "30"))
INTERRUPTED = {
    "detail": "The server stopped each time before the request was done; submit it again",
    "error_type": "runner_disconnected",
}


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_waiting_requests_are_queued_again(fresh_home, kill):
    home = fresh_home
    done = home.submit(seed=10)
    made = home.result(done).json()
    running = home.submit_long()
    waiting = [home.submit(seed=20 + index) for index in range(3)]
    cancelled = home.submit()
    home.cancel(cancelled)
    home.wait(cancelled)
    home.restart(kill=kill)

    # Results outlive everything, under the same address.
    assert home.get(done["response_url"]).json() == made
    assert home.get(made["video"]["url"], key=None).status_code == 200
    # What ran begins again, before all that waits.
    home.wait(running, until=("IN_PROGRESS",))
    assert {home.status(request)["status"] for request in waiting} == {"IN_QUEUE"}
    told = [line["message"] for line in home.status(running, logs=1)["logs"]]
    assert "the server was restarted; the request begins again" in told
    home.cancel(running)
    assert home.result(running).status_code == 499
    assert home.result(cancelled).status_code == 499
    for index, request in enumerate(waiting):
        assert home.result(request).json()["seed"] == 20 + index
    assert not home.leftovers()


def test_a_cancellation_outlives_a_kill(fresh_home):
    home = fresh_home
    home.submit_long()
    waiting = home.submit()
    # As if the server had died after storing the cancellation, before cancelling.
    with sqlite3.connect(home.data / "api.sqlite") as database:
        database.execute(
            "UPDATE requests SET is_cancelled = 1 WHERE id = ?", (waiting["request_id"],)
        )
    home.restart(kill=True)
    assert home.result(waiting).status_code == 499


def test_a_complete_video_is_kept_when_its_end_was_not_stored(fresh_home):
    home = fresh_home
    request = home.submit(seed=7)
    made = home.result(request).json()
    # As if the server had died after naming the file, before storing the end.
    with sqlite3.connect(home.data / "api.sqlite") as database:
        database.execute(
            "UPDATE requests SET state = 'running', finished = NULL, status = NULL, "
            "answer = NULL WHERE id = ?",
            (request["request_id"],),
        )
        database.execute("DELETE FROM outputs")
    home.restart(kill=True)
    again = home.result(request).json()
    assert again["seed"] == 7
    assert set(again["timings"]) == {"total"}
    assert 0 <= again["timings"]["total"] <= JOB_SECONDS
    assert again["video"]["file_name"] == made["video"]["file_name"]
    video = home.get(again["video"]["url"], key=None)
    assert len(video.content) == made["video"]["file_size"]


def test_an_incomplete_upload_leaves_no_file(fresh_home):
    home = fresh_home
    if home.is_comfyui:
        pytest.skip("the output folder is ComfyUI's and its users': nothing is removed there")
    running = home.submit_long()
    home.stop(kill=True)
    for name in ("holiday.mp4", ".holiday.part"):
        (home.outputs / name).write_bytes(b"theirs")
    home.start()
    home.cancel(running)
    assert home.result(running).status_code == 499
    assert {path.name for path in home.outputs.iterdir()} == {"holiday.mp4", ".holiday.part"}


def test_a_request_starts_three_times_at_most(fresh_home):
    home = fresh_home
    running = home.submit_long()
    for begun in (1, 2, 3):
        wait_for_attempt(home, begun)
        home.restart(kill=True)
    result = home.result(running)
    assert (result.status_code, result.json()) == (500, INTERRUPTED)
    assert result.headers["X-Fal-Retryable"] == "true"
    assert not home.leftovers()


def test_many_requests_and_two_restarts(fresh_home):
    """Each request ends once, each video belongs to its request, and memory does not grow."""
    home = fresh_home
    small = {"select_every_nth_frame": 8}
    requests = [home.submit(seed=index, **small) for index in range(MANY)]
    assert sum(state != "done" for state in states(home)) > MANY / 2
    grown = []
    for share, kill in ((0.3, True), (0.6, False), (1.0, None)):
        first = wait_for_done(home, done(home) + MANY // 10)
        if kill is None:
            for request in requests:
                home.wait(request)
        wait_for_done(home, int(share * MANY))
        grown.append(memory(home) - first)
        if kill is not None:
            home.restart(kill=kill)
    results = [home.get(request["response_url"]) for request in requests]
    codes = [result.status_code for result in results]
    assert set(codes) == {200}, codes
    assert [result.json()["seed"] for result in results] == list(range(MANY))
    made = sorted(path.name for path in home.outputs.iterdir() if path.suffix == ".mp4")
    assert made == sorted(result.json()["video"]["file_name"] for result in results if result.ok)
    starts = [line for line in home.log().splitlines() if "Prompt executed in" in line]
    print(f"{MANY} requests; MiB grown in each life: {grown}")
    assert not home.is_comfyui or len(starts) <= MANY + 2
    assert max(grown) < 64, grown
    assert not home.leftovers()


def wait_for_attempt(home, count):
    until = time.monotonic() + JOB_SECONDS
    while attempts(home) != [count]:
        assert time.monotonic() < until, home.log()
        time.sleep(0.05)


def attempts(home):
    with sqlite3.connect(home.data / "api.sqlite") as database:
        rows = database.execute("SELECT attempts FROM requests WHERE state = 'running'")
        return [row[0] for row in rows]


def states(home):
    with sqlite3.connect(home.data / "api.sqlite") as database:
        return [row[0] for row in database.execute("SELECT state FROM requests")]


def done(home):
    return states(home).count("done")


def wait_for_done(home, count):
    """Wait until this many requests are done, and return the server's memory then."""
    until = time.monotonic() + 10 * MANY
    while done(home) < min(count, MANY):
        assert time.monotonic() < until, home.log()
        time.sleep(0.05)
    return memory(home)


def memory(home):
    """Return the server's memory in MiB; 0 where the system does not report it."""
    try:
        text = Path(f"/proc/{home.process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) // 1024


def test_a_second_server_cannot_use_the_folder(home):
    if home.is_comfyui:
        pytest.skip("ComfyUI itself keeps a second server off its base folder's database")
    command = [sys.executable, "-m", "animatediff_v2v.cli", "serve", str(home.root)]
    command += ["--models", str(home.root), "--port", "1"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("animatediff-v2v: Another process serves the API from ")
