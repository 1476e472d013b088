"""Two worker processes of one server: they share the work, die independently, and end with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from .conftest import BARE
from .homes import workers_of

SECONDS_TO_END = 300


@pytest.fixture
def home(make_home):
    with make_home(BARE, devices=("cpu", "cpu")) as running:
        if not Path(f"/proc/{running.process.pid}/task").is_dir():
            pytest.skip("finds the workers of a server in /proc, which only Linux has")
        yield running


def test_the_life_of_two_workers(home):
    """One server, since its start takes seconds."""
    first, second = home.submit_long(), home.submit_long()
    pids = workers_of(home.process.pid)
    assert len(pids) == 2
    # Both run at once, and a third waits behind them.
    third = home.submit(seed=3)
    assert [home.status(each)["status"] for each in (first, second)] == ["IN_PROGRESS"] * 2
    assert home.status(third)["queue_position"] == 2
    home.cancel(first)
    assert home.result(third).json()["seed"] == 3
    assert home.status(second)["status"] == "IN_PROGRESS"
    assert home.result(first).status_code == 499

    # The death of one is no matter to the server, nor to the other.
    server = home.process.pid
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: len({*workers_of(server)} - {pids[0]}) == 2)
    assert home.result(home.submit(seed=4)).json()["seed"] == 4
    assert home.process.pid == server and home.process.poll() is None
    assert "was ended by SIGKILL" in home.log()

    # Told to stop, by Ctrl-C even all at once, they end soon, and leave nothing half written.
    again = home.submit_long()
    pids = workers_of(server)
    for pid in (*pids, server):
        os.kill(pid, signal.SIGINT)
    home.process.wait(SECONDS_TO_END)
    assert not any(map(is_alive, pids))
    assert not list(home.outputs.glob(".*"))

    # A server that is killed takes them along. What had begun begins again.
    home.start()
    home.wait(again, until=("IN_PROGRESS",))
    pids = workers_of(home.process.pid)
    home.stop(kill=True)
    wait_until(lambda: not any(map(is_alive, pids)))
    home.start()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds):
    until = time.monotonic() + SECONDS_TO_END
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
