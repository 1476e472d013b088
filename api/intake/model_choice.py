"""The choice of installed model files for the hosted models' names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from ...pipeline import AnimateDiffV2VError
from ..queue.executor import CHECKPOINTS, CONTROLNETS, MOTION_LORAS, MOTION_MODULES, ModelLibrary
from ..settings import Settings
from ..switch import FILE_NAME
from ..wire.problems import refused

# The most suitable comes first; compared by letters and digits.
QUALITY_MODULES = ("v3sd15mm", "mmsdv15v2", "mmsdv15", "mmsdv14")
TURBO_MODULES = ("animatelcm", "lcm", "lightning4step", "lightning")
# From a hosted motion to part of the file name of its motion LoRA.
MOTION_LORA_OF = {
    "zoom-out": "zoomout",
    "zoom-in": "zoomin",
    "pan-left": "panleft",
    "pan-right": "panright",
    "tilt-up": "tiltup",
    "tilt-down": "tiltdown",
}


def letters(name: str) -> str:
    """Return the letters and digits of a file's name without folder and suffix.

    >>> letters("sd15/cardosAnime_v20.safetensors")
    'cardosanimev20'
    """
    stem = PurePosixPath(name.replace("\\", "/")).name
    for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin"):
        stem = stem.removesuffix(suffix)
    return "".join(character for character in stem.lower() if character.isalnum())


def checkpoint_for(base_model: str, library: ModelLibrary, settings: Settings) -> str:
    """Return the checkpoint that a hosted base_model refers to.

    Raises RequestRefused (one_of) when it matches no file, or more than one.
    """
    names = library.names(CHECKPOINTS)
    wanted = settings.base_models.get(base_model, base_model)
    found = named(wanted, names)
    if len(found) == 1:
        return found[0]
    if found:
        sentence = (
            f"base_model {base_model!r} can mean {' or '.join(found)}: send one of them, or map "
            f"the name to one under base_models in {FILE_NAME}"
        )
    else:
        sentence = (
            f"base_model {base_model!r} is not installed: put its file into models/{CHECKPOINTS}, "
            f"or map it to another checkpoint under base_models in {FILE_NAME}"
        )
    choices = sorted({*settings.base_models, *names})
    raise refused("base_model", sentence, "one_of", expected=choices)


def default_checkpoint(library: ModelLibrary, settings: Settings) -> str:
    """Return the checkpoint for the endpoints without base_model.

    Raises AnimateDiffV2VError when no checkpoint is installed.
    """
    names = library.names(CHECKPOINTS)
    wanted = settings.base_models.get(settings.default_base_model, settings.default_base_model)
    found = [*named(wanted, names), *names]
    if not found:
        raise AnimateDiffV2VError(f"No checkpoint is installed in models/{CHECKPOINTS}.")
    return found[0]


def motion_module_for(library: ModelLibrary, settings: Settings, *, is_turbo: bool) -> str:
    """Return an endpoint's motion module: the one in the settings, or the most suitable one.

    Raises AnimateDiffV2VError when none is installed, or the one in the settings is missing.
    """
    names = library.names(MOTION_MODULES)
    setting = "turbo_motion_module" if is_turbo else "motion_module"
    chosen: str = getattr(settings, setting)
    if chosen:
        found = named(chosen, names)
        if len(found) != 1:
            reason = f"can mean {' or '.join(found)}" if found else "is not installed"
            raise AnimateDiffV2VError(
                f"The {setting} of {FILE_NAME}, {chosen!r} in models/{MOTION_MODULES}, {reason}."
            )
        return found[0]
    if not names:
        raise AnimateDiffV2VError(f"No motion module is installed in models/{MOTION_MODULES}.")
    order = [*TURBO_MODULES, *QUALITY_MODULES] if is_turbo else QUALITY_MODULES
    return min(names, key=lambda name: (_rank(name, order), name))


def shortcomings(library: ModelLibrary, settings: Settings) -> Iterator[str]:
    """Yield the reasons why requests would be refused with the current files and settings."""
    choices: list[Callable[[], str]] = [
        lambda: default_checkpoint(library, settings),
        lambda: motion_module_for(library, settings, is_turbo=False),
        lambda: motion_module_for(library, settings, is_turbo=True),
    ]
    for choose in choices:
        try:
            choose()
        except AnimateDiffV2VError as error:
            yield str(error)
    for base_model, file_name in settings.base_models.items():
        if len(named(file_name, library.names(CHECKPOINTS))) != 1:
            yield (
                f"base_models of {FILE_NAME} maps {base_model!r} to {file_name!r}, which does not "
                f"match exactly one file of models/{CHECKPOINTS}."
            )


def sparsectrl_for(library: ModelLibrary) -> str:
    """Return the SparseCtrl model for keyframes; raises RequestRefused if it is missing."""
    names = library.names(CONTROLNETS)
    found = [name for name in names if "sparsectrl" in letters(name)]
    if not found:
        raise refused(
            "keyframes",
            f"keyframes need a SparseCtrl model: put v3_sd15_sparsectrl_rgb.ckpt into "
            f"models/{CONTROLNETS}",
            "value_error",
        )
    return min(found, key=lambda name: ("rgb" not in letters(name), name))


def motion_lora_for(motion: str, library: ModelLibrary) -> str:
    """Return the motion LoRA of a hosted camera move; raises RequestRefused if it is missing."""
    for name in library.names(MOTION_LORAS):
        if MOTION_LORA_OF[motion] in letters(name):
            return name
    raise refused(
        "motions",
        f"The motion LoRA of {motion!r} is not installed: put v2_lora_* files into "
        f"models/{MOTION_LORAS}",
        "feature_not_supported",
    )


def named(wanted: str, names: Iterable[str]) -> list[str]:
    """Return the file with exactly that name, or else all files with its letters and digits.

    >>> named("cardosAnimev20", ["b.ckpt", "cardosAnime_v20.safetensors"])
    ['cardosAnime_v20.safetensors']
    """
    names = sorted(names)
    if wanted in names:
        return [wanted]
    sought = letters(wanted)
    return [name for name in names if sought and letters(name) == sought]


def is_distilled(motion_module: str) -> bool:
    """Return whether a motion module's name says that it is distilled for few steps."""
    return _rank(motion_module, TURBO_MODULES) < len(TURBO_MODULES)


def _rank(name: str, order: Sequence[str]) -> int:
    spelt = letters(name)
    return next((rank for rank, part in enumerate(order) if part in spelt), len(order))
