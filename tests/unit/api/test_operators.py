"""Reports for operators: health, metrics, log lines."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from aiohttp.http_exceptions import BadStatusLine
from animatediff_v2v.api.events import Events
from animatediff_v2v.api.logs import JsonFormatter, TextFormatter, one_line_for_malformed
from animatediff_v2v.api.metrics import Metrics
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.wire.outcome import Answer

from .test_application import BOTH, SUBMIT, WISH, call
from .test_store import request

HEALTH = "/animatediff-v2v/health"


@pytest.fixture
def prometheus():
    pytest.importorskip("prometheus_client", reason="needs prometheus-client, of the extra test")


async def health(client):
    async with client.get(HEALTH, headers={"Authorization": ""}) as answer:
        return answer.status, await answer.json()


def test_the_health_check_needs_no_key(tmp_path):
    status, body = call(tmp_path, health, models=BOTH)
    assert status == 200
    assert set(body) == {"status", "queue_length", "disk_free_bytes", "models_readable"}
    assert (body["status"], body["queue_length"], body["models_readable"]) == ("ok", 0, True)
    assert body["disk_free_bytes"] > 0


def test_a_server_without_models_is_unavailable(tmp_path):
    status, body = call(tmp_path, health)
    assert (status, body["status"], body["models_readable"]) == (503, "unavailable", False)


@pytest.mark.usefixtures("prometheus")
@pytest.mark.parametrize(
    "path", ["/metrics", "/animatediff-v2v/metrics", "/api/animatediff-v2v/metrics"]
)
def test_metrics_need_a_key(tmp_path, path):
    async def story(client):
        await client.post(SUBMIT, json=WISH)
        await client.post(SUBMIT, json=WISH, headers={"Authorization": "Key a:b"})
        async with client.get(path, headers={"Authorization": ""}) as answer:
            refused = answer.status
        async with client.get(path) as answer:
            return refused, answer.status, await answer.text()

    refused, status, text = call(tmp_path, story, models=BOTH)
    assert (refused, status) == (401, 200)
    submitted = 'animatediff_v2v_requests_submitted_total{endpoint="fal-ai/animatediff-v2v"} 1.0'
    assert submitted in text
    assert "animatediff_v2v_keys_refused_total 2.0" in text
    assert "animatediff_v2v_queue_length" in text


def test_without_prometheus_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    async def story(client):
        async with client.get("/metrics") as answer:
            return answer.status, (await answer.json())["detail"]

    status, said = call(tmp_path, story)
    assert status == 501
    assert "pip install prometheus-client" in said


def test_the_proxy_of_fals_clients_has_its_usual_path(tmp_path):
    async def story(client):
        headers = {"x-fal-target-url": "https://queue.fal.run/fal-ai/animatediff-v2v"}
        answer = await client.post("/api/fal/proxy", json=WISH, headers=headers)
        return answer.status, (await answer.json())["status"]

    assert call(tmp_path, story, models=BOTH) == (200, "IN_QUEUE")


# --- log lines ---------------------------------------------------------------------------------


def ended(tmp_path, answer):
    """Return a request that was queued, ran and ended with this answer."""
    store = Store(tmp_path / "api.sqlite")
    stored = store.submit(request(), most=10, most_of_owner=10)
    store.start(stored.id)
    store.finish(stored.id, answer)
    found = store.get(stored.id)
    store.close()
    return stored, found


@pytest.mark.usefixtures("prometheus")
@pytest.mark.parametrize(
    ("answer", "level", "says"),
    [
        (Answer(200, {"seed": 1}), "INFO", "status=200"),
        (Answer(422, {"detail": "no"}, "file_too_large"), "WARNING", "error=file_too_large"),
        (Answer(500, {"detail": "no"}, "internal_server_error"), "ERROR", "status=500"),
    ],
)
def test_the_life_of_a_request_is_logged(tmp_path, caplog, answer, level, says):
    caplog.set_level(logging.INFO)
    stored, done = ended(tmp_path, answer)
    events = Events(Metrics(queue_length=lambda: 0, folder=tmp_path))
    events.submitted(stored, key_name="my laptop", queue_position=3)
    events.started(stored, waited_seconds=0.5)
    events.made(stored, frames=24)
    events.ended(done)
    first, begun, last = caplog.records
    line = first.getMessage()
    assert line.startswith(f"request submitted request={stored.id} endpoint=fal-ai/animatediff-v2v")
    assert line.endswith('key="my laptop" position=3')
    assert begun.getMessage().startswith(f"request started request={stored.id}")
    assert (last.levelname, last.event) == (level, "request ended")
    assert says in last.getMessage()
    assert last.fields["frames"] == 24
    assert last.fields["seconds"] >= 0


def test_refused_keys_are_logged_without_their_secrets_and_not_for_ever(caplog):
    events = Events()
    for _ in range(1000):
        events.key_refused("1.2.3.4", key_id="abc")
    said = [each.getMessage() for each in caplog.records]
    assert said == ["key refused remote=1.2.3.4 key_id=abc"] * 60


def test_a_refused_key_is_logged(tmp_path, caplog):
    async def story(client):
        await client.get(f"{SUBMIT}/requests/x", headers={"Authorization": "Key me:secret"})
        return [each.getMessage() for each in caplog.records]

    said = call(tmp_path, story)
    assert "key refused remote=127.0.0.1 key_id=me" in said


def record(message, *arguments, name="animatediff_v2v.api", error=None, **extra):
    made = logging.LogRecord(name, logging.INFO, "", 0, message, arguments, error and _info(error))
    made.created = 0.25
    vars(made).update(extra)
    return made


def _info(error):
    return type(error), error, error.__traceback__


def test_the_text_log_has_time_and_level_on_every_line():
    line = TextFormatter().format(record("a %s", "b\nERROR forged\x1b[0m"))
    assert line == "1970-01-01T00:00:00.250Z INFO a b\\nERROR forged\\x1b[0m"


def test_objects_have_the_fields_of_their_event():
    line = JsonFormatter().format(record("x a=1", event="x", fields={"a": 1}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "animatediff_v2v.api",
        "message": "x a=1",
        "event": "x",
        "a": 1,
    }
    fault = json.loads(JsonFormatter().format(record("x", error=ValueError("why"))))
    assert fault["traceback"] == "ValueError: why"


@pytest.mark.parametrize("form", ["text", "json"])
def test_warnings_of_python_are_lines_of_the_log(form):
    script = (
        "import warnings\n"
        "from animatediff_v2v.api import logs\n"
        f"logs.configure(level='info', form={form!r})\n"
        "warnings.warn('old\\nway')\n"
    )
    command = [sys.executable, "-W", "always", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    shown = json.loads(line)["message"] if form == "json" else line
    assert "UserWarning: old" in shown


def test_a_malformed_call_is_logged_in_one_line():
    error = BadStatusLine("\x16\x03\x01 garbage\nmore")
    bad = record("Error handling request from %s", "1.2.3.4", name="aiohttp.server", error=error)
    assert one_line_for_malformed(bad)
    text = TextFormatter().format(bad)
    assert "\n" not in text
    assert text.startswith("1970-01-01T00:00:00.250Z WARNING Error handling request from 1.2.3.4: ")
    ours = record("Error", name="aiohttp.server", error=ValueError("ours"))
    assert one_line_for_malformed(ours)
    assert TextFormatter().format(ours).endswith("ValueError: ours")
