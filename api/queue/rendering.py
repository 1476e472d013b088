"""The rendering of a job, in the process that holds the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from ...pipeline import (
    ContextOptions,
    FrameSelection,
    Guidance,
    LoraEntry,
    ModelFiles,
    Models,
    Request,
    SamplingSettings,
    load_files,
    video_to_video,
)
from ...pipeline.keyframe_files import KeyframeFiles
from ...pipeline.memory.devices import resolve_device
from ...pipeline.presets import PRESETS
from ...pipeline.progress import IsCancelled, stop_if
from ...pipeline.request import Dtype
from ...pipeline.video import exact_rate
from .executor import (
    CHECKPOINTS,
    CONTROLNETS,
    MOTION_LORAS,
    MOTION_MODULES,
    ApiJob,
    WorkerOptions,
    number_of,
)
from .local_executor import FORMAT

OnMessage = Callable[[str], None]


class Renderer:
    """Renders jobs one by one, keeping the networks of the last job loaded for the next one."""

    def __init__(self, options: WorkerOptions) -> None:
        """Check the options; raises AnimateDiffV2VError, for example when there is no such device.

        Nothing is loaded yet.
        """
        self._options = options
        self._loaded: tuple[tuple[object, ...], Models] | None = None
        self._no_files = ModelFiles(
            checkpoint=options.models,
            device=options.device,
            dtype=cast(Dtype, options.dtype),  # ModelFiles checks it
            max_memory_gb=options.max_memory_gb,
        )
        resolve_device(options.device)

    def render(
        self, job: ApiJob, output: Path, *, on_message: OnMessage, is_cancelled: IsCancelled
    ) -> dict[str, float]:
        """Write the restyled video of a job to `output` and return the seconds by phase.

        Raises AnimateDiffV2VError when files or values cannot be used, Cancelled when stopped.
        """
        stop_if(is_cancelled)
        models = self._networks(self._files(job), on_message)
        result = video_to_video(
            self._request(job, output),
            models,
            progress=lambda step: on_message(step.message),
            is_cancelled=is_cancelled,
        )
        return {name: round(seconds, 3) for name, seconds in asdict(result.timings).items()}

    def _networks(self, files: ModelFiles, on_message: OnMessage) -> Models:
        key = _identity(files)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees the memory before the next networks are loaded
            on_message(f"loading {files.checkpoint.name}")
            self._loaded = (key, load_files(files))
        return self._loaded[1]

    def _request(self, job: ApiJob, output: Path) -> Request:
        if not job.keyframes:
            return _request(job, output)
        pictures, frames = zip(*job.keyframes, strict=True)
        keyframes = KeyframeFiles(
            network=self._options.models / CONTROLNETS / job.sparsectrl,
            pictures=pictures,
            frames=frames,
            strength=job.keyframe_strength,
        )
        return _request(job, output, (keyframes,))

    def _files(self, job: ApiJob) -> ModelFiles:
        models = self._options.models
        embeddings = models / "embeddings"
        return replace(
            self._no_files,
            checkpoint=models / CHECKPOINTS / job.checkpoint,
            motion_module=models / MOTION_MODULES / job.motion_module,
            loras=tuple(
                # An absolute path stays as it is: models / "loras" / "/a/b" is "/a/b".
                LoraEntry(models / "loras" / name, scale, number_of(scale))
                for name, scale in job.loras
            ),
            motion_loras=tuple(
                LoraEntry(models / MOTION_LORAS / name, model_strength=scale)
                for name, scale in job.motion_loras
            ),
            embeddings=embeddings if embeddings.is_dir() else None,
        )


def _request(job: ApiJob, output: Path, keyframes: tuple[KeyframeFiles, ...] = ()) -> Request:
    return Request(
        input=job.video,
        output=output,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        sampling=SamplingSettings(
            seed=job.seed,
            steps=job.steps,
            guidance=Guidance(scale=job.guidance_scale),
            sampler=job.sampler,
            scheduler=job.scheduler,
            denoise=job.denoise,
            context=ContextOptions(memory=job.context_memory, memory_end=job.context_memory_end),
            speed=PRESETS[job.preset].speed,
        ),
        selection=FrameSelection(
            select_every_nth_frame=job.select_every_nth_frame,
            force_rate=exact_rate(job.force_rate),
            duration_seconds=job.duration_seconds,
        ),
        keyframes=keyframes,
        match_source=job.match_source,
        restore_frames=job.restore_frames,
        refine=job.refine,
        refine_denoise=job.refine_denoise,
        refine_upscale=job.refine_upscale,
        format=FORMAT.name,
        overwrite=True,  # an earlier run of the same job may have left a video there
    )


def _identity(files: ModelFiles) -> tuple[object, ...]:
    """Return a value that is equal for the same files with the same sizes and times."""
    entries = [*files.loras, *files.motion_loras]
    paths = [files.checkpoint, files.motion_module, *(entry.path for entry in entries)]
    # Missing files are reported when they are loaded.
    stats = [path.stat() for path in paths if path is not None and path.is_file()]
    return (files, *((stat.st_size, stat.st_mtime_ns) for stat in stats))
