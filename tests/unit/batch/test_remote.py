"""Inputs and output folders at URLs, with fsspec's filesystems in memory and on this machine."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import fsspec
import pytest
from animatediff_v2v.batch.clips import find_clips
from animatediff_v2v.batch.remote import RemoteInputs, is_url, local_name, url_of
from animatediff_v2v.batch.remote_folder import PLAN, working_folder
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.errors import DiskFull
from fsspec.implementations.memory import MemoryFileSystem

from .conftest import write_clip

EVERY_FRAME = ["--select-every-nth-frame=1"]


class Watched(MemoryFileSystem):
    """Files in memory whose copies are counted, and whose methods can fail."""

    protocol = "watched"
    store, pseudo_dirs = {}, [""]
    copied, written, errors = [], [], {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("watched://"))

    def info(self, path, **options):
        self._fail("info")
        return super().info(path, **options)

    def find(self, path, **options):
        self._fail("find")
        return super().find(path, **options)

    def get_file(self, path, local, **options):
        self._fail("get_file")
        self.copied.append(path)
        super().get_file(path, local, **options)

    def put_file(self, local, path, **options):
        self._fail("put_file")
        self.written.append(Path(local).name)
        super().put_file(local, path, **options)

    def pipe_file(self, path, value, **options):
        self._fail("pipe_file")
        super().pipe_file(path, value, **options)

    def _fail(self, method):
        if method in self.errors:
            raise self.errors[method]


@pytest.fixture(autouse=True)
def watched(tmp_path, monkeypatch):
    """The filesystem watched://, and a cache of this machine."""
    fsspec.register_implementation("watched", Watched, clobber=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield Watched
    for each in (Watched.store, Watched.copied, Watched.written, Watched.errors):
        each.clear()
    Watched.pseudo_dirs[:] = [""]


def files_at(url):
    """Return the relative paths of all files at a URL, hidden ones too."""
    files, path = fsspec.url_to_fs(url)
    return sorted(each[len(path) + 1 :] for each in files.find(path))


def put(url, *paths):
    for path in paths:
        files, root = fsspec.url_to_fs(url, **({"auto_mkdir": True} if "file" in url else {}))
        files.put_file(str(path), f"{root}/{path.name}")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/a.mp4", "s3/bucket/a.mp4"),
        ("gs://bucket/deep/", "gs/bucket/deep"),
        ("file:///clips/a.mp4", "file/%2Fclips/a.mp4"),
        ("https://host:80/a.mp4?key=1/2", "https/host%3A80/a.mp4%3Fkey=1/2"),
        ("s3://bucket/50%41 ü.mp4", "s3/bucket/50%2541 ü.mp4"),
    ],
)
def test_urls_have_names_on_this_machine(text, name):
    assert is_url(text) and local_name(text).as_posix() == name
    assert url_of(local_name(text)) == text.rstrip("/")
    assert not is_url(name) and not is_url("C:\\clips") and not is_url("C://clips"[:3])


FILES = ("b.mp4", "a.MOV", "deep/c.mkv", "deep/frames/1.png", ".hidden.mp4", "notes.txt")


@pytest.fixture(params=["watched://bucket", "file"])
def place(request, tmp_path):
    """A URL with files at it."""
    url = request.param if "://" in request.param else f"file://{tmp_path}/there"
    files, root = fsspec.url_to_fs(f"{url}/in", auto_mkdir=True)
    for name in (*FILES, "out/old.mp4"):
        files.pipe_file(f"{root}/{name}", name.encode())
    table = f"input,prompt\nb.mp4,x\n{url}/in/deep/c.mkv,y\n"
    files.pipe_file(f"{root}/t.csv", table.encode())
    files.pipe_file(f"{root}/t.jsonl", json.dumps({"input": "deep/frames"}).encode())
    return url


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("in", ["a", "b", "deep/c", "deep/frames"]),
        ("in/", ["a", "b", "deep/c", "deep/frames"]),
        ("in/deep/frames", ["frames"]),
        ("in/b.mp4", ["b"]),
        ("in/deep/*.mkv", ["c"]),
        ("in/*.[mM]*", ["a", "b"]),
        ("i?/d*p", ["c", "frames"]),
        ("in/t.csv", ["b", "c"]),
        ("in/t.jsonl", ["frames"]),
    ],
)
def test_urls_give_the_clips_that_paths_would(place, tmp_path, given, names):
    copies = RemoteInputs(tmp_path / "copies", without=f"{place}/in/out")
    found = find_clips([f"{place}/{given}"], out=tmp_path / "out", remote=copies)
    assert [clip.name.as_posix() for clip in found] == names
    assert all(clip.path.exists() for clip in found)
    local = tmp_path / "t.csv"
    local.write_text(f"input\n{place}/in/b.mp4\n")
    (clip,) = find_clips([local], out=tmp_path / "out", remote=copies)
    assert clip.path.read_bytes() == b"b.mp4"


