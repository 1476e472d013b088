"""Hidden folders for unfinished files: which the next run removes, and which it never may."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import pytest
from animatediff_v2v.pipeline import part_folder
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.part_folder import PartFolder, check_name, remove_abandoned

OWNER = """
import sys
from pathlib import Path
from animatediff_v2v.pipeline.part_folder import PartFolder
folder = PartFolder(Path(sys.argv[1]))
(folder.path / "frames.raw").write_bytes(b"half a video")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    """Another process with a part folder beside out.mp4."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "out.mp4")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    path = tmp_path / process.stdout.readline().strip()
    assert path.is_dir()
    yield process, path
    process.kill()
    process.communicate()


def kill(process):
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait(60)


def rewrite_machine(path, **changes):
    marker = path / "owner.json"
    content = json.loads(marker.read_bytes())
    content["machine"] |= changes
    marker.write_bytes(json.dumps(content).encode())


def test_what_a_killed_process_left_goes_with_the_next_part_folder(other_process, tmp_path):
    process, path = other_process
    kill(process)
    assert (path / "frames.raw").exists()
    PartFolder(tmp_path / "other.mp4").remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_makes_stays(other_process, tmp_path):
    _, path = other_process
    remove_abandoned(tmp_path)
    assert (path / "frames.raw").read_bytes() == b"half a video"


def test_what_is_made_in_this_process_stays(tmp_path):
    folder = PartFolder(tmp_path / "out.mp4")
    remove_abandoned(tmp_path)
    assert folder.path.is_dir()
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("boot", ["another boot", ""])
def test_what_another_machine_left_stays(other_process, tmp_path, boot):
    process, path = other_process
    kill(process)
    rewrite_machine(path, name="another machine", boot=boot)
    remove_abandoned(tmp_path)
    assert (path / "frames.raw").exists()


@pytest.mark.parametrize(
    "changes", [{"boot": "before the machine went down"}, {"name": "a container of this machine"}]
)
def test_what_this_machine_left_goes(other_process, tmp_path, changes, monkeypatch):
    process, path = other_process
    kill(process)
    ours = {"name": "here", "boot": "this boot"}
    monkeypatch.setattr(part_folder, "_machine", lambda: ours)
    rewrite_machine(path, **(ours | changes))
    remove_abandoned(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize(
    "marker",
    [
        None,
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"made_by": "another program", "machine": {"name": "", "boot": ""}}',
        b'{"made_by": "animatediff-v2v", "machine": null}',
        b'{"made_by": "animatediff-v2v"' + b" " * 2000 + b"}",
    ],
    ids=str,
)
def test_a_folder_without_our_marker_stays_whatever_its_name(marker, tmp_path):
    path = tmp_path / ".out.abcd1234.part"
    path.mkdir()
    (path / "precious.txt").write_text("not ours")
    if marker is not None:
        (path / "owner.json").write_bytes(marker)
    (tmp_path / ".a.file.part").write_text("a file")
    (tmp_path / ".a.link.part").symlink_to(path, target_is_directory=True)
    remove_abandoned(tmp_path)
    assert (path / "precious.txt").exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_without_locks_gets_no_marker_and_nothing_of_it_is_removed(
    tmp_path, monkeypatch
):
    def refuse(_file):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(part_folder, "lock_file", refuse)
    folder = PartFolder(tmp_path / "out.mp4")
    assert list(folder.path.iterdir()) == []
    monkeypatch.undo()
    remove_abandoned(tmp_path)
    assert folder.path.is_dir()
    folder.remove()


@pytest.mark.parametrize("name", ["a" * 250, "ü" * 120, "\U0001f600" * 60])
def test_long_names_get_a_part_folder(name, tmp_path):
    PartFolder(tmp_path / f"{name}.mp4").remove()
    check_name(tmp_path / f"{name}.mp4")


@pytest.mark.parametrize("name", ["a" * 252, "ü" * 126, "\U0001f600" * 63])
def test_names_that_no_file_system_takes_are_refused(name, tmp_path):
    with pytest.raises(AnimateDiffV2VError, match="bytes, and file systems take up to 255"):
        check_name(tmp_path / f"{name}.mp4")


def test_a_folder_that_is_not_there_has_nothing_to_remove(tmp_path):
    remove_abandoned(tmp_path / "nowhere")


def test_a_full_disk_leaves_no_folder_that_nobody_would_remove(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part_folder, "_machine", full)
    with pytest.raises(OSError, match="No space"):
        PartFolder(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
