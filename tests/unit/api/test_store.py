"""The SQLite file: stored data, and transitions that may happen only once."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from animatediff_v2v.api.queue.outbox import Delivery
from animatediff_v2v.api.queue.outputs import Output
from animatediff_v2v.api.queue.records import NewRequest
from animatediff_v2v.api.queue.store import QueueFull, Store
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


def sent(stored):
    """Return the webhook of a request with its answer; None if it has no URL."""
    url = stored.webhook_url
    return None if url is None else Delivery(stored.id, stored.owner, url, b"{}")


def test_a_webhook_is_stored_once_with_the_end_of_its_request(store):
    quiet, loud = submit(store), submit(store, webhook_url="http://a")
    for each in (quiet, loud):
        assert store.outbox.due(store.now(), most=9) == []
        assert store.finish(each.id, DONE, webhook=sent(each))
    late = replace(sent(loud), url="http://late")
    assert not store.finish(loud.id, CANCELLED, webhook=late)
    assert store.outbox.due(store.now(), most=9) == [sent(loud)]


def test_webhooks_that_an_earlier_version_had_not_handed_over_are_kept(store):
    """Earlier versions kept no delivery before they handed a webhook over, only a mark."""
    taken, due = (submit(store, webhook_url=f"http://{name}") for name in "ab")
    for each in (taken, due):
        store.finish(each.id, DONE)
    store._database.changed("UPDATE requests SET is_webhook_due = 1 WHERE id = ?", (due.id,))
    for _ in range(2):  # a second start adds nothing
        store.adopt_webhooks(sent)
        assert store.outbox.due(store.now(), most=9) == [sent(due)]
    rows = store._database.rows("SELECT sum(is_webhook_due) FROM requests")
    assert rows[0][0] == 0


def test_a_file_that_is_added_again_keeps_its_token(store, tmp_path):
    """The server was killed after it had given one, and before the request's end was noted."""
    made, other = submit(store), submit(store)
    video, sound = (Output(tmp_path / name, "video/mp4") for name in ("a.mp4", "b.mp4"))
    token = store.outputs.add(made.id, video)
    assert store.outputs.add(made.id, video) == token
    assert len({token, store.outputs.add(made.id, sound), store.outputs.add(other.id, video)}) == 3


def test_old_requests_are_removed_with_logs_and_outputs(store, tmp_path):
    old, waiting = submit(store), submit(store)
    token = store.outputs.add(old.id, Output(tmp_path / "a.mp4", "video/mp4"))
    assert store.outputs.find(token) == Output(tmp_path / "a.mp4", "video/mp4")
    store.log(old.id, "x")
    store.finish(old.id, DONE)
    assert store.finished_before(time.time() - 60, most=10) == []
    assert store.finished_before(time.time() + 60, most=10) == [old.id]
    store.forget([old.id, waiting.id])
    assert store.get(old.id) is None
    assert store.outputs.find(token) is None
    assert store.logs(old.id) == []
    assert store.get(waiting.id)


def test_a_folder_is_locked_by_one_process(tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(FolderRefused, match="Another process serves the API from"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()
