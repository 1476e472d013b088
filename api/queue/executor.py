"""The interface between the queue and what runs its jobs: ComfyUI, or worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...pipeline.curve import Curve, Strength

CHECKPOINTS = "checkpoints"
MOTION_MODULES = "animatediff_models"
MOTION_LORAS = "animatediff_motion_lora"
CONTROLNETS = "controlnet"

if TYPE_CHECKING:  # PyTorch, which a server without ComfyUI leaves to its workers
    from ...pipeline.presets import Preset
    from ...pipeline.request import RefineUpscale
    from ...pipeline.sampling import ContextMemory, Sampler, Scheduler

VIDEO_TYPE = "video/mp4"


@dataclass(frozen=True, kw_only=True)
class ApiJob:
    """A request whose files are all on this machine.

    video: a path in the executor's input folder.
    checkpoint, motion_module: names in their model folders.
    loras, motion_loras: pairs of name and strength; a LoRA that was downloaded or uploaded is an
        absolute path instead of a name.
    force_rate: frames per second to resample the video to first; 0 keeps its own.
    duration_seconds: seconds of the video to restyle; 0 restyles all.
    match_source, restore_frames, refine, refine_denoise, refine_upscale: as in Request.
    keyframes: pictures in the executor's input folder, each with the frame that shows it.
    sparsectrl: the name of their model in models/controlnet; "" without keyframes.
    keyframe_strength: as in KeyframeFiles.
    context_memory, context_memory_end: as in ContextOptions.
    sequence: increases with each request.
    preset: its options for speed are used; all other values are given here.
    round: among jobs of the same priority, the lower round goes first, then the lower sequence.
    """

    request_id: str
    video: Path
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: Strength
    seed: int
    sampler: Sampler
    scheduler: Scheduler
    denoise: Strength
    checkpoint: str
    motion_module: str
    loras: tuple[tuple[str, Strength], ...] = ()
    motion_loras: tuple[tuple[str, float], ...] = ()
    select_every_nth_frame: int = 1
    force_rate: float = 0
    duration_seconds: float = 0
    match_source: float = 0
    restore_frames: bool = False
    refine: float = 1
    refine_denoise: float = 0.35
    refine_upscale: RefineUpscale = "image"
    keyframes: tuple[tuple[Path, int], ...] = ()
    sparsectrl: str = ""
    keyframe_strength: float = 1
    context_memory: ContextMemory = "none"
    context_memory_end: float = 1
    is_low_priority: bool = False
    sequence: int = 0
    round: int = 0
    preset: Preset = "exact"

    @property
    def models(self) -> tuple[object, ...]:
        """The networks that the job needs; equal for jobs that need the same."""
        return self.checkpoint, self.motion_module, self.loras, self.motion_loras

    def as_json(self) -> dict[str, Any]:
        """Return the job as JSON values, for `from_json`."""
        return asdict(self) | {
            "video": str(self.video),
            "keyframes": [(str(picture), frame) for picture, frame in self.keyframes],
            "loras": [(name, _as_json(strength)) for name, strength in self.loras],
            "guidance_scale": _as_json(self.guidance_scale),
            "denoise": _as_json(self.denoise),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ApiJob:
        """Return the job of values that `as_json` returned."""
        loras, motion_loras = (
            tuple((name, _of_json(strength)) for name, strength in values[kind])
            for kind in ("loras", "motion_loras")
        )
        read = {
            "video": Path(values["video"]),
            "loras": loras,
            "motion_loras": motion_loras,
            "keyframes": tuple((Path(each), frame) for each, frame in values["keyframes"]),
            "guidance_scale": _of_json(values["guidance_scale"]),
            "denoise": _of_json(values["denoise"]),
        }
        return ApiJob(**{**values, **read})


def number_of(strength: Strength) -> float:
    """Return a LoRA's strength for the text encoder, which reads a prompt once: 0 for a curve."""
    return 0.0 if isinstance(strength, Curve) else strength


def _as_json(strength: Strength) -> float | str:
    return str(strength) if isinstance(strength, Curve) else strength


def _of_json(strength: float | str) -> Strength:
    return Curve(strength) if isinstance(strength, str) else strength


@dataclass(frozen=True)
class JobResult:
    """The restyled video, an mp4, and the seconds that each phase took."""

    path: Path
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The device and the model files of a worker.

    models: a folder like ComfyUI's `models`. device, dtype, max_memory_gb: as in ModelFiles.
    """

    models: Path
    device: str = "auto"
    dtype: str = "auto"
    max_memory_gb: float | None = None


class WorkerDied(Exception):
    """The process that ran a job ended before the job; the request itself may be fine."""


class Listener(Protocol):
    """Receives the progress of a job."""

    async def started(self) -> None:
        """Called when the job starts to run."""

    async def on_message(self, message: str) -> None:
        """Called with each progress message, a line for people."""


class Executor(Protocol):
    """Queues jobs and runs them in their order."""

    input_folder: Path
    """The folder for the videos of jobs, on the disk of the uploads if possible."""
    output_folder: Path
    """The folder for the videos that jobs make."""

    async def start(self) -> None:
        """Start; called once, in the event loop in which all other methods are called."""

    async def stop(self) -> None:
        """Stop the running jobs as soon as possible."""

    async def run(self, job: ApiJob, listener: Listener) -> JobResult:
        """Queue a job and wait until it is done.

        Raises:
            Cancelled: it was stopped, by `cancel` or by a user of ComfyUI.
            RequestRefused, AnimateDiffV2VError: its input cannot be used.
            WorkerDied: the job may be tried once more.
        Any other exception is a bug.
        """

    def recover_output(self, request_id: str) -> Path | None:
        """Return the complete video of a job whose process ended before reporting it, or None."""

    async def cancel(self, request_id: str) -> None:
        """Remove a job from the queue, or stop it if it runs; other jobs are not affected."""

    def queue_position(self, request_id: str) -> int | None:
        """Return the number of jobs ahead of a waiting job; None if it is not waiting here."""

    def length(self) -> int:
        """Return the number of jobs that run or wait."""


class Worker(Protocol):
    """Runs one job at a time outside this process."""

    models: tuple[object, ...] | None
    """The networks of its last job, as in ApiJob.models; None if it has loaded none."""

    @property
    def is_ready(self) -> bool:
        """True when it can take a job; meaningless while it runs one."""

    async def start(self, when_ready: Callable[[], None]) -> None:
        """Start the worker and wait until it can run jobs.

        when_ready: called each time that the worker has been replaced after its death.
        Raises AnimateDiffV2VError when it cannot run any job on this machine.
        """

    async def stop(self) -> None:
        """Stop the running job and the worker within a few seconds."""

    async def run(
        self, job: ApiJob, output: Path, on_message: Callable[[str], None]
    ) -> dict[str, float]:
        """Write the restyled video to `output` and return the seconds by phase.

        Raises the exceptions of Executor.run.
        """

    def stop_job(self) -> None:
        """Stop the running job, if any, as soon as possible; its `run` raises Cancelled."""


class ModelLibrary(Protocol):
    """The model files that are installed, under the names of ComfyUI's folders."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder such as checkpoints."""

    def folders(self, folder: str) -> list[Path]:
        """Return the folders on disk that hold them."""


def without_folders(sentence: str, folders: Iterable[Path]) -> str:
    """Remove the server's folders from a sentence meant for callers."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        sentence = sentence.replace(f"{folder}{os.sep}", "").replace(folder, "the folder")
    return sentence
