"""The request of a job from file to file, and its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .choices import check_types, checked
from .curve import Strength, check_strength
from .errors import AnimateDiffV2VError
from .files import LoraEntry
from .keyframe_files import KeyframeFiles
from .prompts import PromptSchedule
from .prompts.weights import check_prompt
from .ranges import (
    CLIP_SKIP,
    CONTROL_STRENGTH,
    LOOP_COUNT,
    MEMORY_GB,
    MOTION_SCALE,
    REFINE,
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
RefineUpscale = Literal["image", "latent"]


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The files that a job's networks are loaded from."""

    checkpoint: Path
    motion_module: Path | None = None
    """None denoises each frame by itself."""
    vae: Path | None = None
    """None uses the checkpoint's."""
    text_encoder: Path | None = None
    """None uses the checkpoint's."""
    loras: tuple[LoraEntry, ...] = ()
    motion_loras: tuple[LoraEntry, ...] = ()
    embeddings: Path | None = None
    """The folder in which `embedding:name` of a prompt is looked for."""
    device: str = "auto"
    """A torch device such as cuda:0, mps or cpu; auto is the fastest available."""
    dtype: Dtype = "auto"
    """auto computes in float16 on an accelerator and in float32 on a CPU."""
    max_memory_gb: float | None = None
    """A limit on device memory for weights and tensors, in 10^9 bytes; None is no limit. With one,
    `video_to_video` keeps networks in main memory while others compute, and puts as much through
    them at a time as fits; the result is the same, on a CPU to the bit. On a CPU no networks are
    moved, and all of them count. It cannot be combined with `SpeedOptions.compile`, whose memory
    cannot be counted in advance, or with `Request.styles`, whose networks are not counted."""
    motion_scale: Strength = 1.0
    """Above 1 sharpens attention over time: more motion; 1 is as trained."""
    clip_skip: int = 1
    devices: tuple[str, ...] = ()
    """Torch devices of one kind that share the context windows of a video, instead of `device`.
    Each has a copy of the UNet and of the request's ControlNets and IP-Adapters, and
    `max_memory_gb` for itself; all else is on the first one. The result is the same, on a CPU to
    the bit. They cannot be combined with `SpeedOptions.compile`."""
    motion_effect: Strength = 1.0
    """Share of the motion modules' change that is used: 0 is without them, 1 is as trained."""

    def __post_init__(self) -> None:
        """Refuse values that no model accepts; convert text to paths and lists to tuples."""
        check_types(self)
        if self.devices and self.device != "auto":
            raise AnimateDiffV2VError(
                f"device is {self.device!r}, and devices is given as well: give one of the two."
            )
        checked("dtype", self.dtype, Dtype)
        CLIP_SKIP.check(
            "clip_skip", self.clip_skip, hint="1 is the last layer, 2 the one before it"
        )
        check_strength(MOTION_SCALE, "motion_scale", self.motion_scale, hint="1 is as trained")
        check_strength(SHARE, "motion_effect", self.motion_effect, hint="1 is as trained")
        if self.max_memory_gb is not None:
            MEMORY_GB.check(
                "max_memory_gb",
                self.max_memory_gb,
                hint="4 suits 16 frames of 512x512 in float16",
            )

    @property
    def strengths(self) -> list[tuple[str, Strength]]:
        """Those that can be curves, with their names."""
        loras: list[tuple[str, Strength]] = [("loras", each.model_strength) for each in self.loras]
        return [
            ("motion_scale", self.motion_scale),
            ("motion_effect", self.motion_effect),
            *loras,
        ]


@dataclass(frozen=True, kw_only=True)
class ControlFile:
    """A ControlNet's file, and the source of its frames."""

    network: Path
    """A ControlNet or T2I-Adapter for Stable Diffusion 1.5."""
    source: Preprocessor | Path = "canny"
    """A preprocessor that makes control frames from the video, or the path of a video of
    control frames, from which the same frames are selected."""
    strength: float = 1.0
    span: Span = WHOLE_SCHEDULE
    mask: Path | None = None
    """A mask: the network acts fully at white and not at all at black. A video from which the same
    frames are selected, a folder of pictures, or one picture for all frames."""
    repeat_last: bool = False
    """Repeat the last frame of a source that ends early."""
    low_threshold: float = 100.0
    """canny: the change of brightness at which an edge continues, 0 to 2040."""
    high_threshold: float = 200.0
    """canny: the change of brightness at which an edge starts, 0 to 2040."""
    tile_factor: int = 8
    """tile: how many times smaller the picture is made before it is enlarged again."""

    @property
    def preprocessing(self) -> ControlFrameOptions | None:
        """Options for making control frames from the video; None if they come from a file."""
        if isinstance(self.source, Path):
            return None
        return ControlFrameOptions(
            preprocessor=self.source,
            low_threshold=self.low_threshold,
            high_threshold=self.high_threshold,
            tile_factor=self.tile_factor,
        )

    def __post_init__(self) -> None:
        """Refuse an unknown source and numbers out of range; convert text to paths."""
        given = self.source
        check_types(self)
        CONTROL_STRENGTH.check("control strength", self.strength)
        if isinstance(given, str) and not (Path(given).suffix or Path(given).is_dir()):
            _check_preprocessor(given)
        _ = self.preprocessing  # checks the thresholds


def _check_preprocessor(name: str) -> None:
    known = get_args(Preprocessor)
    if name not in known:
        raise AnimateDiffV2VError(
            f"control source is {name!r}; it can be {', '.join(known)}, or the path of a video, a "
            "folder or a picture of control frames."
        )


