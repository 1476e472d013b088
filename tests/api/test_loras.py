"""The files that requests' LoRAs refer to, and refusals."""

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path

import pytest
import torch
from animatediff_v2v.api.intake import loras
from animatediff_v2v.api.intake.loras import EARLIER_CACHE, LoraShelf
from animatediff_v2v.api.intake.uploads import UploadStore
from animatediff_v2v.api.net.fetching import FetchedFile, FetchLimits, InputRefused
from animatediff_v2v.api.queue.local_executor import ModelFolders
from animatediff_v2v.api.storage.disk import StorageFull
from safetensors.torch import save

LIMITS = FetchLimits(max_bytes=10**6)
HUB = "https://huggingface.co"


@pytest.fixture
def lora(weights):
    return (weights / "style_lora.safetensors").read_bytes()


@pytest.fixture
def installed(tmp_path, lora):
    folder = tmp_path / "models" / "loras"
    (folder / "sd15").mkdir(parents=True)
    for name in ("style.safetensors", "sd15/ink.safetensors", "old.ckpt"):
        (folder / name).write_bytes(lora)
    (tmp_path / "models" / "secret.safetensors").write_bytes(lora)
    return folder


@pytest.fixture
def uploads(tmp_path):
    return UploadStore(tmp_path / "uploads")


@pytest.fixture
def shelf(tmp_path, installed, uploads):
    return shelf_of(tmp_path, uploads)


def shelf_of(tmp_path, uploads, **options):
    library = ModelFolders(tmp_path / "models")
    return LoraShelf(library, uploads, LIMITS, folder=tmp_path / "kept", **options)


@pytest.fixture
def world(monkeypatch):
    """Files by URL in a fake internet; `world.asked` lists the requested ones."""

    class World(dict):
        asked = None

    answers = World()
    answers.asked = []

    async def fetch(url, into, *, limits):
        answers.asked.append(url)
        await asyncio.sleep(0)
        if url not in answers:
            raise InputRefused("Failed to download the file. 404.", type="file_download_error")
        if len(answers[url]) > limits.max_bytes:
            raise InputRefused("It is too large.", type="file_too_large")
        path = into / f"{len(answers.asked)}.bin"
        path.write_bytes(answers[url])
        return FetchedFile(path=path, content_type="application/octet-stream", size=1)

    monkeypatch.setattr(loras, "fetch", fetch)
    return answers


def name_of(shelf, reference):
    return asyncio.run(shelf.name_of(reference)).replace(os.sep, "/")


def kept(tmp_path, content):
    """Return the path of a cached LoRA, which must exist."""
    path = tmp_path / "kept" / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    assert path.read_bytes() == content
    return path.as_posix()


def upload(store, content):
    upload_id, _, path = store.initiate(content_type="", file_name="x.safetensors")
    store._data(upload_id).write_bytes(content)
    store._finish(upload_id, store._entry(upload_id))
    return f"http://127.0.0.1:8188{path}"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("style.safetensors", "style.safetensors"),
        ("style", "style.safetensors"),
        ("sd15/ink.safetensors", "sd15/ink.safetensors"),
        ("sd15/ink", "sd15/ink.safetensors"),
        ("sd15\\ink.safetensors", "sd15/ink.safetensors"),
        ("old", "old.ckpt"),
    ],
)
def test_installed(shelf, world, reference, name):
    assert name_of(shelf, reference) == name
    assert world.asked == []


@pytest.mark.parametrize(
    "reference",
    [
        "nothing",
        "../secret.safetensors",
        "sd15/../../secret.safetensors",
        "..\\secret.safetensors",
        "./style.safetensors",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "\\\\server\\share\\x",
        "file:///etc/passwd",
        "style.safetensors\x00.png",
        "~/x",
        "",
        ".",
        "a//b",
        "owner/../../x",
        "owner/name/../../../x",
        "s3://bucket/x",
    ],
)
def test_loras_that_are_not_installed(shelf, world, reference):
    with pytest.raises(InputRefused) as error:
        name_of(shelf, reference)
    assert str(error.value) == f"{reference!r} is not installed in models/loras."
    assert error.value.type == "file_download_error"
    assert world.asked == []


