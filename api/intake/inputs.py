"""The fetching of a request's files, and the choice of its models."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline import AnimateDiffV2VError
from ...pipeline.curve import Strength
from ...pipeline.presets import PRESETS, Defaults
from ..net.fetching import FetchedFile, FetchLimits, InputRefused, fetch, is_data_uri
from ..queue.executor import (
    CHECKPOINTS,
    MOTION_MODULES,
    ApiJob,
    Executor,
    ModelLibrary,
)
from ..queue.records import StoredRequest
from ..settings import Settings
from ..storage.data_folder import INPUT_NAME, file_size, own_files
from ..storage.disk import StorageFull, full_disk_refused, is_disk_full
from ..wire.endpoints import ENDPOINTS, Endpoint
from ..wire.problems import Detail, RequestRefused, unprocessable
from ..wire.schemas import AnimateDiffV2VInput, FastInput, RestyleInput
from .loras import LoraShelf
from .model_choice import (
    checkpoint_for,
    default_checkpoint,
    letters,
    motion_lora_for,
    motion_module_for,
    sparsectrl_for,
)
from .own_files import OwnFiles
from .room import Room
from .video_checks import check_keyframe, check_video, selection


@dataclass(frozen=True)
class Inputs:
    """Fetches the files that requests refer to, and chooses their models."""

    settings: Settings
    executor: Executor
    library: ModelLibrary
    own_files: OwnFiles
    loras: LoraShelf
    room: Room

    async def unpack(self, data_uri: str | memoryview) -> str:
        """Write the video of a data URI into the input folder and return its name there.

        Raises RequestRefused when the URI is malformed or the video too large.
        """
        return (await self._fetched(data_uri)).path.name

    async def prepare(self, request: StoredRequest) -> ApiJob:
        """Fetch the video and LoRAs of a request, choose its models, and return the job.

        Raises RequestRefused or AnimateDiffV2VError when part of the input cannot be used.
        """
        endpoint = ENDPOINTS[request.endpoint_id]
        asked = endpoint.input.model_validate(request.input)
        chosen = request.input.get("models")
        choice = await asyncio.to_thread(self._models, endpoint, asked, chosen)
        loras = await self._lora_names(asked)
        video = await self._video(request, asked)
        keyframes: list[tuple[Path, int]] = []
        try:
            async for each in self._keyframes(request, asked):
                keyframes.append(each)
                await asyncio.to_thread(check_keyframe, each[0], len(keyframes) - 1)
            await asyncio.to_thread(check_video, video, asked, self.settings)
            return ApiJob(
                request_id=request.id,
                video=video,
                prompt=asked.prompt,
                negative_prompt=asked.negative_prompt,
                steps=asked.num_inference_steps,
                guidance_scale=asked.guidance_scale,
                seed=_seed(asked),
                loras=loras,
                match_source=asked.match_source,
                restore_frames=asked.restore_frames,
                keyframes=tuple(keyframes),
                sparsectrl=sparsectrl_for(self.library) if keyframes else "",
                keyframe_strength=asked.keyframe_strength,
                context_memory=asked.context_memory,
                context_memory_end=asked.context_memory_end,
                refine=asked.refine,
                refine_denoise=asked.refine_denoise,
                refine_upscale=asked.refine_upscale,
                is_low_priority=request.is_low_priority,
                sequence=request.sequence,
                preset=asked.preset,
                **choice,
                **selection(asked),
            )
        except BaseException:
            for picture, _ in keyframes:
                with suppress(OSError):
                    picture.unlink(missing_ok=True)
            # Keep a video that was sent within the request: there is no other copy, and if the
            # server stops now, it is needed again. It is removed when the request ends.
            if request.video_file is None:
                with suppress(OSError):  # the next start removes it
                    video.unlink(missing_ok=True)
            raise

    def sweep(self, unfinished: Iterable[StoredRequest]) -> None:
        """Remove the videos that an earlier process fetched for requests that have ended.

        Only files with this service's names are removed: ComfyUI's input folder holds other files.
        """
        wanted = {each.video_file for each in unfinished if not each.is_cancelled}
        for path in own_files(self.executor.input_folder, INPUT_NAME):
            if path.name not in wanted:
                with suppress(OSError):  # a later start removes it
                    path.unlink(missing_ok=True)

    def checked(self, endpoint: Endpoint, asked: RestyleInput, *, owner: str) -> dict[str, str]:
        """Return the checkpoint and motion module that a request runs with, by kind.

        Raises RequestRefused or AnimateDiffV2VError for what can be refused before anything is
        fetched: models that are not installed, and outputs that belong to another key.
        """
        try:
            self.own_files.find(asked.video_url, owner=owner)
        except InputRefused as error:
            raise _input_refused(error, "video_url") from error
        choice = self._models(endpoint, asked)
        if asked.keyframes:
            sparsectrl_for(self.library)
        return {kind: choice[kind] for kind in ("checkpoint", "motion_module")}

    # --- models ----------------------------------------------------------------------------------

    def _models(
        self,
        endpoint: Endpoint,
        asked: RestyleInput,
        chosen: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Choose the models of a request, or use those `chosen` when it was submitted."""
        if chosen is not None:
            checkpoint, module = chosen["checkpoint"], chosen["motion_module"]
            self._check_installed(CHECKPOINTS, checkpoint)
            self._check_installed(MOTION_MODULES, module)
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

    def _check_installed(self, folder: str, name: str) -> None:
        if name not in self.library.names(folder):
            raise AnimateDiffV2VError(
                f"{name} was removed from models/{folder} while the request waited."
            )

    async def _lora_names(self, asked: RestyleInput) -> tuple[tuple[str, Strength], ...]:
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

    # --- the video -------------------------------------------------------------------------------

    async def _video(self, request: StoredRequest, asked: RestyleInput) -> Path:
        if request.video_file is not None:
            return self.executor.input_folder / request.video_file
        # The reader probes the content.
        own_name = f"{request.id}.mp4"
        return await self._file(asked.video_url, own_name, ("video_url",), owner=request.owner)

    async def _keyframes(
        self, request: StoredRequest, asked: RestyleInput
    ) -> AsyncIterator[tuple[Path, int]]:
        """Yield the picture of each keyframe, and its frame."""
        for index, each in enumerate(asked.keyframes):
            loc = ("keyframes", index, "image_url")
            name = f"{secrets.token_hex(16)}.png"
            yield await self._file(each.image_url, name, loc, owner=request.owner), each.frame

    async def _file(
        self, url: str, own_name: str, loc: tuple[str | int, ...], *, owner: str
    ) -> Path:
        """Return a file of a URL in the input folder; one of this server's is named `own_name`."""
        try:
            own = await asyncio.to_thread(self.own_files.find, url, owner=owner)
        except InputRefused as error:
            raise _input_refused(error, *loc) from error
        if own is None:
            return (await self._fetched(url, loc)).path
        target = self.executor.input_folder / own_name
        size = min(await asyncio.to_thread(file_size, own), self.room.most_bytes)
        async with self.room.granted(size, least=size):
            with full_disk_refused():
                await asyncio.to_thread(_link_or_copy, own, target)
        return target

    async def _fetched(
        self, url: str | memoryview, loc: tuple[str | int, ...] = ("video_url",)
    ) -> FetchedFile:
        settings = self.settings
        most = min(settings.max_video_bytes, self.room.most_bytes)
        # A data URI is longer than its file.
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
            raise _input_refused(error, *loc) from error


def _method(motion_module: str, *, is_turbo: bool) -> Defaults:
    """Return the preset with the sampler and scheduler for an endpoint and its motion module."""
    if not is_turbo:
        return PRESETS["quality"]
    return PRESETS["lightning" if "lightning" in letters(motion_module) else "turbo"]


def _seed(asked: RestyleInput) -> int:
    seed = asked.usable_seed
    assert seed is not None, "the seed is drawn when the request is submitted"
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
