"""Saying in the graph, before anything runs, that a chosen model file will not do."""

from __future__ import annotations

from ..pipeline import AnimateDiffV2VError
from ..pipeline.files import Kind, identify
from . import host

# What a file of each model folder must be.
WANTED: dict[str, tuple[Kind, ...]] = {
    "checkpoints": ("checkpoint",),
    "vae": ("VAE", "checkpoint"),
    host.MOTION_MODULES: ("motion module",),
    host.MOTION_LORAS: ("motion LoRA",),
}


def check_model_files(chosen: dict[str, tuple[str, str | None]]) -> bool | str:
    """Give True if the files behind combos exist and are of their kinds, else the sentence.

    chosen: folder and file name by the name of the input; None names no file, or one that is not
    known before the graph runs. Only headers are read.
    """
    for name, (folder, file) in chosen.items():
        if file is None:
            continue
        try:
            report = identify(host.model_path(folder, file))
        except AnimateDiffV2VError as error:
            return f"{name}: {error}"
        if not report.usable or report.kind not in WANTED[folder]:
            return f"{name}: {file} will not do, a {WANTED[folder][0]} is wanted. {report.message}"
    return True
