"""Checks of chosen model files before the graph runs."""

from __future__ import annotations

from ..pipeline import AnimateDiffV2VError, files
from . import host

# The kinds of files that can be used from each model folder.
WANTED: dict[str, tuple[files.Kind, ...]] = {
    "checkpoints": ("checkpoint",),
    "vae": ("VAE", "checkpoint"),
    host.MOTION_MODULES: ("motion module",),
    host.MOTION_LORAS: ("motion LoRA",),
}


def check_model_files(chosen: dict[str, tuple[str, str | None]]) -> bool | str:
    """Return True if the chosen files exist and are of the right kind, else an error sentence.

    Only headers are read.

    Args:
        chosen: folder and file name by input name; the file is None when none is chosen, or when
            it is not known before the graph runs.
    """
    for name, (folder, file) in chosen.items():
        if file is None:
            continue
        try:
            report = files.identify(host.model_path(folder, file))
        except AnimateDiffV2VError as error:
            return f"{name}: {error}"
        if not report.usable or report.kind not in WANTED[folder]:
            needed = WANTED[folder][0]
            return f"{name}: {file} cannot be used here, a {needed} is needed. {report.message}"
    return True
