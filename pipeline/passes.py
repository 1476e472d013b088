"""The passes of a job over its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial

from torch import Tensor

from .frame_job import BeforePhase, FrameJob
from .memory.estimate import Work, longest_window
from .memory.offload import OffloadedModels
from .models import Models, TextEncoder
from .progress import Phase, ReportProgress
from .prompts import PromptTrack, encode_schedule
from .request import Request
from .sampling import Conditioning, Guides
from .sampling.kept_calls import KeptCalls
from .second_pass import SecondPass, split_progress, without_decoding
from .spooled_controls import SpooledControls
from .video import VideoReader


class Passes:
    """The passes of a job over its frames: one, or two if it is refined."""

    def __init__(
        self,
        request: Request,
        models: Models,
        reader: VideoReader,
        controls: SpooledControls,
        *,
        opened: ExitStack,
        begin: BeforePhase,
    ) -> None:
        """Prepare the passes.

        Args:
            request: The job's request.
            models: Its networks.
            reader: The reader of its frames.
            controls: ControlNets and masks of the first pass.
            opened: Closes what the passes open.
            begin: Called before the networks of a phase are used.

        Raises:
            AnimateDiffV2VError: a limit on memory is too small.
        """
        self._request, self._reader, self._controls = request, reader, controls
        self._models, self._before_phase = models, begin
        self._second = self._bounded = None
        if request.is_refined:
            self._second = SecondPass(request, models, reader, controls, opened)
        if models.bound is not None:
            self._bounded = opened.enter_context(_bounded(request, models, controls, reader))
            self._models = self._bounded.models

    def frames(
        self,
        chunks: Iterator[Tensor],
        *,
        make_job: Callable[..., FrameJob],
        progress: ReportProgress,
        kept_calls: KeptCalls | None,
        guides: Callable[[SpooledControls], Guides],
    ) -> Iterator[Tensor]:
        """Return the restyled frames in chunks [n, height, width, 3], float 0..1.

        Args:
            chunks: The frames of the source, as for `FrameJob.restyle`.
            make_job: Makes a job of networks and settings; FrameJob with its other arguments.
            progress: As for FrameJob.
            kept_calls: As for FrameJob.
            guides: Returns the guides of sampling that have the given controls.
        """
        request, second = self._request, self._second
        # The second pass would repeat most warnings of the first.
        make_job = partial(make_job, kept_calls=kept_calls, warned=set())
        conditioning = cache(partial(_conditioning, self._models.text_encoder, request))
        begin: BeforePhase = self._begin_first
        later = progress
        if second is not None:
            begin, (progress, later) = without_decoding(begin), split_progress(progress, request)
        job = make_job(
            self._models,
            request.sampling,
            progress=progress,
            before_phase=begin,
        )
        latents = job.restyle(
            chunks,
            frame_count=self._reader.expected_frame_count,
            conditioning=conditioning,
            guides=lambda: guides(self._controls),
        )
        if second is None:
            return job.decode(latents)
        return second.run(
            latents,
            decode=job.decode,
            make_job=partial(make_job, progress=later, before_phase=self._begin_second),
            conditioning=conditioning,
            guides=guides,
        )

    def _begin_first(self, phase: Phase) -> None:
        if self._bounded is not None:
            self._bounded.begin(phase)
        self._before_phase(phase)

    def _begin_second(self, phase: Phase) -> None:
        assert self._second is not None
        if self._bounded is not None:
            self._bounded.release()
        self._second.begin(phase, self._before_phase)


def _bounded(
    request: Request, models: Models, controls: SpooledControls, reader: VideoReader
) -> OffloadedModels:
    settings = request.sampling
    frames = longest_window(models, settings, reader.expected_frame_count)
    work = Work(frames=frames, width=reader.width, height=reader.height, settings=settings)
    return OffloadedModels(models, controls.networks, work)


def _conditioning(text_encoder: TextEncoder, request: Request, frames: int) -> Conditioning:
    schedule = request.prompt_schedule
    keyframes = schedule.keyframes(frames) if schedule else {0: request.prompt}
    source = request.source_prompt if request.sampling.noise_type == "unsample" else None
    return Conditioning(
        encode_schedule(keyframes, text_encoder.encode),
        PromptTrack(text_encoder.encode(request.negative_prompt)),
        None if source is None else PromptTrack(text_encoder.encode(source)),
    )