def test_what_is_unchanged_is_not_copied_again(watched, tmp_path):
    files, _ = fsspec.url_to_fs("watched://bucket")
    for name in "abc":
        files.pipe_file(f"/bucket/in/{name}.mp4", name.encode())
    copies = RemoteInputs(tmp_path)
    (folder,) = copies.paths("watched://bucket/in")
    assert sorted(watched.copied) == [f"/bucket/in/{name}.mp4" for name in "abc"]
    stamps = [each.stat().st_mtime_ns for each in sorted(folder.iterdir())]
    copies.paths("watched://bucket/in")
    assert len(watched.copied) == 3
    files.pipe_file("/bucket/in/b.mp4", b"B")  # as many bytes
    files.rm_file("/bucket/in/c.mp4")
    copies.paths("watched://bucket/in")
    assert watched.copied[3:] == ["/bucket/in/b.mp4"]
    assert sorted(each.name for each in folder.iterdir()) == ["a.mp4", "b.mp4"]
    assert (folder / "b.mp4").read_bytes() == b"B"
    assert (folder / "a.mp4").stat().st_mtime_ns == stamps[0]


@pytest.mark.parametrize(
    ("url", "errors", "sentence"),
    [
        (
            "s3://bucket/in",
            {},
            "s3://bucket/in needs a package that is not installed: Install s3fs",
        ),
        ("xyz://in", {}, "xyz://in cannot be copied: Protocol not known: xyz"),
        ("watched://no", {}, "There is no watched://no; check the address."),
        ("watched://b/*.mov", {}, "No file matches watched://b/*.mov; check the pattern."),
        ("watched://b/text", {}, "The folder watched://b/text holds no video and no pictures."),
        ("watched://b/../a.mp4", {}, "has an empty or relative part"),
        ("watched://b/many.csv", {}, "watched://b/*.mp4 matches 2 files; give a row for each."),
        ("watched://b", {"find": PermissionError("Forbidden")}, "access is denied (Forbidden)"),
        (
            "watched://b/a.mp4",
            {"get_file": ConnectionError("gone")},
            "cannot be copied: gone. Check",
        ),
        (
            "watched://b/a.mp4",
            {"get_file": RuntimeError()},
            "cannot be copied: RuntimeError. Check",
        ),
    ],
)
def test_inputs_that_cannot_be_had_are_sentences(watched, tmp_path, url, errors, sentence):
    files, _ = fsspec.url_to_fs("watched://b")
    for name in ("a.mp4", "b.mp4", "text/c.txt"):
        files.pipe_file(f"/b/{name}", b"x")
    files.pipe_file("/b/many.csv", b"input\nwatched://b/*.mp4\n")
    watched.errors.update(errors)
    with pytest.raises(AnimateDiffV2VError) as caught:
        find_clips([url], out=tmp_path / "out", remote=RemoteInputs(tmp_path / "copies"))
    assert sentence in str(caught.value)
    assert not list((tmp_path / "copies").rglob(".*"))


def test_a_full_disk_is_told_apart(watched, tmp_path):
    fsspec.url_to_fs("watched://b")[0].pipe_file("/b/a.mp4", b"x")
    watched.errors["get_file"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskFull, match=r"the disk is full; free some space\."):
        RemoteInputs(tmp_path).paths("watched://b/a.mp4")


RESULTS = ["a.mp4", "b.mp4", "index.html", "sources/a.mp4.mp4", "sources/b.mp4.mp4"]


@pytest.mark.parametrize("out", ["watched://bucket/out", "file://{tmp_path}/there"])
def test_results_are_put_at_the_url_once(  # noqa: PLR0917
    workers, batch, watched, tmp_path, monkeypatch, capsys, out
):
    out = out.format(tmp_path=tmp_path)
    put("watched://bucket/in", tmp_path / "in" / "a.mp4", tmp_path / "in" / "b.mp4")
    given = {"inputs": ["watched://bucket/in"], "out": out}
    assert batch(**given) == 0
    told = capsys.readouterr()
    assert told.out.strip() == f"{out}/index.html: 2 of 2 clips"
    assert f"copying watched://bucket/in to {working_folder(out)}" in told.err
    assert [each for each in files_at(out) if not each.startswith(".")] == RESULTS
    marks = [each for each in files_at(out) if each.startswith(".units/")]
    assert len(files_at(out)) == len(RESULTS) + len(marks) + 1 and PLAN in files_at(out)
    assert len(marks) == 4 and len(workers.rendered) == 4
    watched.written.clear()
    copied = len(watched.copied)
    assert batch(**given) == 0
    assert "2 of 2 clips are done already\n" in capsys.readouterr().err
    assert len(workers.rendered) == 4 and len(watched.copied) == copied
    assert set(watched.written) <= {"index.html"}
    # Another machine finds them there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert batch(**given) == 0
    assert len(workers.rendered) == 4 and set(watched.written) <= {"index.html"}
    # What changed is done anew, and takes the place of the old result.
    assert batch(**given, prompt="--prompt=a wolf") == 0
    assert sorted(workers.rendered[4:]) == ["a.mp4", "b.mp4"]
    now = [each for each in files_at(out) if each.startswith(".units/")]
    assert len(now) == 4 and len(set(now) & set(marks)) == 2
    with pytest.raises(SystemExit):
        main(["batch", "--status", out])
    assert "not running, 2 of 2 clips" in capsys.readouterr().out


