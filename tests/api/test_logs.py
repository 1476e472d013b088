"""The log of `serve`: its levels and its formats."""

import json
import re
from datetime import datetime

import pytest

from .homes import QUEUE, V2V, QuickHome

LEVELS = ("debug", "info", "warning", "error")
# What one request and one wrong key leave behind.
INFO = ["request submitted", "request started", "request ended"]
WARNING = ["key refused"]
EVENTS = {"debug": INFO + WARNING, "info": INFO + WARNING, "warning": WARNING, "error": []}
TEXT_LINE = re.compile(r"(?P<time>\S+Z) (?P<level>[A-Z]+) (?P<message>.+)")


def logged(tmp_path, clip, models, *options):
    """The log lines of a server after a request and a call with a wrong key."""
    with QuickHome(tmp_path, clip, models, options=options) as home:
        home.wait(home.submit())
        assert home.post(f"{QUEUE}{V2V}", {}, key="a:b").status_code == 401
    lines = home.log().splitlines()
    lines.remove(f"http://127.0.0.1:{home.port}/animatediff-v2v")  # on stdout: where it answers
    return lines


def told(messages):
    """Return the kinds of the lines."""
    return sorted(kind for kind in INFO + WARNING if any(m.startswith(kind) for m in messages))


@pytest.mark.parametrize("level", LEVELS)
def test_the_json_log_has_one_object_per_line(tmp_path, clip, models, level):
    lines = logged(tmp_path, clip, models, "--log-level", level, "--log-format", "json")
    entries = [json.loads(line) for line in lines]
    assert all(isinstance(entry, dict) for entry in entries)
    assert {entry["level"] for entry in entries} <= set(LEVELS[LEVELS.index(level) :])
    assert all(datetime.fromisoformat(e["time"].replace("Z", "+00:00")).tzinfo for e in entries)
    assert told([entry["message"] for entry in entries]) == sorted(EVENTS[level])
    for entry in entries:
        if entry.get("event") == "request ended":
            assert (entry["level"], entry["status"]) == ("info", 200)


@pytest.mark.parametrize("level", ["info", "error"])
def test_text_has_time_level_and_sentence(tmp_path, clip, models, level):
    lines = logged(tmp_path, clip, models, "--log-level", level)
    entries = [TEXT_LINE.fullmatch(line) for line in lines]
    assert all(entries)
    assert told([entry["message"] for entry in entries]) == sorted(EVENTS[level])
    assert {e["level"].lower() for e in entries} <= set(LEVELS[LEVELS.index(level) :])
