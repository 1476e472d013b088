"""Checks of chosen model files before the graph runs."""

from __future__ import annotations

from ..pipeline import AnimateDiffV2VError, files
from . import host
from .checks import Problem

# The kinds of files that can be used from each model folder, the usual one first.
WANTED: dict[str, tuple[files.Kind, ...]] = {
    "checkpoints": ("checkpoint",),
    "vae": ("VAE", "checkpoint"),
    "loras": ("LoRA", "v3 domain adapter"),
    "controlnet": ("ControlNet",),
    host.MOTION_MODULES: ("motion module",),
    host.MOTION_LORAS: ("motion LoRA",),
    host.IP_ADAPTERS: ("IP-Adapter",),
}


def file_problem(
    kinds: tuple[files.Kind, ...] | None = None, /, **chosen: tuple[str, str | None]
) -> Problem | None:
    """Return the first chosen file that is missing or of the wrong kind, or None.

    Only headers are read, except of pickles.

    Args:
        kinds: The kinds that can be used; None is those of the folder.
        **chosen: Folder and file name by input name. The file is None when none is chosen, or when
            it is not known before the graph runs.
    """
    for name, (folder, file) in chosen.items():
        sentence = None if file is None else _wrong(folder, file, kinds or WANTED[folder])
        if sentence:
            return Problem(name, sentence)
    return None


def _wrong(folder: str, file: str, wanted: tuple[files.Kind, ...]) -> str | None:
    try:
        report = files.identify(host.model_path(folder, file))
    except AnimateDiffV2VError as error:
        return str(error)
    if report.usable and not {report.kind, *report.also}.isdisjoint(wanted):
        return None
    article = "an" if wanted[0] == "IP-Adapter" else "a"
    return f"{file} cannot be used here, {article} {wanted[0]} is needed. {report.message}"
