"""What runs requests: ComfyUI's queue, or this process itself. Both look like this."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

CHECKPOINTS = "checkpoints"
MOTION_MODULES = "animatediff_models"
MOTION_LORAS = "animatediff_motion_lora"

if TYPE_CHECKING:  # PyTorch, which a server without ComfyUI leaves to its workers
    from ...pipeline.sampling import Sampler, Scheduler

VIDEO_TYPE = "video/mp4"


@dataclass(frozen=True, kw_only=True)
class ApiJob:
    """A request whose files are all here.

    video: in the executor's input folder. checkpoint, motion_module: names in their folders.
    loras, motion_loras: names in their folders, and strengths; LoRAs that requests brought in are
    whole paths.
    force_rate: frames per second to put the clip on first, 0 for its own.
    duration_seconds: how much of the clip is restyled, 0 for all.
    """

    request_id: str
    video: Path
    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    seed: int
    sampler: Sampler
    scheduler: Scheduler
    denoise: float
    checkpoint: str
    motion_module: str
    loras: tuple[tuple[str, float], ...] = ()
    motion_loras: tuple[tuple[str, float], ...] = ()
    select_every_nth_frame: int = 1
    force_rate: float = 0
    duration_seconds: float = 0
    is_low_priority: bool = False
    sequence: int = 0
    """Rises from request to request."""
    round: int = 0
    """Lower ones go first, of the same priority; within a round what came first."""

    @property
    def models(self) -> tuple[object, ...]:
        """The networks it needs: equal for jobs that need the same."""
        return self.checkpoint, self.motion_module, self.loras, self.motion_loras

    def as_json(self) -> dict[str, Any]:
        """Give it as values that JSON knows; see from_json."""
        return asdict(self) | {"video": str(self.video)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ApiJob:
        """Make the job that gave these values."""
        loras, motion_loras = (
            tuple((name, strength) for name, strength in values[kind])
            for kind in ("loras", "motion_loras")
        )
        read = {"video": Path(values["video"]), "loras": loras, "motion_loras": motion_loras}
        return ApiJob(**{**values, **read})


@dataclass(frozen=True)
class JobResult:
    """The restyled video, an mp4; `timings` in seconds by phase."""

    path: Path
    timings: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Where a worker computes, and with what.

    models: a folder like ComfyUI's models. device, dtype, max_memory_gb: as ModelFiles has them.
    """

    models: Path
    device: str = "auto"
    dtype: str = "auto"
    max_memory_gb: float | None = None


class WorkerDied(Exception):
    """The process that ran a job ended before the job did; nothing is wrong with the request."""


class Listener(Protocol):
    """Who is told how a job goes."""

    async def started(self) -> None:
        """The job does not wait any more."""

    async def on_message(self, message: str) -> None:
        """What is being done, for a person."""


class Executor(Protocol):
    """Runs jobs one after the other."""

    input_folder: Path
    """Where the videos of jobs are put, on the disk of the uploads if possible."""
    output_folder: Path
    """Where the videos that are made are put."""

    async def start(self) -> None:
        """Begin; called once, in the event loop that all else is called in."""

    async def stop(self) -> None:
        """End what runs, as soon as that goes."""

    async def run(self, job: ApiJob, listener: Listener) -> JobResult:
        """Queue a job and wait until it is done.

        Raises Cancelled when it was stopped, by `cancel` or by somebody else; RequestRefused or
        AnimateDiffV2VError when its input will not do; WorkerDied when it may be run once more;
        anything else is a fault of ours.
        """

    def recover_output(self, request_id: str) -> Path | None:
        """Find the whole video of a job whose process ended before it could tell anybody."""

    async def cancel(self, request_id: str) -> None:
        """Take a job out of the queue, or stop it if it runs; no other job is touched."""

    def queue_position(self, request_id: str) -> int | None:
        """How many run or wait before a job; None if it does not wait here."""

    def length(self) -> int:
        """How many run or wait."""


class Worker(Protocol):
    """Runs one job at a time somewhere else: in another process, or on another machine."""

    models: tuple[object, ...] | None
    """The networks of its last job, as ApiJob.models has them; None if it has loaded none."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be given a job; not asked while it runs one."""

    async def start(self, when_ready: Callable[[], None]) -> None:
        """Begin, and wait until jobs can be run.

        when_ready: called each time that the worker has been replaced after its death.
        Raises AnimateDiffV2VError when it cannot run any job here.
        """

    async def stop(self) -> None:
        """End the job that runs and the worker, in a bounded time."""

    async def run(
        self, job: ApiJob, output: Path, on_message: Callable[[str], None]
    ) -> dict[str, float]:
        """Write the restyled video to `output` and give the seconds by phase.

        Raises what Executor.run does.
        """

    def stop_job(self) -> None:
        """Make the job that runs, if one does, end as soon as that goes, with Cancelled."""


class ModelLibrary(Protocol):
    """The model files that are installed, under the names of ComfyUI's folders."""

    def names(self, folder: str) -> list[str]:
        """List the files of a folder such as checkpoints."""

    def folders(self, folder: str) -> list[Path]:
        """List the places on disk behind it."""


def without_folders(sentence: str, folders: Iterable[Path]) -> str:
    """Leave out of a sentence where the server keeps files: nobody's business at the other end."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        sentence = sentence.replace(f"{folder}{os.sep}", "").replace(folder, "the folder")
    return sentence