def test_uploads(shelf, installed, uploads, lora, tmp_path):
    assert name_of(shelf, upload(uploads, lora)) == kept(tmp_path, lora)
    names = {"old.ckpt", "sd15", "style.safetensors"}
    assert {path.name for path in installed.iterdir()} == names, "nothing is put among them"


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("https://h.test/x.safetensors?token=1", ["https://h.test/x.safetensors?token=1"]),
        ("HTTP://h.test/x", ["HTTP://h.test/x"]),
        (f"{HUB}/o/r/resolve/main/x.safetensors", [f"{HUB}/o/r/resolve/main/x.safetensors"]),
        (f"{HUB}/o/r/blob/main/x.safetensors", [f"{HUB}/o/r/resolve/main/x.safetensors"]),
        ("o/r/x.safetensors", [f"{HUB}/o/r/resolve/main/x.safetensors"]),
        ("o/r/a b/x.safetensors", [f"{HUB}/o/r/resolve/main/a%20b/x.safetensors"]),
    ],
)
def test_downloads(shelf, world, lora, tmp_path, *, reference, asked):
    world[asked[-1]] = lora
    for _ in range(2):
        assert name_of(shelf, reference) == kept(tmp_path, lora)
    assert world.asked == asked, "the second time it is here already"


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["README.md", "ink.safetensors"], "ink.safetensors"),
        (["a.safetensors", "pytorch_lora_weights.safetensors"], "pytorch_lora_weights.safetensors"),
    ],
)
def test_repositories(shelf, world, lora, tmp_path, *, files, chosen):
    listing = {"siblings": [{"rfilename": name} for name in files]}
    world[f"{HUB}/api/models/owner/name"] = json.dumps(listing).encode()
    world[f"{HUB}/owner/name/resolve/main/{chosen}"] = lora
    assert name_of(shelf, "owner/name") == kept(tmp_path, lora)


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ({"siblings": [{"rfilename": f"{name}.safetensors"} for name in "ba"]},
         "a.safetensors, b.safetensors"),
        ({"siblings": [{"rfilename": "a.ckpt"}]}, "none"),
        ({"siblings": [1, {}, {"rfilename": 1}]}, "none"),
        ([], "none"),
    ],
)  # fmt: skip
def test_repositories_without_a_single_file(shelf, world, listing, found):
    world[f"{HUB}/api/models/owner/name"] = json.dumps(listing).encode()
    with pytest.raises(InputRefused) as error:
        name_of(shelf, "owner/name")
    sentence = f"'owner/name' has no single .safetensors file ({found}): name one."
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!doctype html><p>log in", "'https://h.test/x' is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "'https://h.test/x' is a Git LFS pointer"),
        (b"nonsense" * 10, "'https://h.test/x' is not a model file"),
        (b"\x10" + bytes(7) + b"{" + b"x" * 50, "'https://h.test/x' is a damaged safetensors file"),
        (b"\xff\xff" + bytes(6) + b"{}", "'https://h.test/x' is cut short or damaged"),
    ],
)
def test_files_without_tensors_are_refused(shelf, world, tmp_path, content, sentence):
    world["https://h.test/x?token=secret"] = content
    with pytest.raises(InputRefused) as error:
        name_of(shelf, "https://h.test/x?token=secret")
    assert str(error.value).startswith(sentence)
    assert str(tmp_path) not in str(error.value)
    assert "secret" not in str(error.value)
    assert error.value.type == "file_download_error"
    assert list((tmp_path / "kept").iterdir()) == []


