"""Putting the miniature where ComfyUI looks for models."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .choices import checked_path
from .errors import AnimateDiffV2VError
from .files import load_checkpoint
from .output_file import check_can_replace
from .part_folder import PartFolder
from .widening import (
    Tensors,
    widened_checkpoint,
    widened_ip_adapter,
    widened_lora,
    widened_motion_module,
    widened_vision_model,
)

DEMO_FOLDER = Path(__file__).parents[1] / "demo"
_CHECKPOINT = DEMO_FOLDER / "models" / "checkpoints" / "miniature.safetensors"
_NATIVE_SUFFIX = "_native"
# What ComfyUI's own loaders take at the sizes that they know, from the file of the same folder.
_WIDENED: dict[str, Callable[[Path], Tensors]] = {
    "checkpoints": lambda path: widened_checkpoint(load_checkpoint(path)),
    "animatediff_models": lambda path: widened_motion_module(load_file(path)),
    "loras": lambda path: widened_lora(load_file(path), load_checkpoint(_CHECKPOINT).unet_config),
    "clip_vision": lambda path: widened_vision_model(load_file(path)),
    "ipadapter": lambda path: widened_ip_adapter(load_file(path)),
}
# Of no use to ComfyUI as they are: its vision models are of certain sizes.
_ONLY_WIDENED = ("clip_vision", "ipadapter")


def install_models(comfyui: Path, *, native: bool = False, overwrite: bool = False) -> list[Path]:
    """Copy the miniature's model files and its clip into a ComfyUI: the paths that were written.

    comfyui: the folder that holds ComfyUI's `models` and `input`.
    native: also write what the templates need that use ComfyUI's own loaders: the miniature at the
    sizes of Stable Diffusion 1.5 and CLIP, 2.0 GB.
    overwrite: replace files of the same names and other content; without it they are refused.
    Raises AnimateDiffV2VError when it is no such folder, when the miniature is not here (it comes
    with the repository, not with a wheel), or when a file cannot be written.
    """
    comfyui = checked_path("comfyui", comfyui)
    if not os.path.isdir(comfyui / "models"):  # noqa: PTH112 - Path's raises without the right
        raise AnimateDiffV2VError(
            f"{comfyui} has no folder named models: give the folder of ComfyUI itself, or its "
            "--base-directory."
        )
    models = sorted((DEMO_FOLDER / "models").rglob("*.safetensors"))
    clip = DEMO_FOLDER / "clip.mp4"
    if not models or not clip.exists():
        raise AnimateDiffV2VError(
            f"The miniature is not in {DEMO_FOLDER}: it comes with a clone of the repository."
        )
    usable = [path for path in models if path.parent.name not in _ONLY_WIDENED]
    targets = {path: comfyui / path.relative_to(DEMO_FOLDER) for path in usable}
    targets[clip] = comfyui / "input" / "miniature_clip.mp4"
    for source, target in targets.items():
        _write(target, partial(shutil.copyfile, source), overwrite=overwrite)
    widened = [path for path in models if native and path.parent.name in _WIDENED]
    return [
        *targets.values(),
        *(_write_widened(path, comfyui, overwrite=overwrite) for path in widened),
    ]


def _write_widened(path: Path, comfyui: Path, *, overwrite: bool) -> Path:
    folder = path.parent.name
    suffix = "" if folder in _ONLY_WIDENED else _NATIVE_SUFFIX
    target = comfyui / "models" / folder / f"{path.stem}{suffix}.safetensors"
    tensors = _WIDENED[folder](path)

    def write(unfinished: Path) -> None:
        save_file(tensors, unfinished)
        shutil.copymode(path, unfinished)  # it was for its owner alone

    _write(target, write, overwrite=overwrite)
    return target


def _write(target: Path, write: Callable[[Path], object], *, overwrite: bool) -> None:
    """Write a file whole or not at all; one that is there already with this content stays."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part_folder = PartFolder(target)
        try:
            unfinished = part_folder.path / target.name
            write(unfinished)
            if target.is_file() and filecmp.cmp(unfinished, target, shallow=False):
                return
            check_can_replace(target, overwrite=overwrite)
            unfinished.replace(target)
        finally:
            part_folder.remove()
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AnimateDiffV2VError(f"{target} cannot be written: {reason}.") from None
