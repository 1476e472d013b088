"""From the names of hosted models to the files that are installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ..pipeline import AnimateDiffV2VError
from .executor import ModelLibrary
from .problems import refused
from .settings import FILE_NAME, Settings

CHECKPOINTS = "checkpoints"
MOTION_MODULES = "animatediff_models"
MOTION_LORAS = "animatediff_motion_lora"
# What suits best comes first; compared by letters and digits.
QUALITY_MODULES = ("v3sd15mm", "mmsdv15v2", "mmsdv15", "mmsdv14")
TURBO_MODULES = ("animatelcm", "lcm", "lightning4step", "lightning")
# Beside a hosted motion stands what its motion LoRA's file is called.
MOTION_LORA_OF = {
    "zoom-out": "zoomout",
    "zoom-in": "zoomin",
    "pan-left": "panleft",
    "pan-right": "panright",
    "tilt-up": "tiltup",
    "tilt-down": "tiltdown",
}


def letters(name: str) -> str:
    """Letters and digits of a file's name without folder and suffix.

    >>> letters("sd15/cardosAnime_v20.safetensors")
    'cardosanimev20'
    """
    stem = PurePosixPath(name.replace("\\", "/")).name
    for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin"):
        stem = stem.removesuffix(suffix)
    return "".join(character for character in stem.lower() if character.isalnum())


def checkpoint_for(base_model: str, library: ModelLibrary, settings: Settings) -> str:
    """Find the checkpoint that a hosted base_model means.

    Raises RequestRefused (one_of) when none does.
    """
    names = library.names(CHECKPOINTS)
    wanted = settings.base_models.get(base_model, base_model)
    found = named(wanted, names)
    if found is None:
        raise refused(
            "base_model",
            f"base_model {base_model!r} is not installed: put its file into models/{CHECKPOINTS}, "
            f"or name another one for it under base_models in {FILE_NAME}",
            "one_of",
            expected=sorted({*settings.base_models, *names}),
        )
    return found


def default_checkpoint(library: ModelLibrary, settings: Settings) -> str:
    """Find the checkpoint of the endpoints that let nobody choose.

    Raises AnimateDiffV2VError when none is installed at all.
    """
    names = library.names(CHECKPOINTS)
    wanted = settings.base_models.get(settings.default_base_model, settings.default_base_model)
    found = named(wanted, names) or next(iter(names), None)
    if found is None:
        raise AnimateDiffV2VError(f"No checkpoint is installed in models/{CHECKPOINTS}.")
    return found


def motion_module_for(library: ModelLibrary, settings: Settings, *, is_turbo: bool) -> str:
    """Find the motion module of an endpoint, as the settings say or by what suits it.

    Raises AnimateDiffV2VError when none is installed, or the one in the settings is not.
    """
    names = library.names(MOTION_MODULES)
    setting = "turbo_motion_module" if is_turbo else "motion_module"
    chosen: str = getattr(settings, setting)
    if chosen:
        found = named(chosen, names)
        if found is None:
            raise AnimateDiffV2VError(
                f"The {setting} of {FILE_NAME}, {chosen!r}, is not in models/{MOTION_MODULES}."
            )
        return found
    if not names:
        raise AnimateDiffV2VError(f"No motion module is installed in models/{MOTION_MODULES}.")
    order = [*TURBO_MODULES, *QUALITY_MODULES] if is_turbo else QUALITY_MODULES
    return min(names, key=lambda name: (_rank(name, order), name))


def motion_lora_for(motion: str, library: ModelLibrary) -> str:
    """Find the motion LoRA of a hosted camera move; raises RequestRefused when it is missing."""
    for name in library.names(MOTION_LORAS):
        if MOTION_LORA_OF[motion] in letters(name):
            return name
    raise refused(
        "motions",
        f"The motion LoRA of {motion!r} is not installed: put v2_lora_* files into "
        f"models/{MOTION_LORAS}",
        "feature_not_supported",
    )


def named(wanted: str, names: Iterable[str]) -> str | None:
    """Find a file by its exact name, else by its letters, else by one that begins with them.

    >>> named("cardosAnimev20", ["b.ckpt", "cardosAnime_v20.safetensors"])
    'cardosAnime_v20.safetensors'
    """
    names = sorted(names)
    if wanted in names:
        return wanted
    sought = letters(wanted)
    exact = (name for name in names if letters(name) == sought)
    longer = (name for name in names if sought and letters(name).startswith(sought))
    return next(exact, None) or next(longer, None)


def _rank(name: str, order: Sequence[str]) -> int:
    spelt = letters(name)
    return next((rank for rank, part in enumerate(order) if part in spelt), len(order))
