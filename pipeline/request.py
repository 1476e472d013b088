"""What is asked of a job, and what comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .choices import check_types, checked
from .errors import AnimateDiffV2VError
from .files import LoraEntry
from .prompts import PromptSchedule
from .prompts.weights import check_prompt
from .ranges import (
    CLIP_SKIP,
    CONTROL_STRENGTH,
    LOOP_COUNT,
    MEMORY_GB,
    MOTION_SCALE,
    SHARE,
    SIDE,
    SIZE_OF_0,
    STYLE_WEIGHT,
)
from .sampling import (
    Arrangement,
)
from .sampling.settings import SamplingSettings
from .sampling.span import WHOLE_SCHEDULE, Span
from .video import ControlFrameOptions, Fit, FormatName, FrameSelection, Preprocessor
from .video.formats import format_by_suffix, output_format

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
    with `SpeedOptions.compile`, whose code takes what cannot be counted before, or with
    `Request.styles`, whose networks are not counted."""
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
    mask: Path | None = None
    """Where it acts, white wholly and black not at all: a video from which the same frames are
    selected as from the clip, a folder of pictures, or one picture for all frames."""
    repeat_last: bool = False
    """Whether the last frame of a source that ends early serves for those that are missing."""
    low_threshold: float = 100.0
    """canny: the change of brightness at which an edge goes on, 0 to 2040."""
    high_threshold: float = 200.0
    """canny: the change of brightness at which an edge begins, 0 to 2040."""
    tile_factor: int = 8
    """tile: how many times smaller the picture is made before it is enlarged again."""

    @property
    def preprocessing(self) -> ControlFrameOptions | None:
        """How its frames are made of the clip's own; None where they are a video's."""
        if isinstance(self.source, Path):
            return None
        return ControlFrameOptions(
            preprocessor=self.source,
            low_threshold=self.low_threshold,
            high_threshold=self.high_threshold,
            tile_factor=self.tile_factor,
        )

    def __post_init__(self) -> None:
        """Refuse a source that is none, and a strength out of range; take paths as text."""
        given = self.source
        check_types(self)
        CONTROL_STRENGTH.check("control strength", self.strength)
        if isinstance(given, str) and not (Path(given).suffix or Path(given).is_dir()):
            _check_preprocessor(given)
        _ = self.preprocessing  # refuses thresholds that are none


def _check_preprocessor(name: str) -> None:
    known = get_args(Preprocessor)
    if name not in known:
        raise AnimateDiffV2VError(
            f"control source is {name!r}; it can be {', '.join(known)}, or the path of a video, a "
            "folder or a picture of control frames."
        )


@dataclass(frozen=True, kw_only=True)
class StyleFile:
    """An IP-Adapter from a file, and the images whose style the video takes on."""

    adapter: Path
    """An IP-Adapter for Stable Diffusion 1.5."""
    vision_model: Path
    """CLIP's vision model that it was trained with, in Hugging Face's layout."""
    images: tuple[Path, ...]
    """The middle square of each is looked at."""
    weight: float = 0.8
    """How much the images count beside the prompt: 0 not at all, 1 as trained."""
    weights: dict[int, float] | None = None
    """By frame of the output: factors of `weight`, mixed between frames."""
    arrangement: Arrangement = "average"
    """What several images do; see `StyleImages.arrangement`."""
    span: Span = WHOLE_SCHEDULE

    def __post_init__(self) -> None:
        """Refuse what no sampler can use; take paths as text, and lists for tuples."""
        check_types(self)
        checked("arrangement", self.arrangement, Arrangement)
        STYLE_WEIGHT.check("style weight", self.weight)
        for frame, factor in (self.weights or {}).items():
            STYLE_WEIGHT.check(f"the weight at frame {frame}", factor)
        if not self.images:
            raise AnimateDiffV2VError("images is empty; give the style at least one picture.")


def _format_of(output: Path) -> FormatName:
    """Choose by the suffix; one that no format has is refused where the file is written."""
    try:
        return format_by_suffix(output)
    except AnimateDiffV2VError:
        return "mp4-h264"


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
    """Pixels, rounded to a multiple of 8. With one side 0 the source's aspect is kept; with both 0
    its size, scaled down to 768 on the longer side where that is more."""
    height: int = 0
    """As `width`."""
    fit: Fit = "crop"
    format: Literal[FormatName, "auto"] = "auto"
    """auto goes by the suffix of `output`, and is replaced by the format that it stands for."""
    crf: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    controls: tuple[ControlFile, ...] = ()
    """ControlNets that hold the structure; their effects add up."""
    overwrite: bool = False
    """Replace an output that is there already; otherwise the job is refused. An output that is one
    of the inputs is refused in any case."""
    prompt_schedule: PromptSchedule | None = None
    """Prompts by frame of the output, in place of `prompt`; between them they are mixed."""
    source_prompt: str | None = None
    """What the source shows, for the noise type "unsample"; None takes the prompt."""
    source_blend: float = 0.0
    """Share of the source that each step's result is given back, up to `source_blend_end`."""
    source_blend_end: float = 0.5
    """Share of the noise schedule up to which `source_blend` acts."""
    source_mask: Path | None = None
    """What is restyled, white wholly, while black stays the source: a file as for
    `ControlFile.mask`."""
    audio: bool = True
    """Whether the output has the sound of the kept frames' time."""
    pingpong: bool = False
    """Play the frames forwards and then backwards, without the two at the ends."""
    loop_count: int = 0
    """How often the clip is repeated; gif and webp repeat for ever at 0."""
    styles: tuple[StyleFile, ...] = ()
    """IP-Adapters with their images; their effects add up."""
    hardware_encoder: bool = False
    """Encode on the graphics card where one of its encoders opens."""

    def __post_init__(self) -> None:
        """Refuse values of other types; take paths as text, and lists for tuples."""
        check_types(self)
        if self.format == "auto":
            object.__setattr__(self, "format", _format_of(self.output))
        output_format(self.format).checked_crf(self.crf)
        SHARE.check("source_blend", self.source_blend)
        SHARE.check("source_blend_end", self.source_blend_end)
        checked("fit", self.fit, Fit)
        SIDE.check("width", self.width, hint=SIZE_OF_0)
        SIDE.check("height", self.height, hint=SIZE_OF_0)
        LOOP_COUNT.check("loop_count", self.loop_count)
        check_prompt(self.prompt, name="prompt")
        check_prompt(self.negative_prompt, name="negative_prompt")

    @property
    def inputs(self) -> list[Path]:
        """The videos and pictures that the job reads."""
        sources = [each for control in self.controls for each in (control.source, control.mask)]
        images = [image for style in self.styles for image in style.images]
        named = [self.input, *sources, self.source_mask, *images]
        return [each for each in named if isinstance(each, Path)]


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
