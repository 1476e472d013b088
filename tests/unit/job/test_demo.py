"""The miniature's files, and the command that puts them into a ComfyUI."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.pipeline.cli import main
from animatediff_v2v.pipeline.files import identify
from safetensors import safe_open

DEMO = Path(__file__).parents[3] / "demo"
FILES = sorted((DEMO / "models").rglob("*.safetensors"))
KINDS = {
    "checkpoints": "checkpoint",
    "animatediff_models": "motion module",
    "loras": "LoRA",
    "controlnet": "ControlNet",
}
LIMIT = 24_000_000


def test_the_miniature_is_small():
    names = {path.stem for path in FILES}
    wanted = {"miniature", "miniature_motion", "miniature_outlined", "miniature_few_steps"}
    wanted |= {"miniature_canny"}
    assert wanted <= names
    total = sum(path.stat().st_size for path in [*FILES, DEMO / "clip.mp4"])
    assert total <= LIMIT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_is_what_its_folder_says(path):
    report = identify(path)
    assert report.kind == KINDS[path.parent.name]
    assert report.usable
    with safe_open(path, "pt") as weights:
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert dtypes == {"F16"}


def test_install_models(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    assert main(["demo", "--install-models", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    relative = {path.relative_to(tmp_path).as_posix() for path in written}
    expected = {path.relative_to(DEMO).as_posix() for path in FILES}
    assert relative == expected | {"input/miniature_clip.mp4"}
    assert all(path.stat().st_size for path in written)


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path, capsys):
    assert main(["demo", "--install-models", str(tmp_path)]) == 2
    assert "has no folder named models" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wheel_without_the_miniature_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("animatediff_v2v.pipeline.demo.DEMO_FOLDER", tmp_path / "demo")
    (tmp_path / "models").mkdir()
    assert main(["demo", "--install-models", str(tmp_path)]) == 2
    assert "comes with a clone of the repository" in capsys.readouterr().err


def test_the_demo_shows_what_its_prompts_say(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    demo = runpy.run_path(str(DEMO / "run.py"))
    assert demo["main"]() == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"side_by_side.gif", "contact_sheet.png", "green.mp4", "4_steps.mp4"} <= names
    measures = importlib.import_module("training.measures")
    for name, (prompt, _) in demo["RUNS"].items():
        frames = demo["read"](tmp_path / f"{name.replace(' ', '_')}.mp4", 1)[::6]
        words = prompt.split()
        for frame in frames:
            seen = measures.look(frame.astype(np.float32) / 255)
            assert measures.colour_name(seen.object_colour) == words[1]
            assert measures.colour_name(seen.background_colour) == words[5]
