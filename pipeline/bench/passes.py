"""The time of a pass through the networks, measured on slices of their layers.

A pass has about 60 operations of 27 kinds. Each kind runs once on a few rows, or on as many as the
time allows, and its time is scaled to all rows along a straight line, because weights are cast and
packed once whatever the number of rows. What is not measured, such as downsampling, is added in
proportion to the counted operations.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.batching import ChunkSizes, default_chunk_tokens
from ..models.ops.eager import cross_attention_kv
from ..models.ops.interface import Ops
from ..models.ops.select import EAGER_OPS, default_ops
from ..models.unet import MotionUNet
from ..models.vae import VaeCodec
from .networks import SD15, Sizes, meta_unet, meta_vae, with_random_weights
from .peaks import seconds_of

TOKENS = 77
# Share of the matrix peak that layers are expected to reach, to choose slices.
_EXPECTED_SHARE = 0.6
# The longest side of the frame that the VAE is measured with on a CPU, in pixels.
_VAE_SIDE = 256
_META = torch.device("meta")


@dataclass(frozen=True)
class Kind:
    """A kind of operation: its name in `Ops`, a layer on the meta device, and its features."""

    operation: str
    layer: nn.Module
    channels: int
    height: int
    width: int

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for layers of equal sizes."""
        sizes = tuple(tuple(each.shape) for each in self.layer.state_dict().values())
        return self.operation, self.channels, self.height, self.width, sizes


@dataclass(frozen=True)
class Line:
    """Seconds, or anything else, by the number of rows."""

    start: float
    per_row: float

    def at(self, rows: int) -> float:
        """Return the value for a number of rows."""
        return self.start + self.per_row * rows


@dataclass(frozen=True)
class PassTimes:
    """The seconds and the operations of the networks."""

    unet_seconds: Line
    """Of a pass, by its frames."""
    unet_operations: float
    """Of each frame in a pass: multiplications and additions."""
    encode_seconds: float
    """Of a frame; so are all that follow."""
    decode_seconds: float
    encode_operations: float
    decode_operations: float


