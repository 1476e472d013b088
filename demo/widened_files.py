"""The miniature's files at the sizes that ComfyUI's own loaders support."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from ..pipeline.files import load_checkpoint
from .install import DEMO_FOLDER
from .widening import (
    Tensors,
    widened_checkpoint,
    widened_ip_adapter,
    widened_lora,
    widened_motion_module,
    widened_vision_model,
)

_CHECKPOINT = DEMO_FOLDER / "models" / "checkpoints" / "miniature.safetensors"
_WIDENED: dict[str, Callable[[Path], Tensors]] = {
    "checkpoints": lambda path: widened_checkpoint(load_checkpoint(path)),
    "animatediff_models": lambda path: widened_motion_module(load_file(path)),
    "loras": lambda path: widened_lora(load_file(path), load_checkpoint(_CHECKPOINT).unet_config),
    "clip_vision": lambda path: widened_vision_model(load_file(path)),
    "ipadapter": lambda path: widened_ip_adapter(load_file(path)),
}
WIDENED_FOLDERS = tuple(_WIDENED)
"""The folders of the miniature whose files can be widened."""


def save_widened(path: Path, target: Path) -> None:
    """Write the wide version of one of the miniature's files, depending on its folder."""
    save_file(_WIDENED[path.parent.name](path), target)
    shutil.copymode(path, target)  # it was readable only by its owner
