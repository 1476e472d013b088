"""The service's folder: its own files, other files, and files of earlier versions."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing

import pytest
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.queue.outputs import Output
from animatediff_v2v.api.queue.records import NewRequest
from animatediff_v2v.api.queue.signing import Signer
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.storage.data_folder import (
    INPUT_NAME,
    KEYS,
    MARKER,
    OUTPUT_NAME,
    OWN,
    SIGNING_KEY,
    UPLOAD_NAME,
    DataFolder,
)
from animatediff_v2v.api.storage.folder_lock import FolderLock, FolderRefused
from animatediff_v2v.api.wire.problems import CANCELLED
from animatediff_v2v.pipeline import AnimateDiffV2VError

HEX = "0123456789abcdef" * 2
ID = "01234567-89ab-cdef-0123-456789abcdef"
ENDPOINT = "fal-ai/animatediff-v2v"
# The tables as version 0.1.0 first had them.
OLD_SCHEMA = """
CREATE TABLE requests (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, endpoint_id TEXT NOT NULL,
    owner TEXT NOT NULL, input TEXT NOT NULL, is_low_priority INTEGER NOT NULL, start_before REAL,
    webhook_url TEXT, video_file TEXT, origin TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
    is_cancelled INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, started REAL, finished REAL,
    status INTEGER, answer TEXT, error_type TEXT, is_webhook_due INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE logs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    time REAL NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL
);
CREATE TABLE outputs (
    token TEXT PRIMARY KEY, request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    path TEXT NOT NULL, content_type TEXT NOT NULL
);
"""


def new_request(id_=ID):
    return NewRequest(
        id=id_, endpoint_id=ENDPOINT, owner="me", input={"prompt": "x"}, origin="http://h"
    )


# --- whose it is -------------------------------------------------------------------------------


def test_the_folder_is_created_and_found_again(tmp_path):
    folder = DataFolder.open(tmp_path / "new" / "place")
    assert folder.path == tmp_path / "new" / "place" / OWN
    assert json.loads((folder.path / MARKER).read_text())["version"] == 1
    assert DataFolder.open(tmp_path / "new" / "place") == folder


def test_a_folder_without_marker_after_a_crash_is_accepted(tmp_path):
    (tmp_path / OWN).mkdir()
    (tmp_path / OWN / "format.new").write_text("{")
    DataFolder.open(tmp_path)
    assert (tmp_path / OWN / MARKER).is_file()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"thesis.txt": "mine"}, "holds files but no format.json"),
        ({MARKER: "", "api.sqlite": ""}, "is not the service's"),
        ({MARKER: "[1]"}, "is not the service's"),
        ({MARKER: '{"format": "something else", "version": 1}'}, "is not the service's"),
        ({MARKER: '{"format": "animatediff-v2v hosted API"}'}, "is not the service's"),
        (
            {MARKER: '{"format": "animatediff-v2v hosted API", "version": 2}'},
            "was written by a newer version (format 2; this one knows 1)",
        ),
    ],
)
def test_an_unknown_folder_is_refused_and_unchanged(tmp_path, files, sentence):
    (tmp_path / OWN).mkdir()
    for name, content in files.items():
        (tmp_path / OWN / name).write_text(content)
    with pytest.raises(FolderRefused) as error:
        DataFolder.open(tmp_path)
    assert sentence in str(error.value)
    assert {path.name: path.read_text() for path in (tmp_path / OWN).iterdir()} == files


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / OWN).write_text("mine")
    with pytest.raises(FolderRefused, match="cannot be used for the service's data"):
        DataFolder.open(tmp_path)
    assert (tmp_path / OWN).read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        (
            UPLOAD_NAME,
            [HEX, f"{HEX}.json", f"{HEX}.new", f"{HEX}.12.part", f"{HEX}.12.part.01ab23cd.incoming",
             f"{HEX}.01ab23cd.incoming", f"{HEX}.incoming"],
            ["thesis.txt", HEX[1:], f"{HEX}.txt", f"{HEX}.0.part", HEX.upper(), f"{HEX}.json.bak"],
        ),
        (
            INPUT_NAME,
            [HEX, f"{HEX}.mp4", f"{ID}.mp4"],
            ["holiday.mp4", f"{HEX}.my file", ID, f"{HEX}-2.mp4"],
        ),
        (
            OUTPUT_NAME,
            [f"{ID}.mp4", f"{ID}_00001_.mp4"],
            ["holiday.mp4", f"{ID}.mov", f"copy of {ID}.mp4", "restyled_00001_.mp4"],
        ),
    ],
    ids=["uploads", "inputs", "outputs"],
)  # fmt: skip
def test_input_names_are_the_services_own(name, ours, theirs):
    assert [each for each in ours if not name.fullmatch(each)] == []
    assert [each for each in theirs if name.fullmatch(each)] == []


# --- what earlier versions left ----------------------------------------------------------------


def old_folder(root):
    """A folder in the layout of earlier versions, with files of its owner in it."""
    for name in ("uploads", "inputs", "outputs"):
        (root / name).mkdir(parents=True)
        (root / name / "holiday.mp4").write_bytes(b"theirs")
    (root / "api.json").write_text('{"enabled": true}')
    (root / "thesis.txt").write_text("theirs")
    key = KeyRing(root).add("laptop")
    signer = Signer.load(root)
    entry = {"content_type": "video/mp4", "file_name": "a.mp4", "secret_hash": "", "expires": 2e10}
    (root / "uploads" / HEX).write_bytes(b"upload")
    (root / "uploads" / f"{HEX}.json").write_text(json.dumps(entry))
    (root / "inputs" / f"{HEX}.mp4").write_bytes(b"input")
    (root / "outputs" / f"{ID}.mp4").write_bytes(b"output")
    with closing(sqlite3.connect(root / "api.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(OLD_SCHEMA)
        database.execute(
            "INSERT INTO requests (id, endpoint_id, owner, input, is_low_priority, video_file, "
            "origin, state, created, started, finished, status, answer) VALUES "
            "(?, ?, 'me', '{}', 0, ?, 'http://h', 'done', 1.0, 2.0, 4.5, 200, '{}')",
            (ID, ENDPOINT, f"{HEX}.mp4"),
        )
        database.execute(
            "INSERT INTO outputs VALUES ('token', ?, ?, 'video/mp4')",
            (ID, str(root / "outputs" / f"{ID}.mp4")),
        )
        database.commit()
    FolderLock(root).release()
    return key, signer


def test_files_of_earlier_versions_are_moved(tmp_path):
    root = tmp_path / "data"
    key, signer = old_folder(root)
    folder = DataFolder.open(root)
    assert {path.name for path in root.iterdir()} == {
        "api.json", "thesis.txt", "uploads", "inputs", "outputs", OWN,
    }  # fmt: skip
    for name in ("uploads", "inputs", "outputs"):
        assert [path.name for path in (root / name).iterdir()] == ["holiday.mp4"]
    assert {path.name for path in folder.uploads.iterdir()} == {HEX, f"{HEX}.json"}
    assert {path.name for path in folder.inputs.iterdir()} == {f"{HEX}.mp4"}
    assert KeyRing(folder.path).check(f"Key {key}").name == "laptop"
    assert Signer.load(folder.path).jwks() == signer.jwks()
    store = Store(folder.database)
    stored = store.get(ID)
    assert (stored.state, stored.attempts, stored.inference_seconds) == ("done", 0, 2.5)
    assert store.outputs.find("token").path.read_bytes() == b"output"
    store.close()
    # The folder may be moved as a whole.
    root.rename(tmp_path / "elsewhere")
    store = Store(DataFolder.open(tmp_path / "elsewhere").database)
    assert store.outputs.find("token").path.read_bytes() == b"output"
    store.close()


def test_moving_continues_after_a_crash(tmp_path, monkeypatch):
    key, _ = old_folder(tmp_path)
    renamed = type(tmp_path).rename

    def crash(path, target):
        if path.name == "api.sqlite":
            raise KeyboardInterrupt
        return renamed(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(tmp_path), "rename", crash)
        DataFolder.open(tmp_path)
    folder = DataFolder.open(tmp_path)
    assert KeyRing(folder.path).check(f"Key {key}").name == "laptop"
    store = Store(folder.database)
    assert store.outputs.find("token").path.read_bytes() == b"output"
    store.close()


def test_nothing_is_moved_while_an_earlier_version_runs(tmp_path):
    old_folder(tmp_path)
    lock = FolderLock(tmp_path)
    with pytest.raises(FolderRefused, match="Another process serves the API from"):
        DataFolder.open(tmp_path)
    lock.release()
    DataFolder.open(tmp_path)


@pytest.mark.parametrize("name", ["api.sqlite", KEYS, SIGNING_KEY])
@pytest.mark.parametrize("content", [b"", b"theirs", b"SQLite format 3\0 and no more"])
def test_files_of_its_names_that_are_not_its_own_stay(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    DataFolder.open(tmp_path)
    assert (tmp_path / name).read_bytes() == content
    assert not (tmp_path / OWN / name).exists()


# --- what is damaged ---------------------------------------------------------------------------


def damaged(tmp_path):
    return sorted(path for path in tmp_path.iterdir() if ".damaged-" in path.name)


def whole_database(path):
    store = Store(path)
    for number in range(200):
        store.submit(new_request(str(number)), most=1000, most_of_owner=1000)
    store.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"not a database at all, but a text of some length" * 40,
        lambda content: content[:8192] + os.urandom(4096) + content[12288:],
        lambda content: content[: len(content) // 2],
    ],
    ids=["foreign", "overwritten", "cut"],
)
def test_a_malformed_database_is_set_aside(tmp_path, damage, caplog):
    path = tmp_path / "api.sqlite"
    content = damage(whole_database(path))
    path.write_bytes(content)
    store = Store(path)
    assert store.unfinished() == []
    store.submit(new_request(), most=1, most_of_owner=1)
    store.close()
    (kept,) = damaged(tmp_path)
    assert kept.read_bytes() == content
    assert f"it is kept as {kept.name}, and a new one is created." in caplog.text


def test_a_foreign_database_is_set_aside(tmp_path):
    path = tmp_path / "api.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE requests (id TEXT, wish TEXT)")
        database.commit()
    Store(path).close()
    (kept,) = damaged(tmp_path)
    with closing(sqlite3.connect(kept)) as database:
        assert database.execute("SELECT * FROM requests").fetchall() == []


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "api.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(AnimateDiffV2VError, match="was written by a newer version"):
        Store(path)
    assert damaged(tmp_path) == []


def test_space_of_removed_rows_is_returned_to_the_disk(tmp_path):
    store = Store(tmp_path / "api.sqlite")
    ids = [str(number) for number in range(300)]
    for id_ in ids:
        store.submit(new_request(id_), most=1000, most_of_owner=1000)
        store.cancel(id_)
        for number in range(5):
            store.log(id_, f"{number}" * 500)
    for id_ in ids:
        store.finish(id_, CANCELLED)
    store.shrink()
    before = (tmp_path / "api.sqlite").stat().st_size
    store.forget(store.finished_before(time.time() + 1, most=1000))
    store.shrink()
    after = (tmp_path / "api.sqlite").stat().st_size
    assert after < before / 5
    store.close()


def test_outputs_inside_the_folder_have_relative_paths(tmp_path):
    store = Store(tmp_path / "api.sqlite")
    store.submit(new_request(), most=1, most_of_owner=1)
    inside = store.outputs.add(ID, Output(tmp_path / "outputs" / "a.mp4", "video/mp4"))
    outside = store.outputs.add(ID, Output(tmp_path.parent / "b.mp4", "video/mp4"))
    assert store.outputs.find(inside).path == tmp_path / "outputs" / "a.mp4"
    assert store.outputs.find(outside).path == tmp_path.parent / "b.mp4"
    store.close()