def time_passes(
    device: torch.device,
    dtype: torch.dtype,
    *,
    width: int,
    height: int,
    frames: int,
    peak: float,
    seconds: float,
    sizes: Sizes = SD15,
) -> PassTimes:
    """Measure the time of passes through the UNet and the VAE.

    Args:
        device: The device.
        dtype: The dtype to compute in.
        width: Pixels of the video.
        height: Pixels of the video.
        frames: Frames of a window.
        peak: The speed of matrix products in 10^12 operations a second, to choose slices.
        seconds: The time to spend on the UNet's layers, about.
        sizes: The networks' sizes.
    """
    unet = meta_unet(sizes)
    kinds, operations = recorded(unet, height=height, width=width, frames=frames)
    distinct = {kind.key: kind for kind in kinds}
    counts = Counter(kind.key for kind in kinds)
    per_frame = {key: counted(kind, frames) / frames for key, kind in distinct.items()}
    affordable = seconds * peak * 1e12 * _EXPECTED_SHARE / sum(per_frame.values())
    # As many as go through the UNet together: casts and kernels of a pass are prepared once.
    most = ChunkSizes.default(device, pixels=frames * width * height // 64).passes * frames
    rows = slices(most, affordable)
    start = per_row = 0.0
    for key, kind in distinct.items():
        line = timed(kind, device, dtype, rows=rows, frames=frames)
        start += counts[key] * line.start
        per_row += counts[key] * line.per_row
    rest = operations * frames / sum(counts[key] * per_frame[key] * frames for key in distinct)
    vae = _timed_vae(device, dtype, width=width, height=height, sizes=sizes)
    line = Line(start * rest, per_row * rest)
    if start < 0:  # noise: no pass takes less time than nothing
        line = Line(0.0, line.at(most) / most)
    return PassTimes(line, operations, *vae)


def slices(most: int, affordable: float) -> list[int]:
    """Return the numbers of rows to measure: all, or two numbers for a line through them.

    >>> slices(16, 40.0), slices(16, 8.0), slices(16, 0.5)
    ([16], [2, 6], [1, 2])
    """
    if affordable >= most:
        return [most]
    many = max(2, min(most, int(affordable * 3 / 4)))
    return [max(1, many // 3), many]


def recorded(unet: MotionUNet, *, height: int, width: int, frames: int) -> tuple[list[Kind], float]:
    """Return the operations of a pass in order, and the arithmetic of each of its frames.

    Args:
        unet: The network, on the meta device.
        height: Pixels; `width` too.
        width: Pixels.
        frames: Frames of the pass.
    """
    frames = max(2, frames)  # a single frame would take its prompt for one of its own
    kinds: list[Kind] = []

    def record(name: str) -> Callable[..., Tensor]:
        def run(layer: nn.Module, features: Tensor, *others: Any, **options: Any) -> Tensor:
            kinds.append(Kind(name, layer, *features.shape[1:]))
            result: Tensor = getattr(EAGER_OPS, name)(layer, features, *others, **options)
            return result

        return run

    ops = replace(
        EAGER_OPS,
        resnet=record("resnet"),
        transformer=record("transformer"),
        motion=record("motion"),
    )
    channels = int(unet.unet.config.cross_attention_dim)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        sample = torch.empty(frames, 4, height // 8, width // 8)
        prompt = torch.empty(1, TOKENS, channels)
        unet(sample, torch.empty(1), prompt, frames, ops=ops)
    return kinds, counter.get_total_flops() / frames


def counted(kind: Kind, rows: int) -> float:
    """Count the operations of a kind on a number of rows."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _call(kind, kind.layer, EAGER_OPS, _META, torch.float32, rows=rows, frames=rows)()
    return float(counter.get_total_flops())


@torch.inference_mode()
def timed(
    kind: Kind, device: torch.device, dtype: torch.dtype, *, rows: list[int], frames: int
) -> Line:
    """Return the seconds of a kind by its rows, measured on one or two numbers of rows."""
    is_cpu = device.type == "cpu"
    layer = with_random_weights(copy.deepcopy(kind.layer), device, dtype, like_a_file=is_cpu)
    if is_cpu:  # a few pixels, so that the memory for casts is there
        few_pixels = replace(kind, height=min(kind.height, 8), width=min(kind.width, 8))
        _sliced(few_pixels, layer, device, dtype, rows=1, frames=frames)[0]()
    points = []
    for count in rows:
        run, measured = _sliced(kind, layer, device, dtype, rows=count, frames=frames)
        if not is_cpu:
            run()  # builds kernels
        points.append((measured, min(seconds_of(run, device) for _ in range(1 if is_cpu else 5))))
    (few, short), (many, long) = points[0], points[-1]
    per_row = (long - short) / (many - few) if many > few else long / many
    return Line(long - per_row * many, per_row)


def _sliced(
    kind: Kind,
    layer: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    *,
    rows: int,
    frames: int,
) -> tuple[Callable[[], Tensor], float]:
    """Return a call on a slice, and the rows that it stands for.

    Motion modules need all frames of a pixel: they get a part of the picture.
    """
    ops = default_ops(device, dtype)
    if kind.operation != "motion":
        return _call(kind, layer, ops, device, dtype, rows=rows, frames=1), float(rows)
    videos = max(1, rows // frames)
    height = max(1, round(kind.height * min(rows / frames, 1.0)))
    part = Kind(kind.operation, layer, kind.channels, height, kind.width)
    run = _call(part, layer, ops, device, dtype, rows=videos * frames, frames=frames)
    return run, videos * frames * height / kind.height


def _call(
    kind: Kind,
    layer: nn.Module,
    ops: Ops,
    device: torch.device,
    dtype: torch.dtype,
    *,
    rows: int,
    frames: int,
) -> Callable[[], Tensor]:
    """Return an operation on random features [rows, channels, height, width]."""
    features = torch.randn(
        rows, kind.channels, kind.height, kind.width, device=device, dtype=dtype
    ).contiguous(memory_format=_format(ops))
    tokens = default_chunk_tokens(device)
    run: Any = getattr(ops, kind.operation)
    if kind.operation == "motion":
        return partial(run, layer, features, frames, tokens)
    any_layer: Any = layer
    if kind.operation == "resnet":
        width = any_layer.time_emb_proj.in_features
        embedding = torch.randn(1, width, device=device, dtype=dtype)
        return partial(run, layer, features, embedding, frames)
    width = any_layer.transformer_blocks[0].attn2.to_k.in_features
    prompt = torch.randn(1, TOKENS, width, device=device, dtype=dtype)

    def transformer() -> Tensor:
        keys = cross_attention_kv(layer, prompt, (), rows=rows)
        result: Tensor = run(layer, features, keys, frames, tokens)
        return result

    return transformer


def _format(ops: Ops) -> torch.memory_format:
    is_last = ops.memory_format == torch.channels_last
    return torch.channels_last if is_last else torch.contiguous_format


@torch.inference_mode()
def _timed_vae(
    device: torch.device, dtype: torch.dtype, *, width: int, height: int, sizes: Sizes
) -> tuple[float, float, float, float]:
    """Return the seconds of encoding and decoding a frame, and their operations."""
    side = _VAE_SIDE if device.type == "cpu" else max(width, height)
    narrow, low = min(width, side), min(height, side)
    whole, small = (
        list(_vae_operations(sizes, width=wide, height=high))
        for wide, high in ((width, height), (narrow, low))
    )
    vae = with_random_weights(meta_vae(sizes), device, dtype)
    if device.type == "cpu":
        vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    codec = VaeCodec(vae)
    count = codec.frames_at_once(low, narrow)
    frames = torch.randint(256, (count, low, narrow, 3), dtype=torch.uint8)
    latents = torch.randn(count, 4, low // 8, narrow // 8)
    warm = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    list(codec.decode(codec.encode(warm)))
    runs = (lambda: codec.encode(frames), lambda: list(codec.decode(latents)))
    encode, decode = (
        min(seconds_of(run, device) for _ in range(1 if device.type == "cpu" else 3))
        * (each / part)
        / count
        for run, each, part in zip(runs, whole, small, strict=True)
    )
    return encode, decode, whole[0], whole[1]


def _vae_operations(sizes: Sizes, *, width: int, height: int) -> Iterator[float]:
    """Yield the operations of encoding and of decoding a frame."""
    vae = meta_vae(sizes)
    with torch.device("meta"):
        frame = torch.empty(1, 3, height, width)
        latent = torch.empty(1, 4, height // 8, width // 8)
    runs: tuple[Callable[[], Any], ...] = (lambda: vae.encode(frame), lambda: vae.decode(latent))
    for run in runs:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        yield float(counter.get_total_flops())
