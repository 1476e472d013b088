"""Servers that stop and die: no request is lost, and none runs twice."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest

from .test_queue import LONG

INTERRUPTED = {
    "detail": "The server was restarted while the request ran; submit it again",
    "error_type": "runner_disconnected",
}


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_what_had_not_begun_is_queued_again(fresh_home, kill):
    home = fresh_home
    done = home.submit(seed=10)
    made = home.result(done).json()
    running = home.submit(**LONG)
    home.wait(running, until=("IN_PROGRESS",))
    waiting = [home.submit(seed=20 + index) for index in range(3)]
    cancelled = home.submit()
    home.cancel(cancelled)
    home.wait(cancelled)
    home.restart(kill=kill)

    # Results outlive everything, under the same address.
    assert home.get(done["response_url"]).json() == made
    assert home.get(made["video"]["url"], key=None).status_code == 200
    interrupted = home.result(running)
    assert (interrupted.status_code, interrupted.json()) == (500, INTERRUPTED)
    assert home.result(cancelled).status_code == 499
    for index, request in enumerate(waiting):
        assert home.result(request).json()["seed"] == 20 + index
    assert not home.leftovers()


def test_a_cancellation_outlives_a_kill(fresh_home):
    home = fresh_home
    running = home.submit(**LONG)
    home.wait(running, until=("IN_PROGRESS",))
    waiting = home.submit()
    # As if the server had died between the note and the deed.
    with sqlite3.connect(home.data / "api.sqlite") as database:
        database.execute(
            "UPDATE requests SET is_cancelled = 1 WHERE id = ?", (waiting["request_id"],)
        )
    home.restart(kill=True)
    assert home.result(waiting).status_code == 499


def test_many_requests_and_two_restarts(fresh_home):
    """Each request ends once, and each video was made by the request that names it."""
    home = fresh_home
    requests = [home.submit(seed=index) for index in range(30)]
    for done, kill in ((8, True), (18, False)):
        until = time.monotonic() + 120
        while sum(home.status(each)["status"] == "COMPLETED" for each in requests) < done:
            assert time.monotonic() < until, home.log()
        home.restart(kill=kill)
    results = [home.result(request) for request in requests]
    codes = [result.status_code for result in results]
    # What ran when the server ended is told so; nothing else fails.
    assert set(codes) <= {200, 500} and codes.count(500) <= 2, codes
    for index, result in enumerate(results):
        if result.status_code == 200:
            assert result.json()["seed"] == index
            assert home.get(result.json()["video"]["url"], key=None).status_code == 200
        else:
            assert result.json() == INTERRUPTED
    made = [path.name for path in home.outputs.iterdir() if path.suffix == ".mp4"]
    assert len(made) == codes.count(200)
    with sqlite3.connect(home.data / "api.sqlite") as database:
        rows = database.execute("SELECT answer FROM requests WHERE status = 200").fetchall()
    names = [json.loads(row[0])["video"]["file_name"] for row in rows]
    assert sorted(names) == sorted(made)


def test_a_second_server_is_kept_off_the_folder(home):
    if home.is_comfyui:
        pytest.skip("ComfyUI itself keeps a second server off its base folder's database")
    import subprocess
    import sys

    command = [sys.executable, "-m", "animatediff_v2v.api.command", "serve", str(home.data)]
    command += ["--models", str(home.data), "--port", "1"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.startswith("animatediff-v2v: Another process answers the API from ")
