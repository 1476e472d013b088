"""Whether the files of a job are there: asked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import AnimateDiffV2VError
from .request import ModelFiles, Request


def check_files(request: Request, files: ModelFiles | None = None) -> None:
    """Raise AnimateDiffV2VError, naming it, for the first file that is missing or out of reach."""
    for path in request.inputs:
        check_is_there(path, remedy="; check the name and the folder")
    for path in _networks(request, files):
        check_is_there(path)


def check_is_there(path: Path, *, remedy: str = "") -> None:
    """Raise AnimateDiffV2VError where there is nothing of this name, or nobody may know.

    remedy: ends the sentence.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AnimateDiffV2VError(f"There is no file {path}{remedy}.") from None
    except OSError as error:
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error


def _networks(request: Request, files: ModelFiles | None) -> Iterable[Path]:
    yield from (control.network for control in request.controls)
    for style in request.styles:
        yield from (style.adapter, style.vision_model)
    if files is not None:
        loras = [lora.path for lora in (*files.loras, *files.motion_loras)]
        named = (files.checkpoint, files.motion_module, files.vae, files.text_encoder)
        yield from (path for path in (*named, *loras) if path is not None)
