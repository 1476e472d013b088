"""A short clip with sound and tiny models for whole jobs."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline.video import Audio, VideoWriter

ROOT = Path(__file__).parents[3]
FRAMES, RATE = 20, Fraction(10)


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small are slower on several threads, much so when the machine is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    load_script("demo/random_weights").write_weights(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    sound = Audio(np.sin(np.arange(96_000) / 20)[np.newaxis].astype(np.float32) * 0.3, 48_000)
    with VideoWriter(path, width=64, height=64, frame_rate=RATE, audio=sound) as writer:
        for index in range(FRAMES):
            frame = np.full((1, 64, 64, 3), 40, np.uint8)
            frame[:, 16:48, 2 * index : 2 * index + 20] = (220, 60, 30)
            writer.write(frame)
    return path


@pytest.fixture
def command(weights, clip, tmp_path):
    """Return a function that makes the arguments of a run; None leaves an option out."""

    def build(**replaced):
        options = {
            "checkpoint": weights / "checkpoint.safetensors",
            "motion-module": weights / "motion_module.safetensors",
            "prompt": "a (red:1.2) box",
            "steps": 2,
            "seed": 7,
            "select-every-nth-frame": 4,
        } | {name.replace("_", "-"): value for name, value in replaced.items()}
        source = options.pop("input", clip)
        target = options.pop("output", tmp_path / "out.mp4")
        named = [
            part for name, value in options.items() if value is not None
            for part in (f"--{name}", str(value))
        ]  # fmt: skip
        return ["run", str(source), str(target), *named]

    return build
