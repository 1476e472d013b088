"""A ComfyUI for each path in COMFYUI_PATH, and a small clip with sound."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.demo.install import install_models
from animatediff_v2v.pipeline.video import Audio, VideoWriter
from PIL import Image
from safetensors.torch import save_file

from ..unit.files import miniatures as mini
from .comfy_server import PACK, ComfyServer

PATHS = [path for path in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if path]
MINIATURE = PACK / "demo" / "models"
MINIATURE_FILES = {
    "checkpoint.safetensors": "checkpoints/miniature.safetensors",
    "motion_module.safetensors": "animatediff_models/miniature_motion.safetensors",
    "style_lora.safetensors": "loras/miniature_outlined.safetensors",
    "controlnet.safetensors": "controlnet/miniature_canny.safetensors",
}
FRAMES, FRAME_RATE, SIZE = 16, 16, (96, 64)
SAMPLE_RATE = 48_000


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """The trained miniature."""
    folder = tmp_path_factory.mktemp("weights")
    for name, path in MINIATURE_FILES.items():
        shutil.copy(MINIATURE / path, folder / name)
    return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder of a ComfyUI into which the command copied the whole miniature."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "models").mkdir()
    install_models(folder, native=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=PATHS or [None], ids=lambda path: Path(path or "none").name)
def server(request, tmp_path_factory, weights, installed):
    if request.param is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    folder = tmp_path_factory.mktemp("comfyui")
    with ComfyServer(request.param, folder / "base", weights) as running:
        shutil.copytree(installed, running.folder, copy_function=os.link, dirs_exist_ok=True)
        write_clip(running.folder / "input" / "clip.mp4")
        write_clip(running.folder / "input" / "silent.mp4", sound=False)
        picture = Image.linear_gradient("L").convert("RGB")
        picture.save(running.folder / "input" / "picture.png")
        picture.resize(SIZE).save(running.folder / "input" / "frame.png")
        controlnets = running.folder / "models" / "controlnet"
        save_file(mini.sparsectrl_for_the_miniature(), controlnets / "sparsectrl.safetensors")
        yield running


@pytest.fixture(scope="session")
def object_info(server):
    return server.get("/object_info")


def write_clip(path, *, sound=True, phase=0.0):
    seconds = np.arange(SAMPLE_RATE * FRAMES // FRAME_RATE, dtype=np.float32) / SAMPLE_RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * seconds))[np.newaxis]
    width, height = SIZE
    across = np.linspace(0, 1, width)
    with VideoWriter(
        path,
        width=width,
        height=height,
        frame_rate=Fraction(FRAME_RATE),
        audio=Audio(tone, SAMPLE_RATE) if sound else None,
        overwrite=True,
    ) as writer:
        for index in range(FRAMES):
            wave = 0.5 + 0.5 * np.sin(6 * (across + index / FRAMES + phase))
            picture = np.broadcast_to((wave * 255).astype(np.uint8)[:, None], (height, width, 3))
            writer.write(np.ascontiguousarray(picture)[np.newaxis])
