"""What is asked of a job, and what comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .choices import check_types, checked
from .files import LoraEntry
from .prompts.weights import check_prompt
from .ranges import (
    CLIP_SKIP,
    CONTROL_STRENGTH,
    MEMORY_GB,
    MOTION_SCALE,
    SEED,
    SHARE,
    SIDE,
    STEPS,
)
from .sampling import (
    BetaScheduleChoice,
    ContextOptions,
    Guidance,
    NoiseType,
    Sampler,
    Scheduler,
    SpeedOptions,
)
from .sampling.span import WHOLE_SCHEDULE, Span
from .video import Fit, FormatName, FrameSelection, Preprocessor

NEGATIVE_PROMPT = "(bad quality, worst quality:1.2), ugly faces, bad anime"

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The files that a job's networks come from."""

    checkpoint: Path
    motion_module: Path | None = None
    """None denoises each frame by itself."""
    vae: Path | None = None
    """None takes the checkpoint's own."""
    text_encoder: Path | None = None
    """None takes the checkpoint's own."""
    loras: tuple[LoraEntry, ...] = ()
    motion_loras: tuple[LoraEntry, ...] = ()
    embeddings: Path | None = None
    """The folder in which `embedding:name` of a prompt is looked for."""
    device: str = "auto"
    """A torch device such as cuda:0, mps or cpu; auto takes the fastest that there is."""
    dtype: Dtype = "auto"
    """auto computes in float16 on an accelerator and in float32 on a CPU."""
    max_memory_gb: float | None = None
    """How much of the device's memory weights and tensors may take, in 10^9 bytes; None is no
    bound. With one, `video_to_video` has the networks wait in main memory while other ones work,
    and as much go through them at a time as fits; the result stays the same, to the bit on a CPU.
    There, where main memory is the device's, nothing moves, and all networks count. Not together
    with `SpeedOptions.compile`, whose code takes what cannot be counted before."""
    motion_scale: float = 1.0
    clip_skip: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no model takes; take paths as text, and lists for tuples."""
        check_types(self)
        checked("dtype", self.dtype, Dtype)
        CLIP_SKIP.check(
            "clip_skip", self.clip_skip, hint="1 is the last layer, 2 the one before it"
        )
        MOTION_SCALE.check("motion_scale", self.motion_scale, hint="1 is as trained")
        if self.max_memory_gb is not None:
            MEMORY_GB.check(
                "max_memory_gb",
                self.max_memory_gb,
                hint="4 suits 16 frames of 512x512 in float16",
            )


@dataclass(frozen=True, kw_only=True)
class ControlFile:
    """A ControlNet from a file, and where its frames come from."""

    network: Path
    """A ControlNet or T2I-Adapter for Stable Diffusion 1.5."""
    source: Preprocessor | Path = "canny"
    """What makes control frames of the clip's own, or a video of control frames, from which the
    same frames are selected as from the clip."""
    strength: float = 1.0
    span: Span = WHOLE_SCHEDULE

    def __post_init__(self) -> None:
        """Refuse a source that is none, and a strength out of range; take paths as text."""
        given = self.source
        check_types(self)
        CONTROL_STRENGTH.check("control strength", self.strength)
        if isinstance(given, str) and not (Path(given).suffix or Path(given).is_dir()):
            checked("control source", given, Preprocessor)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the clip is denoised."""

    seed: int
    steps: int = 25
    guidance: Guidance = field(default_factory=Guidance)
    sampler: Sampler = "euler"
    scheduler: Scheduler = "normal"
    denoise: float = 0.7
    """How much is made new: 0 gives the source back, 1 keeps nothing of it."""
    beta_schedule: BetaScheduleChoice = "autoselect"
    noise_type: NoiseType = "default"
    context: ContextOptions | None = field(default_factory=ContextOptions)
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    """What may change the result for speed or memory; by itself nothing does."""

    @property
    def passes(self) -> int:
        """How often each frame goes through the UNet, windows and second calls not counted."""
        if self.denoise == 0:
            return 0
        return self.steps * (1 if self.guidance.scale == 1 else 2)

    def __post_init__(self) -> None:
        """Refuse what no sampler takes, before anything is loaded."""
        check_types(self)
        SEED.check("seed", self.seed)
        checked("sampler", self.sampler, Sampler)
        checked("scheduler", self.scheduler, Scheduler)
        checked("beta_schedule", self.beta_schedule, BetaScheduleChoice)
        checked("noise_type", self.noise_type, NoiseType)
        STEPS.check("steps", self.steps)
        SHARE.check("denoise", self.denoise)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A video to restyle: from file to file."""

    input: Path
    output: Path
    prompt: str
    sampling: SamplingSettings
    negative_prompt: str = NEGATIVE_PROMPT
    selection: FrameSelection = field(
        default_factory=lambda: FrameSelection(select_every_nth_frame=2)
    )
    width: int = 0
    """Pixels, multiples of 8; 0 keeps the source's, up to 768 on the long side."""
    height: int = 0
    fit: Fit = "crop"
    format: FormatName = "mp4-h264"
    crf: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    controls: tuple[ControlFile, ...] = ()
    """ControlNets that hold the structure; their effects add up."""
    overwrite: bool = False
    """Replace an output that is there already; otherwise the job is refused. An output that is one
    of the inputs is refused in any case."""

    def __post_init__(self) -> None:
        """Refuse values of other types; take paths as text, and lists for tuples."""
        check_types(self)
        SIDE.check("width", self.width, hint="0 keeps the clip's own")
        SIDE.check("height", self.height, hint="0 keeps the clip's own")
        check_prompt(self.prompt, name="prompt")
        check_prompt(self.negative_prompt, name="negative_prompt")

    @property
    def inputs(self) -> list[Path]:
        """The videos that the job reads."""
        sources = (control.source for control in self.controls)
        return [self.input, *(source for source in sources if isinstance(source, Path))]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds spent in each phase; phases overlap in the stream, `total` is the clock's time."""

    decode: float
    encode: float
    sample: float
    decode_latents: float
    write: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """The restyled video."""

    path: Path
    content_type: str
    file_size: int
    """Bytes."""
    frame_count: int
    seed: int
    timings: Timings

    def as_json(self) -> dict[str, Any]:
        """The result as the hosted API words it."""
        return {
            "video": {
                "url": self.path.resolve().as_uri(),
                "content_type": self.content_type,
                "file_name": self.path.name,
                "file_size": self.file_size,
            },
            "seed": self.seed,
            "timings": {
                phase: round(seconds, 3) for phase, seconds in asdict(self.timings).items()
            },
        }