@dataclass(frozen=True, kw_only=True)
class StyleFile:
    """An IP-Adapter's file, and the images whose style the video takes on."""

    adapter: Path
    """An IP-Adapter for Stable Diffusion 1.5."""
    vision_model: Path
    """The vision model of CLIP that it was trained with, in Hugging Face's layout."""
    images: tuple[Path, ...]
    """The middle square of each is used."""
    weight: float = 0.8
    """Weight of the images relative to the prompt: 0 ignores them, 1 is as trained."""
    weights: dict[int, float] | None = None
    """Factors of `weight` by frame of the output, interpolated between frames."""
    arrangement: Arrangement = "average"
    """The use of several images; see `StyleImages.arrangement`."""
    span: Span = WHOLE_SCHEDULE

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use; convert text to paths and lists to tuples."""
        check_types(self)
        checked("arrangement", self.arrangement, Arrangement)
        STYLE_WEIGHT.check("style weight", self.weight)
        for frame, factor in (self.weights or {}).items():
            STYLE_WEIGHT.check(f"the weight at frame {frame}", factor)
        if not self.images:
            raise AnimateDiffV2VError("images is empty; give the style at least one picture.")


def _format_of(output: Path) -> FormatName:
    """Return the format of a suffix; unknown ones are refused when the file is written."""
    try:
        return format_by_suffix(output)
    except AnimateDiffV2VError:
        return "mp4-h264"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A video to restyle, from file to file."""

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
    """auto follows the suffix of `output`, and is replaced by that format."""
    crf: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    controls: tuple[ControlFile, ...] = ()
    """ControlNets that keep the structure; their effects add up."""
    overwrite: bool = False
    """Replace an output that exists; otherwise the job is refused. An output that is one of the
    inputs is always refused."""
    prompt_schedule: PromptSchedule | None = None
    """Prompts by frame of the output, instead of `prompt`; mixed between those frames."""
    source_prompt: str | None = None
    """A description of the source, for the noise type "unsample"; None uses the prompt."""
    source_blend: float = 0.0
    """Share of the source blended into each step's result, up to `source_blend_end`."""
    source_blend_end: float = 0.5
    """Share of the noise schedule up to which `source_blend` acts."""
    source_mask: Path | None = None
    """Restyled at white, the source at black: a file as for `ControlFile.mask`."""
    match_source: float = 0.0
    """Strength, 0 to 1, with which brightness and colour of each frame are held to those of its
    source, where `source_mask` is white. 0 leaves the frames as they are."""
    refine: float = 1.0
    """Factor, 1 to 2, by which the frames of the first pass are enlarged for a second one, which
    denoises them again at that size. 1 leaves it out."""
    refine_denoise: float = 0.35
    """As `SamplingSettings.denoise`, for the second pass."""
    refine_upscale: RefineUpscale = "image"
    """What the second pass enlarges: the decoded frames, or their latents, which are then neither
    decoded nor encoded, but need a higher `refine_denoise` to be sharp."""
    audio: bool = True
    """Add the sound of the time that the kept frames span."""
    pingpong: bool = False
    """Play the frames forwards and then backwards, without the two at the ends."""
    loop_count: int = 0
    """Number of repetitions; at 0, gif and webp repeat forever."""
    styles: tuple[StyleFile, ...] = ()
    """IP-Adapters with their images; their effects add up."""
    hardware_encoder: bool = False
    """Encode on the graphics card where one of its encoders opens."""
    keyframes: tuple[KeyframeFiles, ...] = ()
    """SparseCtrl models with pictures of a few frames; their effects add up."""
    restore_frames: bool = False
    """Make the frames between the kept ones, from these and the motion of the source. The output
    then has the frame rate of the source, or the times of its frames where that varies."""

    def __post_init__(self) -> None:
        """Refuse values of other types; convert text to paths and lists to tuples."""
        check_types(self)
        if self.format == "auto":
            object.__setattr__(self, "format", _format_of(self.output))
        output_format(self.format).checked_crf(self.crf)
        SHARE.check("source_blend", self.source_blend)
        SHARE.check("source_blend_end", self.source_blend_end)
        SHARE.check("match_source", self.match_source)
        REFINE.check("refine", self.refine, hint="1 leaves the second pass out, 1.5 is usual")
        SHARE.check("refine_denoise", self.refine_denoise)
        checked("refine_upscale", self.refine_upscale, RefineUpscale)
        checked("fit", self.fit, Fit)
        SIDE.check("width", self.width, hint=SIZE_OF_0)
        SIDE.check("height", self.height, hint=SIZE_OF_0)
        LOOP_COUNT.check("loop_count", self.loop_count)
        check_prompt(self.prompt, name="prompt")
        check_prompt(self.negative_prompt, name="negative_prompt")

    @property
    def is_refined(self) -> bool:
        """True if there is a second pass."""
        return self.refine > 1

    @property
    def inputs(self) -> list[Path]:
        """Videos and pictures that the job reads."""
        sources = [each for control in self.controls for each in (control.source, control.mask)]
        keyframes = [each for keys in self.keyframes for each in (*keys.pictures, keys.mask)]
        images = [image for style in self.styles for image in style.images]
        named = [self.input, *sources, *keyframes, self.source_mask, *images]
        return [each for each in named if isinstance(each, Path)]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds spent in each phase; as phases overlap, `total` is the elapsed time."""

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
        """Return the result in the form of the hosted API."""
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
