"""The tasks of the contenders of `benchmarks/speed.py`, and the search for AnimateDiff-Evolved."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_task_is_the_same_after_its_way_as_json(module, tmp_path, dtype):
    work = module("work")
    task = work.Task(
        work=work.Work(width=64, height=32, frames=17, steps=2, guidance=7.0),
        checkpoint=tmp_path / "a file.safetensors",
        motion_module=tmp_path / "motion.safetensors",
        folder=tmp_path,
        device=torch.device("cpu"),
        dtype=dtype,
    )
    assert work.Task.from_json(task.to_json()) == task


@pytest.mark.parametrize("folder", ["ComfyUI-AnimateDiff-Evolved", "comfyui-animatediff-evolved"])
def test_finds_the_pack_in_the_first_comfyui(module, monkeypatch, tmp_path, folder):
    pack = tmp_path / "comfyui" / "custom_nodes" / folder
    pack.mkdir(parents=True)
    (tmp_path / "comfyui" / "nodes.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join([str(tmp_path / "comfyui"), "other"]))
    evolved = module("evolved_worker")
    assert evolved.find_pack(evolved.find_comfyui()) == pack.resolve()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "COMFYUI_PATH does not begin with the folder of a ComfyUI"),
        (["nodes.py"], "holds no ComfyUI-AnimateDiff-Evolved"),
        (["nodes.py", "custom_nodes/another_pack/file"], "holds no ComfyUI-AnimateDiff-Evolved"),
    ],
)
def test_says_why_it_is_left_out(module, monkeypatch, tmp_path, files, reason):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    evolved = module("evolved_worker")
    with pytest.raises(LookupError, match=reason):
        evolved.find_pack(evolved.find_comfyui())