def test_pickles_are_refused(shelf, world, uploads, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.ckpt")
    reference = upload(uploads, (tmp_path / "x.ckpt").read_bytes())
    with pytest.raises(
        InputRefused, match=r"is not a \.safetensors file, and only those are accepted"
    ):
        name_of(shelf, reference)


def test_one_download_for_many_requests(shelf, world, lora):
    world["https://h.test/x"] = lora

    async def run():
        return await asyncio.gather(*(shelf.name_of("https://h.test/x") for _ in range(20)))

    assert len(set(asyncio.run(run()))) == 1
    assert world.asked == ["https://h.test/x"]
    assert not shelf._fetching


def test_a_url_is_downloaded_again_after_a_day(shelf, world, lora, monkeypatch):
    world["https://h.test/x"] = lora
    name_of(shelf, "https://h.test/x")
    monkeypatch.setattr(loras, "FRESH_SECONDS", -1)
    name_of(shelf, "https://h.test/x")
    assert len(world.asked) == 2


def test_the_least_recently_used_are_removed(world, uploads, tmp_path, lora):
    now = [time.time()]
    other = save({"x": torch.zeros(len(lora))})
    share = len(other) + len(lora) // 2
    shelf = shelf_of(tmp_path, uploads, cache_bytes=share, clock=lambda: now[0])
    world |= {"https://h.test/x": lora, "https://h.test/y": other}
    first = kept_path(shelf, "https://h.test/x")
    with pytest.raises(StorageFull):  # a job may be about to read the first
        name_of(shelf, "https://h.test/y")
    assert first.exists()
    now[0] += 7200
    second = kept_path(shelf, "https://h.test/y")
    assert not first.exists() and second.exists()
    now[0] += 7200
    assert kept_path(shelf, "https://h.test/x") == first, "fetched again"


def kept_path(shelf, reference):
    return Path(name_of(shelf, reference))


def test_files_being_downloaded_count(world, uploads, tmp_path):
    """Many downloads at once stay within the share of LoRAs."""
    files = {f"https://h.test/{i}": save({"x": torch.full((1000,), i * 1.0)}) for i in range(8)}
    world |= files
    size = len(files["https://h.test/0"])
    shelf = shelf_of(tmp_path, uploads, cache_bytes=3 * size)

    async def run():
        return await asyncio.gather(*map(shelf.name_of, files), return_exceptions=True)

    outcomes = asyncio.run(run())
    assert {type(each) for each in outcomes} == {str, StorageFull}
    assert sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.safetensors")) <= (
        3 * size
    )


def test_uploads_count_and_a_cached_one_needs_no_room(shelf, uploads, tmp_path, lora):
    shelf = shelf_of(tmp_path, uploads, cache_bytes=len(lora) + 10)
    reference = upload(uploads, lora)
    for _ in range(2):
        assert name_of(shelf, reference) == kept(tmp_path, lora)
    with pytest.raises(StorageFull):
        name_of(shelf, upload(uploads, save({"x": torch.zeros(1000)})))


def test_a_file_larger_than_the_share_is_refused(world, uploads, tmp_path, lora):
    shelf = shelf_of(tmp_path, uploads, cache_bytes=len(lora) - 1)
    world["https://h.test/x"] = lora
    with pytest.raises(InputRefused) as error:
        name_of(shelf, "https://h.test/x")
    assert error.value.type == "file_too_large"


def test_the_cache_of_an_earlier_version_is_moved(shelf, world, installed, tmp_path, lora):
    earlier = installed / EARLIER_CACHE
    earlier.mkdir()
    name = f"{hashlib.sha256(lora).hexdigest()}.safetensors"
    (earlier / name).write_bytes(lora)
    os.utime(earlier / name, (1000, 1000))
    about = {"name": f"{EARLIER_CACHE}/{name}", "fetched": time.time()}
    shelf._note("https://h.test/x").write_text(json.dumps(about))
    note = shelf._note("https://h.test/x")
    note.rename(earlier / note.name)
    (earlier / "mine.safetensors").write_bytes(b"theirs")
    shelf.take_over()
    assert [path.name for path in earlier.iterdir()] == ["mine.safetensors"]
    assert (tmp_path / "kept" / name).stat().st_mtime == 1000
    assert name_of(shelf, "https://h.test/x") == kept(tmp_path, lora)
    assert world.asked == []
    (earlier / "mine.safetensors").unlink()
    shelf.take_over()
    assert not earlier.exists()
    shelf.take_over()
