"""Installation of the miniature into ComfyUI's model folders."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from ..pipeline.choices import checked_path
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.output_file import check_can_replace
from ..pipeline.part_folder import PartFolder

DEMO_FOLDER = Path(__file__).parent
CLIP_NAME = "miniature_clip.mp4"
PICTURE_NAME = "miniature_style.png"
KEYFRAME_NAME = "miniature_keyframe.png"
TABLE_NAME = "miniature_clips.csv"
_INPUTS = {
    "clip.mp4": CLIP_NAME,
    "style.png": PICTURE_NAME,
    "keyframe.png": KEYFRAME_NAME,
    "clips.csv": TABLE_NAME,
}
_NATIVE_SUFFIX = "_native"
# ComfyUI cannot use these: it only supports vision models of certain sizes.
_ONLY_WIDENED = ("clip_vision", "ipadapter")


def checked_comfyui(comfyui: Path) -> Path:
    """Return the folder as a Path; raise AnimateDiffV2VError unless it has a folder `models`."""
    comfyui = checked_path("comfyui", comfyui)
    if not os.path.isdir(comfyui / "models"):  # noqa: PTH112 - Path.is_dir raises without permission
        raise AnimateDiffV2VError(
            f"{comfyui} has no folder named models: give the folder of ComfyUI itself, or its "
            "--base-directory."
        )
    return comfyui


def install_models(comfyui: Path, *, native: bool = False, overwrite: bool = False) -> list[Path]:
    """Copy the miniature's files, its clip, pictures and table into a ComfyUI; return the paths.

    Args:
        comfyui: the folder with ComfyUI's `models` and `input`.
        native: also write the miniature at the sizes of Stable Diffusion 1.5 and CLIP (2.0 GB),
            for templates that use ComfyUI's own loaders.
        overwrite: replace files of the same names with other content; otherwise they are refused.

    Raises:
        AnimateDiffV2VError: when it is not such a folder, when the miniature is missing (it comes
            with the repository, not with a wheel), or when a file cannot be written.
    """
    comfyui = checked_comfyui(comfyui)
    return copy_miniature(comfyui / "models", comfyui / "input", native=native, overwrite=overwrite)


def copy_miniature(
    models: Path, inputs: Path, *, native: bool = False, overwrite: bool = False
) -> list[Path]:
    """Copy the miniature and its clip, pictures and table into these folders; return the paths.

    Args and errors are those of install_models.
    """
    sources = _sources()
    usable = [path for path in sources if path.parent.name not in _ONLY_WIDENED]
    targets = {path: models / path.parent.name / path.name for path in usable}
    targets |= {DEMO_FOLDER / source: inputs / name for source, name in _INPUTS.items()}
    for source, target in targets.items():
        _write(target, partial(shutil.copyfile, source), overwrite=overwrite)
    written = [*targets.values()]
    if not native:
        return written
    from .widened_files import WIDENED_FOLDERS, save_widened  # noqa: PLC0415 - loads PyTorch

    for path in sources:
        folder = path.parent.name
        if folder in WIDENED_FOLDERS:
            suffix = "" if folder in _ONLY_WIDENED else _NATIVE_SUFFIX
            target = models / folder / f"{path.stem}{suffix}.safetensors"
            _write(target, partial(save_widened, path), overwrite=overwrite)
            written.append(target)
    return written


def _sources() -> list[Path]:
    models = sorted((DEMO_FOLDER / "models").rglob("*.safetensors"))
    if not models or not all((DEMO_FOLDER / name).exists() for name in _INPUTS):
        raise AnimateDiffV2VError(
            f"The miniature is not in {DEMO_FOLDER}: it comes with a clone of the repository."
        )
    return models


def _write(target: Path, write: Callable[[Path], object], *, overwrite: bool) -> None:
    """Write a file completely or not at all; keep an existing one with the same content."""
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
