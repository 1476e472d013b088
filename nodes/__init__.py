"""Nodes for ComfyUI, each a schema and a short execute."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .extension import AnimateDiffV2VExtension

logger = logging.getLogger(__name__)

LOWEST_COMFYUI = (0, 14, 0)
# Checked at the start, because most of them are imported only when a node first runs.
PACKAGES = (
    "av",
    "imageio",
    "imageio_ffmpeg",
    "numpy",
    "PIL",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "torchsde",
    "tqdm",
)


def load_extension() -> AnimateDiffV2VExtension:
    """Import the nodes, which needs ComfyUI, and return the extension.

    Raises:
        RuntimeError: when ComfyUI is too old or its environment lacks a package; ComfyUI logs its
            sentence. Any other error is a bug and is logged with its traceback, which ComfyUI
            would leave out.
    """
    _check_version()
    for package in PACKAGES:
        if find_spec(package) is None:
            raise _missing(package)
    try:
        from .extension import AnimateDiffV2VExtension
    except ModuleNotFoundError as error:
        logger.debug("A package is missing.", exc_info=True)
        raise _missing(error.name) from error
    except Exception:
        logger.exception("AnimateDiff V2V could not be loaded.")
        raise
    return AnimateDiffV2VExtension()


def _missing(package: str | None) -> RuntimeError:
    return RuntimeError(
        f"AnimateDiff V2V needs the Python package {package!r}, which ComfyUI's environment "
        "does not have: run `python -m pip install -r requirements.txt` in this pack's folder "
        "with the Python that runs ComfyUI, then restart it."
    )


def say_if_too_old() -> None:
    """Log an error if ComfyUI does not have the node API that these nodes use."""
    if find_spec("comfy_api") is None or find_spec("comfy_api.latest") is None:
        logger.error(_too_old("this one is older"))


def _check_version() -> None:
    from comfyui_version import __version__

    if version_numbers(__version__) < LOWEST_COMFYUI:
        raise RuntimeError(_too_old(f"this is {__version__}"))


def _too_old(found: str) -> str:
    lowest = ".".join(map(str, LOWEST_COMFYUI))
    return f"AnimateDiff V2V needs ComfyUI {lowest} or newer, and {found}: update ComfyUI."


def version_numbers(version: str) -> tuple[int, ...]:
    """Turn a version into numbers that can be compared.

    >>> version_numbers("0.14.0-rc1")
    (0, 14, 0)
    """
    numbers = version.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split(".")[:3]
    return tuple(int(number) for number in numbers if number.isdigit())
