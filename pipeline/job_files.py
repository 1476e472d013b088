"""Checks before a job begins, while nothing is loaded yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import AnimateDiffV2VError
from .files.kinds import LORA_KINDS, MOTION_LORA_KINDS, Kind
from .request import ModelFiles, Request


def check_files(request: Request, files: ModelFiles | None = None) -> None:
    """Raise AnimateDiffV2VError, naming it, for the first file that is missing or unreadable."""
    for name, path in _named_files(request, files):
        if isinstance(path, Path):
            _check_is_there(name, path)
    folder = files.embeddings if files else None
    if folder is not None and not folder.is_dir():
        wrong = f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}"
        raise AnimateDiffV2VError(f"embeddings: {wrong}; give one that contains embeddings.")


def check_kinds(request: Request, files: ModelFiles) -> None:
    """Raise AnimateDiffV2VError for the first file that is not of the kind its field expects.

    Only headers are read, so that the answer comes before PyTorch and the networks are loaded.
    """
    # The command's help and its option errors do not need these modules.
    from .files.recognition import check_kind  # noqa: PLC0415
    from .video.probe import check_is_video  # noqa: PLC0415

    for name, path, wanted in _wanted_kinds(request, files):
        try:
            check_kind(path, wanted=wanted)
        except AnimateDiffV2VError as error:
            raise AnimateDiffV2VError(f"{name}: {error}") from error
    try:
        check_is_video(request.input)
    except AnimateDiffV2VError as error:
        raise AnimateDiffV2VError(f"input: {error}") from error


def _wanted_kinds(
    request: Request, files: ModelFiles
) -> Iterable[tuple[str, Path, tuple[Kind, ...]]]:
    yield from _wanted_model_kinds(files)
    for control in request.controls:
        yield "network", control.network, ("ControlNet",)
    for keyframes in request.keyframes:
        yield "keyframes", keyframes.network, ("SparseCtrl",)
    for style in request.styles:
        yield "adapter", style.adapter, ("IP-Adapter",)
        yield "vision_model", style.vision_model, ("vision model",)


def _wanted_model_kinds(files: ModelFiles) -> Iterable[tuple[str, Path, tuple[Kind, ...]]]:
    yield "checkpoint", files.checkpoint, ("checkpoint",)
    if files.motion_module is not None:
        yield "motion_module", files.motion_module, ("motion module",)
    if files.vae is not None:
        yield "vae", files.vae, ("VAE", "checkpoint")
    if files.text_encoder is not None:
        yield "text_encoder", files.text_encoder, ("text encoder", "checkpoint")
    for entry in files.loras:
        if entry.model_strength or entry.clip_strength:  # else the file is not read
            yield "loras", entry.path, LORA_KINDS
    for entry in files.motion_loras:
        if entry.model_strength:
            yield "motion_loras", entry.path, MOTION_LORA_KINDS


def check_model_files(files: ModelFiles) -> None:
    """Raise AnimateDiffV2VError for the first model file that is missing or of another kind.

    As the checks above, for jobs that share model files.
    """
    from .files.recognition import check_kind  # noqa: PLC0415 - see check_kinds

    for name, path in _named_model_files(files):
        if path is not None:
            _check_is_there(name, path)
    for name, path, wanted in _wanted_model_kinds(files):
        try:
            check_kind(path, wanted=wanted)
        except AnimateDiffV2VError as error:
            raise AnimateDiffV2VError(f"{name}: {error}") from error


def check_memory_bound(request: Request, *, has_bound: bool) -> None:
    """Raise AnimateDiffV2VError if memory is limited and the job's use of it cannot be counted."""
    if not has_bound:
        return
    if request.styles:
        raise AnimateDiffV2VError(
            "styles are given together with max_memory_gb, but what IP-Adapters and their vision "
            "models take is not counted: leave out styles, or max_memory_gb."
        )
    if request.sampling.speed.compile:
        raise AnimateDiffV2VError(
            "compile is on and memory has a limit (max_memory_gb), but the memory of compiled "
            "layers cannot be counted in advance: switch compile off, or leave out the limit."
        )


def check_devices(request: Request, *, are_several: bool) -> None:
    """Raise AnimateDiffV2VError if several devices share a job that only one can do."""
    if are_several and request.sampling.speed.compile:
        raise AnimateDiffV2VError(
            "compile is on and several devices are given, but compiled layers run on one only: "
            "switch compile off, or give a single device."
        )


def _check_is_there(name: str, path: Path) -> None:
    """Raise AnimateDiffV2VError unless there is a file of this name, and it can be accessed."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AnimateDiffV2VError(f"{name}: there is no file {path}; check the path.") from None
    except OSError as error:
        raise AnimateDiffV2VError(f"{name}: {path} cannot be read: {error.strerror}.") from error


def _named_files(
    request: Request, files: ModelFiles | None
) -> Iterable[tuple[str, Path | str | None]]:
    """Yield the files of a job, each with the name of its field.

    Values that are not paths, such as the names of preprocessors, are not files.
    """
    yield "input", request.input
    for control in request.controls:
        yield "control source", control.source
        yield "control mask", control.mask
    for keyframes in request.keyframes:
        yield "keyframes", keyframes.network
        yield from (("keyframe", picture) for picture in keyframes.pictures)
        yield "keyframe mask", keyframes.mask
    yield "source_mask", request.source_mask
    yield from (("images", image) for style in request.styles for image in style.images)
    yield from (("network", control.network) for control in request.controls)
    for style in request.styles:
        yield "adapter", style.adapter
        yield "vision_model", style.vision_model
    if files is not None:
        yield from _named_model_files(files)


def _named_model_files(files: ModelFiles) -> Iterable[tuple[str, Path | None]]:
    for name in ("checkpoint", "motion_module", "vae", "text_encoder"):
        yield name, getattr(files, name)
    yield from (("loras", lora.path) for lora in files.loras)
    yield from (("motion_loras", lora.path) for lora in files.motion_loras)