def test_a_network_that_is_gone_costs_no_result(workers, batch, watched, caplog, capsys):
    watched.errors["put_file"] = ConnectionError("the network is gone")
    with caplog.at_level(logging.WARNING):
        assert batch(out="watched://out") == 2
    assert "watched://out/a.mp4 cannot be written: the network is gone" in caplog.text
    assert "the same command goes on where it was." in capsys.readouterr().err
    assert len(workers.rendered) == 4
    del watched.errors["put_file"]
    assert batch(out="watched://out") == 0
    assert len(workers.rendered) == 4
    assert [each for each in files_at("watched://out") if not each.startswith(".")] == RESULTS


@pytest.mark.parametrize(
    ("errors", "options", "sentence"),
    [
        ({"pipe_file": FileNotFoundError("no bucket")}, [], "There is no watched://out; check"),
        (
            {"pipe_file": PermissionError("Forbidden")},
            [],
            "watched://out cannot be written: access",
        ),
        ({}, ["--engine=ray"], "--engine ray needs an output folder that its machines share"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_before_the_work(  # noqa: PLR0917
    workers, batch, watched, capsys, errors, options, sentence
):
    watched.errors.update(errors)
    assert batch(*options, out="watched://out") == 2
    assert sentence in capsys.readouterr().err
    assert not workers.rendered


def test_files_of_others_stay_unless_they_may_be_replaced(workers, batch, capsys):
    files, _ = fsspec.url_to_fs("watched://out")
    files.pipe_file("/out/a.mp4", b"mine")
    assert batch(out="watched://out") == 1
    assert "watched://out/a.mp4 exists already and is not of a batch" in capsys.readouterr().err
    assert files.cat_file("/out/a.mp4") == b"mine" and "b.mp4" in files_at("watched://out")
    assert batch("--overwrite", out="watched://out") == 0
    assert files.cat_file("/out/a.mp4") != b"mine"


def test_pictures_are_put_and_found_as_a_folder(workers, batch, tmp_path, monkeypatch):
    (tmp_path / "in" / "b.mp4").unlink()
    assert batch("--format=png", out="watched://out") == 0
    assert sum(each.startswith("a/") for each in files_at("watched://out")) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert batch("--format=png", out="watched://out") == 0
    assert len(workers.rendered) == 2


@pytest.fixture
def shards(workers, monkeypatch):
    """Let `work` invert colours."""
    monkeypatch.setattr(
        "animatediff_v2v.batch.render.Renderer.render", lambda _, unit: workers(unit, lambda *_: 0)
    )
    return workers


def test_other_machines_do_their_share_and_the_command_joins(  # noqa: PLR0917
    shards, batch, models, tmp_path, monkeypatch, capsys
):
    put("watched://in", write_clip(tmp_path / "c.mp4", [(20, 30), (20, 200)]))
    given = {"inputs": ["watched://in"], "out": "watched://out"}
    assert batch("--plan-only", *EVERY_FRAME, **given) == 0
    assert "watched://out: 1 clip, 2 units planned" in capsys.readouterr().out
    for number, name in enumerate(("c.mp4#1", "c.mp4#2")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine {number}"))
        models.checkpoint.touch()  # times differ between machines, contents do not
        assert main(["work", "watched://out", f"--shard={number}/2"]) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["unit"], line["state"]) == (name, "done")
    assert main(["work", "watched://out"]) == 0
    assert capsys.readouterr().out.count('"skipped"') == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert batch(*EVERY_FRAME, **given) == 0
    assert sorted(shards.rendered) == ["c.mp4", "c.mp4#1", "c.mp4#2", "c.mp4#source"]
    there = files_at("watched://out")
    assert "c.mp4" in there and not [each for each in there if ".parts/" in each]


def test_a_machine_with_other_files_is_refused(shards, batch, models, watched, tmp_path, capsys):  # noqa: PLR0917
    put("watched://in", tmp_path / "in" / "a.mp4")
    assert main(["work", "watched://out"]) == 2
    assert "watched://out holds no plan: run `batch" in capsys.readouterr().err
    assert batch("--plan-only", inputs=["watched://in"], out="watched://out") == 0
    before = models.checkpoint.read_bytes()
    models.checkpoint.write_bytes(b"other weights")
    assert main(["work", "watched://out"]) == 1
    assert "a.mp4: a model file or the version" in capsys.readouterr().out
    models.checkpoint.write_bytes(before)
    watched.errors["put_file"] = ConnectionError("gone")
    assert main(["work", "watched://out"]) == 1
    assert "a.mp4 cannot be written: gone" in capsys.readouterr().out
    del watched.errors["put_file"]
    assert main(["work", "watched://out"]) == 0
    assert shards.rendered == ["a.mp4"]
