"""The work on a unit: restyle, join or copy. Networks stay loaded for the next unit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.job_video import open_reader
from ..pipeline.models import Models
from ..pipeline.progress import IsCancelled, Phase, never
from ..pipeline.request import ModelFiles
from ..pipeline.sampling.kept_calls import KeptCalls
from ..pipeline.video import VideoReader
from ..pipeline.video_to_video import load_files, video_to_video
from .digests import content_digest, stamp_of
from .join import copy_source, join_parts
from .plan import SOURCE_SIDE, marked
from .run import Result
from .unit import FilesChanged, Unit

# Frames of the next unit that wait in memory: 50 MB at 512x512.
FRAMES_AHEAD = 64
_LOADED_ELSEWHERE = (
    "This batch has style images that ComfyUI has loaded: go on with it there, by running its "
    "graph again."
)


class Renderer:
    """Renders units one after another on one device."""

    def __init__(self, device: str) -> None:
        """Render on a torch device; "auto" is that of each unit's request."""
        self._device = device
        self._models: tuple[Any, Models] | None = None
        self._readers: dict[str, Future[VideoReader]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)

    def prepare(self, unit: Unit) -> None:
        """Begin to read a unit's frames while another unit is rendered; any thread may call it."""
        if unit.kind in ("clip", "part"):
            self._readers[unit.name] = self._thread.submit(_reading, unit)

    def render(
        self,
        unit: Unit,
        *,
        progress: Callable[[float, str], None] = lambda _fraction, _message: None,
        is_cancelled: IsCancelled = never,
    ) -> Result:
        """Write a unit's result.

        Args:
            unit: The unit.
            progress: Called with the share that is done, and what is being done.
            is_cancelled: Asked often; True stops it.

        Raises:
            FilesChanged: a file that it reads is no longer as planned.
            AnimateDiffV2VError: it cannot be done.
            Cancelled: `is_cancelled` returned True.
        """
        return rendered(
            unit,
            lambda: self._restyle(unit, progress, is_cancelled),
            device=self._joining_device(unit.files),
            is_cancelled=is_cancelled,
        )

    def _joining_device(self, files: ModelFiles) -> str:
        """Return the device that makes the frames between those of parts."""
        if files.max_memory_gb is not None:  # what restoring takes is not counted
            return "cpu"
        own = next(iter(files.devices), files.device)
        return own if self._device == "auto" else self._device

    def _restyle(
        self, unit: Unit, progress: Callable[[float, str], None], is_cancelled: IsCancelled
    ) -> int:
        if unit.guides:
            raise AnimateDiffV2VError(_LOADED_ELSEWHERE)
        models = self._loaded(unit)
        kept_calls = _kept_calls(unit, models)
        result = video_to_video(
            unit.request,
            models,
            prepared=self._prepared(unit),
            max_ram_gb=unit.max_ram_gb,
            kept_calls=kept_calls,
            progress=lambda step: progress(step.fraction, step.message),
            is_cancelled=is_cancelled,
            before_phase=checking(unit),
        )
        kept_calls.remove()
        return result.frame_count

    def _loaded(self, unit: Unit) -> Models:
        speed = unit.request.sampling.speed
        key = (unit.models, speed.fp8_weights, speed.reduced_precision)
        if self._models is None or self._models[0] != key:
            self._models = None  # frees the memory first
            files = unit.files
            if self._device != "auto":
                files = replace(files, device=self._device, devices=())
            loaded = load_files(
                files,
                fp8_weights=speed.fp8_weights,
                reduced_precision=speed.reduced_precision,
            )
            check_unchanged(unit)  # what was loaded is what was planned
            self._models = (key, loaded)
        return self._models[1]

    def _prepared(self, unit: Unit) -> VideoReader | None:
        """Return the reader that was prepared for a unit, if any."""
        reading = self._readers.pop(unit.name, None)
        return None if reading is None else reading.result()


def _kept_calls(unit: Unit, models: Models) -> KeptCalls:
    """Return what a worker that was killed has kept of a unit, if it computes the same bits."""
    device, dtype = models.unet.device, models.unet.dtype
    if models.bound is not None:
        device = models.bound.device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    key = [unit.digest, torch.__version__, kind, str(dtype), torch.get_num_threads()]
    return KeptCalls(unit.target, name=unit.digest, key=json.dumps(key))


def rendered(
    unit: Unit, restyle: Callable[[], int], *, device: str, is_cancelled: IsCancelled
) -> Result:
    """Write a unit's result, and return what is noted of it.

    Args:
        unit: The unit.
        restyle: Writes the result of a unit that needs networks, and returns its frames.
        device: Where a join makes frames between those of the parts.
        is_cancelled: Asked often; True stops it.

    Raises:
        FilesChanged: a file that it reads is no longer as planned.
        AnimateDiffV2VError: it cannot be done.
        Cancelled: `is_cancelled` returned True.
    """
    check_unchanged(unit)
    unit.target.parent.mkdir(parents=True, exist_ok=True)
    if unit.target.is_dir() and marked(unit.target):
        shutil.rmtree(unit.target)  # pictures of an earlier plan
    if unit.kind == "join":
        frames = join_parts(
            unit.request, unit.parts, unit.spans, device=device, is_cancelled=is_cancelled
        )
    elif unit.kind == "source":
        frames = copy_source(unit.request, side=SOURCE_SIDE, is_cancelled=is_cancelled)
    else:
        frames = restyle()
    return Result(content_digest(unit.target), stamp_of(unit.target), frames)


def _reading(unit: Unit) -> VideoReader:
    reader = open_reader(unit.request)
    reader.read_ahead(FRAMES_AHEAD)
    return reader


def checking(unit: Unit) -> Callable[[Phase], None]:
    """Return a function for `before_phase` that checks the files of a unit when all are read."""

    def check(phase: Phase) -> None:
        if phase == "sample":  # all frames have been read
            check_unchanged(unit)

    return check


def check_unchanged(unit: Unit) -> None:
    """Raise FilesChanged, or AnimateDiffV2VError for a file that is gone."""
    for path, stamp in unit.stamps.items():
        if stamp_of(Path(path)) != stamp:
            raise FilesChanged(
                f"{path} has changed since the batch was planned: give the same command again to "
                "plan with the file as it is now; what is done with unchanged files stays."
            )
