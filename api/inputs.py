"""From what a request names to a job whose files are all here."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..pipeline import AnimateDiffV2VError
from ..pipeline.presets import PRESETS, Defaults
from ..pipeline.video.probe import probe_video
from .executor import Executor, Job, ModelLibrary, without_folders
from .fetching import FetchedFile, FetchLimits, InputRefused, fetch
from .loras import LoraShelf
from .model_choice import (
    checkpoint_for,
    default_checkpoint,
    letters,
    motion_lora_for,
    motion_module_for,
)
from .problems import Detail, RequestRefused, refused, unprocessable
from .schemas import ENDPOINTS, AnimateDiffV2VInput, Endpoint, FastInput, RestyleInput
from .settings import Settings
from .store import StoredRequest
from .uploads import UploadStore

SUPPORTED_FORMATS = ["mp4", "mov", "webm", "mkv", "avi", "gif"]
# How much is made new by the endpoints that let nobody choose.
DENOISE = 0.7


@dataclass(frozen=True)
class Inputs:
    """Brings in what requests name."""

    settings: Settings
    executor: Executor
    library: ModelLibrary
    uploads: UploadStore
    loras: LoraShelf

    async def unpack(self, data_uri: str) -> str:
        """Write the video of a data URI into the input folder and give its name there.

        Raises RequestRefused when it is none, or too large.
        """
        return (await self._fetched(data_uri)).path.name

    async def prepare(self, request: StoredRequest) -> Job:
        """Bring in the video and the LoRAs of a request and look its models up.

        Raises RequestRefused or AnimateDiffV2VError when something of it will not do.
        """
        endpoint = ENDPOINTS[request.endpoint_id]
        asked = endpoint.input.model_validate(request.input)
        choice = await asyncio.to_thread(self._models, endpoint, asked)
        loras = await self._lora_names(asked)
        video = await self._video(request, asked)
        try:
            await asyncio.to_thread(self._check_video, video)
            return Job(
                request_id=request.id,
                video=video,
                prompt=asked.prompt,
                negative_prompt=asked.negative_prompt,
                steps=asked.num_inference_steps,
                guidance_scale=asked.guidance_scale,
                seed=_seed(asked),
                loras=loras,
                is_low_priority=request.is_low_priority,
                sequence=request.sequence,
                **choice,
                **_selection(asked),
            )
        except BaseException:
            with suppress(OSError):  # the next start removes it
                video.unlink(missing_ok=True)
            raise

    def sweep(self, unfinished: Iterable[StoredRequest]) -> None:
        """Remove the videos that an earlier process brought in and nobody waits for any more."""
        waiting = (each for each in unfinished if each.state == "queued" and not each.is_cancelled)
        wanted = {each.video_file for each in waiting}
        folder = self.executor.input_folder
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def checked(self, endpoint: Endpoint, asked: RestyleInput) -> None:
        """Refuse what is known to fail before anything is fetched: models that are not here."""
        self._models(endpoint, asked)

    # --- models --------------------------------------------------------------------------------

    def _models(self, endpoint: Endpoint, asked: RestyleInput) -> dict[str, Any]:
        module = motion_module_for(self.library, self.settings, is_turbo=endpoint.is_turbo)
        if isinstance(asked, AnimateDiffV2VInput):
            checkpoint = checkpoint_for(asked.base_model, self.library, self.settings)
        else:
            checkpoint = default_checkpoint(self.library, self.settings)
        motions = asked.motions if isinstance(asked, FastInput) else []
        method = _method(module, is_turbo=endpoint.is_turbo)
        return {
            "checkpoint": checkpoint,
            "motion_module": module,
            "motion_loras": tuple(
                (motion_lora_for(motion, self.library), 1.0) for motion in dict.fromkeys(motions)
            ),
            "sampler": method.sampler,
            "scheduler": method.scheduler,
        }

    async def _lora_names(self, asked: RestyleInput) -> tuple[tuple[str, float], ...]:
        entries = asked.loras if isinstance(asked, AnimateDiffV2VInput) else []
        names = []
        for index, entry in enumerate(entries):
            try:
                names.append((await self.loras.name_of(entry.path), entry.scale))
            except InputRefused as error:
                raise _input_refused(error, "loras", index, "path") from error
        return tuple(names)

    # --- the video -----------------------------------------------------------------------------

    async def _video(self, request: StoredRequest, asked: RestyleInput) -> Path:
        folder = self.executor.input_folder
        if request.video_file is not None:
            return folder / request.video_file
        upload = self.uploads.resolve(asked.video_url)
        if upload is None:
            return (await self._fetched(asked.video_url)).path
        target = folder / f"{request.id}.mp4"  # whatever it is: the reader goes by the content
        await asyncio.to_thread(_link_or_copy, upload, target)
        return target

    async def _fetched(self, url: str) -> FetchedFile:
        settings = self.settings
        limits = FetchLimits(
            max_bytes=settings.max_video_bytes,
            timeout_seconds=settings.fetch_seconds,
            max_redirects=settings.fetch_redirects,
        )
        try:
            return await fetch(url, self.executor.input_folder, limits=limits)
        except InputRefused as error:
            raise _input_refused(error, "video_url") from error

    def _check_video(self, path: Path) -> None:
        try:
            info = probe_video(path)
        except AnimateDiffV2VError as error:
            reason = without_folders(str(error), [path.parent])
            raise refused(
                "video_url",
                f"The file is no video that can be read: {reason}",
                "unsupported_video_format",
                supported_formats=SUPPORTED_FORMATS,
            ) from error
        longest, largest = self.settings.max_video_seconds, self.settings.max_video_pixels
        if info.duration_seconds > longest:
            raise refused(
                "video_url",
                f"The video lasts {info.duration_seconds:.1f} seconds; the most is {longest:g}",
                "video_duration_too_long",
                max_duration=longest,
                provided_duration=info.duration_seconds,
            )
        if info.stored_width * info.stored_height > largest:
            raise refused(
                "video_url",
                f"The video has {info.stored_width}x{info.stored_height} pixels; "
                f"the most is {largest} in all",
                "file_too_large",
                max_size=largest,
            )


def _method(motion_module: str, *, is_turbo: bool) -> Defaults:
    """Sampler and scheduler that suit an endpoint and its motion module."""
    if not is_turbo:
        return PRESETS["quality"]
    return PRESETS["lightning" if "lightning" in letters(motion_module) else "turbo"]


def _selection(asked: RestyleInput) -> dict[str, Any]:
    if isinstance(asked, FastInput):
        return {
            "denoise": asked.strength,
            "force_rate": asked.fps,
            "duration_seconds": asked.first_n_seconds,
        }
    assert isinstance(asked, AnimateDiffV2VInput)
    return {"denoise": DENOISE, "select_every_nth_frame": asked.select_every_nth_frame}


def _seed(asked: RestyleInput) -> int:
    seed = asked.usable_seed
    assert seed is not None, "drawn when the request was submitted"
    return seed


def _input_refused(error: InputRefused, *loc: str | int) -> RequestRefused:
    return RequestRefused(
        unprocessable(Detail(["body", *loc], str(error), error.type, dict(error.ctx)))
    )


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # on another disk, or one without links
        shutil.copyfile(source, target)
