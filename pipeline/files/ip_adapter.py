"""Load IP-Adapters for Stable Diffusion 1.5; names follow tencent-ailab/IP-Adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .guidance_kinds import IpAdapterFamily, ip_adapter_family
from .kinds import Keys
from .reading import read_weights
from .recognition import refusal
from .tensor_specs import Shapes, TensorSpec, affine, shapes_of, take_tensors, voted_size

_LAYER = re.compile(r"ip_adapter\.(\d{1,4})\.to_[kv]_ip\.weight")
_RESAMPLER_LAYER = re.compile(r"image_proj\.layers\.(\d{1,3})\.")


@dataclass(frozen=True)
class IpAdapterSizes:
    """The sizes of the networks of an IP-Adapter.

    Attributes:
        image_channels: channels of the output of CLIP's vision model.
        text_channels: channels of the tokens in the UNet's cross-attention.
        tokens: number of tokens per image; 0 for as many as the vision model has.
        layers: channels of the UNet's cross-attentions, in the order of the file: down blocks, up
            blocks, middle block.
        width: channels inside the resampler of a Plus file; 0 for other files.
        attention: width of the resampler's attention, 64 channels for each head.
        depth: number of layers of the resampler.
    """

    image_channels: int
    text_channels: int
    tokens: int
    layers: tuple[int, ...]
    width: int = 0
    attention: int = 0
    depth: int = 0


@dataclass(frozen=True)
class IpAdapterWeights:
    """An IP-Adapter, with names ``image_proj.…``, ``layers.0.to_k_ip.weight`` and so on."""

    family: IpAdapterFamily
    sizes: IpAdapterSizes
    tensors: dict[str, torch.Tensor]


def load_ip_adapter(path: str | Path) -> IpAdapterWeights:
    """Load an IP-Adapter, Plus (its face version included) or Full Face.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is not such an adapter, or a tensor is missing
            or has the wrong shape.
    """
    path = checked_path("path", path)
    weights = read_weights(path)
    wrong = refusal(weights, path, wanted=("IP-Adapter",))
    family = ip_adapter_family(Keys(shapes_of(weights)))
    if wrong or family is None:
        raise AnimateDiffV2VError(wrong or f"{path} is not an IP-Adapter that this pack knows.")
    shapes = shapes_of(weights)
    numbers = sorted({int(match[1]) for match in map(_LAYER.match, shapes) if match})
    sizes = _sizes(shapes, family, numbers)
    specs = ip_adapter_table(sizes, family, numbers)
    tensors = take_tensors(weights, specs, layout="ldm", prefix="", path=path)
    return IpAdapterWeights(family, sizes, tensors)


def _sizes(shapes: Shapes, family: IpAdapterFamily, numbers: list[int]) -> IpAdapterSizes:
    def size(name: str, axis: int) -> int:
        return voted_size(shapes, [(f"image_proj.{name}.weight", axis)]) or 0

    layers = tuple(
        voted_size(shapes, [(f"ip_adapter.{n}.to_{part}_ip.weight", 0) for part in "kv"]) or 0
        for n in numbers
    )
    text = voted_size(shapes, [(name, 1) for name in shapes if _LAYER.match(name)]) or 0
    if family == "base":
        tokens = size("proj", 0) // max(text, 1)
        return IpAdapterSizes(size("proj", 1), text, tokens, layers)
    if family == "full":
        return IpAdapterSizes(size("proj.0", 1), text, 0, layers)
    depths = [int(match[1]) + 1 for match in map(_RESAMPLER_LAYER.match, shapes) if match]
    return IpAdapterSizes(
        size("proj_in", 1),
        text,
        voted_size(shapes, [("image_proj.latents", 1)]) or 0,
        layers,
        width=size("proj_in", 0),
        attention=size("layers.0.0.to_q", 0),
        depth=max(depths, default=0),
    )


def ip_adapter_table(
    sizes: IpAdapterSizes, family: IpAdapterFamily, numbers: list[int]
) -> Iterator[TensorSpec]:
    """List every tensor of an IP-Adapter, under this pack's names and the file's.

    Args:
        sizes: the sizes of the networks.
        family: the family of the adapter.
        numbers: the numbers of the layers in the file.
    """
    for index, (number, width) in enumerate(zip(numbers, sizes.layers, strict=True)):
        for part in ("to_k_ip", "to_v_ip"):
            ours, theirs = f"layers.{index}.{part}", f"ip_adapter.{number}.{part}"
            yield from affine(ours, theirs, width, sizes.text_channels, bias=False)
    image, text = sizes.image_channels, sizes.text_channels
    if family == "base":
        yield from _same("proj", sizes.tokens * text, image)
        yield from _same("norm", text)
    elif family == "full":
        yield from _same("proj.0", image, image)
        yield from _same("proj.2", text, image)
        yield from _same("proj.3", text)
    else:
        yield from _resampler(sizes)


def _resampler(sizes: IpAdapterSizes) -> Iterator[TensorSpec]:
    width, inner = sizes.width, sizes.attention
    yield TensorSpec("image_proj.latents", "image_proj.latents", (1, sizes.tokens, width))
    yield from _same("proj_in", width, sizes.image_channels)
    for layer in range(sizes.depth):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        yield from _same(f"{attention}.norm1", width)
        yield from _same(f"{attention}.norm2", width)
        yield from _same(f"{attention}.to_q", inner, width, bias=False)
        yield from _same(f"{attention}.to_kv", 2 * inner, width, bias=False)
        yield from _same(f"{attention}.to_out", width, inner, bias=False)
        yield from _same(f"{forward}.0", width)
        yield from _same(f"{forward}.1", 4 * width, width, bias=False)
        yield from _same(f"{forward}.3", width, 4 * width, bias=False)
    yield from _same("proj_out", sizes.text_channels, width)
    yield from _same("norm_out", sizes.text_channels)


def _same(name: str, *shape: int, bias: bool = True) -> Iterator[TensorSpec]:
    return affine(f"image_proj.{name}", f"image_proj.{name}", *shape, bias=bias)
