"""From what a request names to a job whose files are all here."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline import AnimateDiffV2VError
from ...pipeline.presets import PRESETS, Defaults
from ...pipeline.video.info import VideoInfo
from ...pipeline.video.probe import probe_video
from ...pipeline.video.selection import FrameSelection, exact_rate, grid_count
from ..net.fetching import FetchedFile, FetchLimits, InputRefused, fetch, is_data_uri
from ..queue.executor import (
    CHECKPOINTS,
    MOTION_MODULES,
    ApiJob,
    Executor,
    ModelLibrary,
    without_folders,
)
from ..queue.store import StoredRequest
from ..settings import Settings
from ..storage.data_folder import INPUT_NAME, file_size, own_files
from ..storage.disk import StorageFull, full_disk_refused, is_disk_full
from ..wire.problems import Detail, RequestRefused, refused, unprocessable
from ..wire.schemas import ENDPOINTS, AnimateDiffV2VInput, Endpoint, FastInput, RestyleInput
from .loras import LoraShelf
from .model_choice import (
    checkpoint_for,
    default_checkpoint,
    letters,
    motion_lora_for,
    motion_module_for,
)
from .own_files import OwnFiles
from .room import Room

SUPPORTED_FORMATS = ["mp4", "mov", "webm", "mkv", "avi", "gif"]
# How much is made new by the endpoints that let nobody choose.
DENOISE = 0.7


@dataclass(frozen=True)
class Inputs:
    """Brings in what requests name."""

    settings: Settings
    executor: Executor
    library: ModelLibrary
    own_files: OwnFiles
    loras: LoraShelf
    room: Room

    async def unpack(self, data_uri: str | memoryview) -> str:
        """Write the video of a data URI into the input folder and give its name there.

        Raises RequestRefused when it is none, or too large.
        """
        return (await self._fetched(data_uri)).path.name

    async def prepare(self, request: StoredRequest) -> ApiJob:
        """Bring in the video and the LoRAs of a request and look its models up.

        Raises RequestRefused or AnimateDiffV2VError when something of it will not do.
        """
        endpoint = ENDPOINTS[request.endpoint_id]
        asked = endpoint.input.model_validate(request.input)
        chosen = request.input.get("models")
        choice = await asyncio.to_thread(self._models, endpoint, asked, chosen)
        loras = await self._lora_names(asked)
        video = await self._video(request, asked)
        try:
            await asyncio.to_thread(self._check_video, video, asked)
            return ApiJob(
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
            # What came within the request has no other copy: a server that stops here needs it
            # again, and the request's end removes it.
            if request.video_file is None:
                with suppress(OSError):  # the next start removes it
                    video.unlink(missing_ok=True)
            raise

    def sweep(self, unfinished: Iterable[StoredRequest]) -> None:
        """Remove the videos that an earlier process brought in and nobody waits for any more.

        Only files under names of our own: in ComfyUI's input folder people keep theirs.
        """
        wanted = {each.video_file for each in unfinished if not each.is_cancelled}
        for path in own_files(self.executor.input_folder, INPUT_NAME):
            if path.name not in wanted:
                with suppress(OSError):  # another start removes it
                    path.unlink(missing_ok=True)

    def checked(self, endpoint: Endpoint, asked: RestyleInput, *, owner: str) -> dict[str, str]:
        """Give the models that a request is run with, by kind.

        Refuses what is known to fail before anything is fetched: models that are not here, and
        results of other keys.
        """
        try:
            self.own_files.find(asked.video_url, owner=owner)
        except InputRefused as error:
            raise _input_refused(error, "video_url") from error
        choice = self._models(endpoint, asked)
        return {kind: choice[kind] for kind in ("checkpoint", "motion_module")}

    # --- models --------------------------------------------------------------------------------

    def _models(
        self,
        endpoint: Endpoint,
        asked: RestyleInput,
        chosen: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Look the models of a request up, or take those that were chosen for it before."""
        if chosen is not None:
            checkpoint, module = chosen["checkpoint"], chosen["motion_module"]
            self._check_there(CHECKPOINTS, checkpoint)
            self._check_there(MOTION_MODULES, module)
        else:
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

    def _check_there(self, folder: str, name: str) -> None:
        if name not in self.library.names(folder):
            raise AnimateDiffV2VError(
                f"{name} was taken out of models/{folder} while the request waited."
            )

    async def _lora_names(self, asked: RestyleInput) -> tuple[tuple[str, float], ...]:
        entries = asked.loras if isinstance(asked, AnimateDiffV2VInput) else []
        names = []
        for index, entry in enumerate(entries):
            try:
                with full_disk_refused():
                    names.append((await self.loras.name_of(entry.path), entry.scale))
            except InputRefused as error:
                if is_disk_full(error):
                    raise StorageFull from error
                raise _input_refused(error, "loras", index, "path") from error
        return tuple(names)

    # --- the video -----------------------------------------------------------------------------

    async def _video(self, request: StoredRequest, asked: RestyleInput) -> Path:
        folder = self.executor.input_folder
        if request.video_file is not None:
            return folder / request.video_file
        try:
            own = await asyncio.to_thread(self.own_files.find, asked.video_url, owner=request.owner)
        except InputRefused as error:
            raise _input_refused(error, "video_url") from error
        if own is None:
            return (await self._fetched(asked.video_url)).path
        target = folder / f"{request.id}.mp4"  # whatever it is: the reader goes by the content
        size = min(await asyncio.to_thread(file_size, own), self.room.most_bytes)
        async with self.room.granted(size, least=size):
            with full_disk_refused():
                await asyncio.to_thread(_link_or_copy, own, target)
        return target

    async def _fetched(self, url: str | memoryview) -> FetchedFile:
        settings = self.settings
        most = min(settings.max_video_bytes, self.room.most_bytes)
        # What is written in letters is no longer than they are.
        wanted = min(most, len(url)) if is_data_uri(url) else most
        try:
            async with self.room.granted(wanted) as max_bytes:
                limits = FetchLimits(
                    max_bytes=max_bytes,
                    timeout_seconds=settings.fetch_seconds,
                    max_redirects=settings.fetch_redirects,
                )
                with full_disk_refused():
                    return await fetch(url, self.executor.input_folder, limits=limits)
        except InputRefused as error:
            if is_disk_full(error):
                raise StorageFull from error
            raise _input_refused(error, "video_url") from error

    def _check_video(self, path: Path, asked: RestyleInput) -> None:
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
        self._check_length(info, asked)

    def _check_length(self, info: VideoInfo, asked: RestyleInput) -> None:
        """Refuse more frames, or more seconds of the video, than one request may ask for."""
        most, longest = self.settings.max_frames, self.settings.max_seconds
        if most is None and longest is None:
            return
        selection = _frames(asked)
        span = selection.span_seconds(info.duration)
        if span is None:
            raise refused(
                "video_url",
                "How long the video lasts cannot be told without decoding it, and the length of "
                "a request is limited here: put it into an mp4",
                "unsupported_video_format",
                supported_formats=SUPPORTED_FORMATS,
            )
        if longest is not None and span > longest:
            raise refused(
                "video_url",
                f"The request restyles {float(span):.1f} seconds of video; the most is {longest:g}",
                "video_duration_too_long",
                max_duration=longest,
                provided_duration=float(span),
            )
        rate = selection.grid_rate(info.frame_rate)
        count = selection.kept_count(grid_count(span, source_rate=info.frame_rate, rate=rate))
        if most is not None and count > most:
            raise refused(
                "video_url",
                f"The request makes {count} frames; the most is {most}: send a shorter video, or "
                f"{_fewer(asked)}",
                "video_duration_too_long",
                max_frames=most,
                provided_frames=count,
            )


def _method(motion_module: str, *, is_turbo: bool) -> Defaults:
    """Sampler and scheduler that suit an endpoint and its motion module."""
    if not is_turbo:
        return PRESETS["quality"]
    return PRESETS["lightning" if "lightning" in letters(motion_module) else "turbo"]


def _frames(asked: RestyleInput) -> FrameSelection:
    wanted = _selection(asked)
    return FrameSelection(
        select_every_nth_frame=wanted.get("select_every_nth_frame", 1),
        force_rate=exact_rate(wanted.get("force_rate", 0)),
        duration_seconds=wanted.get("duration_seconds", 0),
    )


def _fewer(asked: RestyleInput) -> str:
    return "fewer fps" if isinstance(asked, FastInput) else "a higher select_every_nth_frame"


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
