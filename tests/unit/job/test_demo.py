"""The miniature's files, and the command that copies them into a ComfyUI."""

from __future__ import annotations

import errno
import importlib
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.cli.main import main
from animatediff_v2v.demo.install import copy_miniature
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import identify
from safetensors import safe_open

DEMO = Path(__file__).parents[3] / "demo"
FILES = sorted((DEMO / "models").rglob("*.safetensors"))
KINDS = {
    "checkpoints": "checkpoint",
    "animatediff_models": "motion module",
    "loras": "LoRA",
    "controlnet": "ControlNet",
    "ipadapter": "IP-Adapter",
    "clip_vision": "vision model",
}
# Their sizes are not supported by ComfyUI's own loaders.
NOT_FOR_COMFYUI = ("clip_vision", "ipadapter")
LIMIT = 32_000_000


def test_the_miniature_is_small():
    names = {path.stem for path in FILES}
    wanted = {"miniature", "miniature_motion", "miniature_outlined", "miniature_few_steps"}
    wanted |= {"miniature_canny", "miniature_sparsectrl", "miniature_vision", "miniature_style"}
    assert wanted <= names
    total = sum(path.stat().st_size for path in [*FILES, DEMO / "clip.mp4"])
    assert total <= LIMIT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_is_what_its_folder_says(path):
    report = identify(path)
    is_sparsectrl = path.stem == "miniature_sparsectrl"
    assert report.kind == ("SparseCtrl" if is_sparsectrl else KINDS[path.parent.name])
    assert report.usable
    with safe_open(path, "pt") as weights:
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert dtypes == {"F16"}


@pytest.fixture
def install(tmp_path, capsys):
    """Run the command, and return the files that it reports to have written."""

    def run(*options):
        (tmp_path / "models").mkdir(exist_ok=True)
        assert main(["demo", "--install-models", str(tmp_path), *options]) == 0
        written = [Path(line) for line in capsys.readouterr().out.splitlines()]
        left = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert left == set(written)
        return {path.relative_to(tmp_path).as_posix(): path for path in written}

    yield run
    shutil.rmtree(tmp_path / "models")


SMALL = {
    path.relative_to(DEMO).as_posix() for path in FILES if path.parent.name not in NOT_FOR_COMFYUI
} | {f"input/miniature_{name}" for name in ("clip.mp4", "style.png", "keyframe.png", "clips.csv")}


def test_install_models(install):
    written = install()
    assert set(written) == SMALL
    assert all(path.stat().st_size for path in written.values())


def test_install_models_for_native_nodes(install):
    written = install("--native")
    assert set(written) - SMALL == {
        "models/checkpoints/miniature_native.safetensors",
        "models/animatediff_models/miniature_motion_native.safetensors",
        "models/loras/miniature_outlined_native.safetensors",
        "models/loras/miniature_few_steps_native.safetensors",
        "models/clip_vision/miniature_vision.safetensors",
        "models/ipadapter/miniature_style.safetensors",
    }
    for name in set(written) - SMALL:
        report = identify(written[name])
        assert report.kind == KINDS[written[name].parent.name]
        assert report.usable
        assert written[name].stat().st_mode == (FILES[0].stat().st_mode)
    assert 1.9e9 < sum(path.stat().st_size for path in written.values()) < 2.2e9


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    blocked = tmp_path / "models" / "checkpoints"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder must be")
    assert main(["demo", "--install-models", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "miniature.safetensors cannot be written" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path, capsys):
    assert main(["demo", "--install-models", str(tmp_path)]) == 2
    assert "has no folder named models" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wheel_without_the_miniature_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("animatediff_v2v.demo.install.DEMO_FOLDER", tmp_path / "demo")
    (tmp_path / "models").mkdir()
    assert main(["demo", "--install-models", str(tmp_path)]) == 2
    assert "comes with a clone of the repository" in capsys.readouterr().err


def test_the_demo_shows_what_its_prompts_say(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    demo = runpy.run_path(str(DEMO / "run.py"))
    # The other two take as long again.
    for name in ("green", "outlined"):
        del demo["RUNS"][name]
    assert demo["main"]() == 0
    names = {path.name for path in tmp_path.iterdir()}
    wanted = {"side_by_side.gif", "contact_sheet.png", "restored.gif"}
    assert wanted | {"yellow.mp4", "4_steps.mp4"} <= names
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    played = re.findall('video src="([^"]+)"', page)
    assert played[::2] == ["source.mp4"] * 3 and {*played} <= names
    assert played[1::2] == ["yellow.mp4", "4_steps.mp4", "restored.mp4"]
    measures = importlib.import_module("training.measures")
    for name, (prompt, _) in demo["RUNS"].items():
        frames = demo["read"](tmp_path / f"{name.replace(' ', '_')}.mp4", 1)[::6]
        words = prompt.split()
        for frame in frames:
            seen = measures.look(frame.astype(np.float32) / 255)
            assert measures.colour_name(seen.object_colour) == words[1]
            assert measures.colour_name(seen.background_colour) == words[5]


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def fill(source, target):
        target.write_bytes(source.read_bytes()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(AnimateDiffV2VError, match="cannot be written: No space left on device"):
        copy_miniature(tmp_path / "models", tmp_path / "input")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
