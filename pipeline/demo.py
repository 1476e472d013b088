"""Putting the miniature where ComfyUI looks for models."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import AnimateDiffV2VError

DEMO_FOLDER = Path(__file__).parents[1] / "demo"


def install_models(comfyui: Path) -> list[Path]:
    """Copy the miniature's model files and its clip into a ComfyUI: the paths that were written.

    comfyui: the folder that holds ComfyUI's `models` and `input`.
    Raises AnimateDiffV2VError when it is no such folder, when the miniature is not here (it comes
    with the repository, not with a wheel), or when a file cannot be written.
    """
    if not (comfyui / "models").is_dir():
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
    targets = {path: comfyui / path.relative_to(DEMO_FOLDER) for path in models}
    targets[clip] = comfyui / "input" / "miniature_clip.mp4"
    try:
        for source, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise AnimateDiffV2VError(
            f"{error.filename} cannot be written: {error.strerror}."
        ) from None
    return list(targets.values())
