"""What the SQLite file keeps, and what it lets happen once."""

from __future__ import annotations

import itertools
import time

import pytest
from animatediff_v2v.api.queue.store import NewRequest, Output, QueueFull, Store
from animatediff_v2v.api.storage.folder_lock import FolderLock, FolderRefused
from animatediff_v2v.api.wire.outcome import Answer
from animatediff_v2v.api.wire.problems import CANCELLED

DONE = Answer(200, {"seed": 1})
numbers = itertools.count()


def request(request_id="", **values):
    return NewRequest(
        **{
            "id": request_id or f"r{next(numbers)}",
            "endpoint_id": "fal-ai/animatediff-v2v",
            "owner": "me",
            "input": {"prompt": "\u732b\x00"},
            "origin": "http://127.0.0.1",
        }
        | values
    )


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "api.sqlite")
    yield opened
    opened.close()


def submit(store, **values):
    return store.submit(request(**values), most=100, most_of_owner=100)


def test_a_request_survives_reopening(store, tmp_path):
    stored = submit(store, webhook_url="http://a", start_before=5.0, is_low_priority=True)
    again = Store(tmp_path / "api.sqlite")
    assert again.get(stored.id) == stored
    assert (stored.state, stored.answer, stored.inference_seconds) == ("queued", None, None)
    again.close()


def test_limits(store):
    for _ in range(2):
        store.submit(request(), most=3, most_of_owner=2)
    with pytest.raises(QueueFull):
        store.submit(request(), most=3, most_of_owner=2)
    first = store.submit(request(owner="you"), most=3, most_of_owner=2)
    with pytest.raises(QueueFull):
        store.submit(request(owner="they"), most=3, most_of_owner=2)
    store.finish(first.id, DONE)
    store.submit(request(owner="they"), most=3, most_of_owner=2)


def test_each_step_happens_once(store):
    stored = submit(store)
    assert [store.start(stored.id), store.start(stored.id)] == [True, False]
    assert [store.finish(stored.id, DONE), store.finish(stored.id, CANCELLED)] == [True, False]
    assert not store.start(stored.id)
    assert not store.cancel(stored.id)
    done = store.get(stored.id)
    assert (done.state, done.answer, done.is_cancelled) == ("done", DONE, False)
    assert done.inference_seconds >= 0
    assert store.unfinished() == []


def test_logs_come_in_order_and_from_where_one_was(store):
    stored, other = submit(store), submit(store)
    for index in range(3):
        store.log(stored.id, f"line {index}")
        store.log(other.id, "another's")
    lines = store.logs(stored.id)
    assert [line.message for line in lines] == ["line 0", "line 1", "line 2"]
    assert store.logs(stored.id, after=lines[1].sequence) == lines[2:]


def test_webhooks_are_due_until_somebody_takes_them(store):
    quiet, loud = submit(store), submit(store, webhook_url="http://a")
    assert store.webhooks_due() == []
    for each in (quiet, loud):
        store.finish(each.id, DONE)
    assert [each.id for each in store.webhooks_due()] == [loud.id]
    store.webhook_taken(loud.id)
    assert store.webhooks_due() == []


def test_a_file_that_is_given_out_again_keeps_its_name(store, tmp_path):
    """The server was killed after it had given one, and before the request's end was noted."""
    made, other = submit(store), submit(store)
    video, sound = (Output(tmp_path / name, "video/mp4") for name in ("a.mp4", "b.mp4"))
    token = store.add_output(made.id, video)
    assert store.add_output(made.id, video) == token
    assert len({token, store.add_output(made.id, sound), store.add_output(other.id, video)}) == 3


def test_old_requests_are_forgotten_with_all_that_belongs_to_them(store, tmp_path):
    old, waiting, due = submit(store), submit(store), submit(store, webhook_url="http://a")
    token = store.add_output(old.id, Output(tmp_path / "a.mp4", "video/mp4"))
    assert store.output(token) == Output(tmp_path / "a.mp4", "video/mp4")
    store.log(old.id, "x")
    for each in (old, due):
        store.finish(each.id, DONE)
    assert store.finished_before(time.time() - 60, most=10) == []
    assert store.finished_before(time.time() + 60, most=10) == [old.id]
    store.forget([old.id, waiting.id])
    assert store.get(old.id) is None
    assert store.output(token) is None
    assert store.logs(old.id) == []
    assert store.get(waiting.id) and store.get(due.id)


def test_a_folder_has_one_master(tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(FolderRefused, match="Another process answers the API from"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()
