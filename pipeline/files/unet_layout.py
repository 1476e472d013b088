"""The UNet of Stable Diffusion 1: its architecture, inferred from a file, and its tensors.

LDM names follow CompVis/stable-diffusion, ldm/modules/diffusionmodules/openaimodel.py; diffusers'
names follow diffusers' UNet2DConditionModel.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from .tensor_specs import Layout, Shapes, TensorSpec, affine, voted_size

_LDM_RESNET_CHANNELS = (
    ("out_layers.3.weight", 0),
    ("out_layers.3.bias", 0),
    ("out_layers.0.weight", 0),
    ("emb_layers.1.bias", 0),
)
_RESNET_CHANNELS = (
    ("conv2.weight", 0),
    ("conv2.bias", 0),
    ("norm2.weight", 0),
    ("time_emb_proj.bias", 0),
)
_CROSS_ATTENTION_KEY = "transformer_blocks.0.attn2.to_k.weight"


UNET_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "")


def unet_names(shapes: Shapes) -> Layout:
    """Return the naming scheme of a UNet's tensors."""
    ldm = any(name.startswith(("input_blocks.", "output_blocks.")) for name in shapes)
    return "ldm" if ldm else "diffusers"


def infer_unet_config(shapes: Shapes, *, layout: Layout) -> dict[str, Any] | None:
    """Infer the architecture from the shapes of a UNet's tensors (names without any prefix).

    Returns keyword arguments for diffusers' ``UNet2DConditionModel``, or None if the names
    are not those of such a UNet.
    """
    levels = _ldm_levels(shapes) if layout == "ldm" else _diffusers_levels(shapes)
    if not any(levels):
        return None
    conv_in, conv_out = ("conv_in", "conv_out")
    if layout == "ldm":
        conv_in, conv_out = ("input_blocks.0.0", "out.2")
    channels = _widths(levels)
    attends = [any(attention for _, attention in level) for level in levels]
    cross = voted_size(shapes, [(n, 1) for n in shapes if n.endswith(_CROSS_ATTENTION_KEY)])
    in_channels = voted_size(shapes, [(f"{conv_in}.weight", 1)])
    if cross is None or in_channels is None:
        return None
    return {
        "in_channels": in_channels,
        "out_channels": voted_size(shapes, [(f"{conv_out}.weight", 0), (f"{conv_out}.bias", 0)])
        or 4,
        "block_out_channels": tuple(channels),
        "layers_per_block": max(len(level) for level in levels),
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends
        ),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)
        ),
        "cross_attention_dim": cross,
        "attention_head_dim": 8,  # the number of heads, despite its name in diffusers
        "norm_num_groups": 32,
    }


# For each resnet of a level: its channels, and whether attention follows.
_Level = list[tuple[int | None, bool]]


def _widths(levels: list[_Level]) -> list[int]:
    """Return the width of each level; if a level's is unknown, that of the level before it."""
    widths: list[int] = []
    for level in levels:
        told = [width for width, _ in level if width is not None]
        widths.append(told[0] if told else widths[-1] if widths else 0)
    return widths


def _ldm_levels(shapes: Shapes) -> list[_Level]:
    blocks = _grouped(shapes, r"input_blocks\.(\d+)\.")
    levels: list[_Level] = [[]]
    for index in sorted(blocks):
        names = blocks[index]
        prefix = f"input_blocks.{index}."
        if any(name.startswith(f"{prefix}0.op.") for name in names):
            levels.append([])
        elif index > 0:
            channels = voted_size(shapes, [(f"{prefix}0.{n}", a) for n, a in _LDM_RESNET_CHANNELS])
            levels[-1].append((channels, any(name.startswith(f"{prefix}1.") for name in names)))
    return levels


def _diffusers_levels(shapes: Shapes) -> list[_Level]:
    levels: list[_Level] = []
    blocks = _grouped(shapes, r"down_blocks\.(\d+)\.")
    for index in sorted(blocks):
        prefix = f"down_blocks.{index}."
        inside = {name: shapes[name] for name in blocks[index]}
        attends = any(name.startswith(f"{prefix}attentions.") for name in inside)
        resnets = sorted(_grouped(inside, re.escape(prefix) + r"resnets\.(\d+)\."))
        levels.append(
            [
                (
                    voted_size(
                        inside, [(f"{prefix}resnets.{r}.{n}", a) for n, a in _RESNET_CHANNELS]
                    ),
                    attends,
                )
                for r in resnets
            ]
        )
    return levels


def _grouped(shapes: Shapes, pattern: str) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = defaultdict(list)
    matcher = re.compile(pattern)
    for name in shapes:
        match = matcher.match(name)
        if match:
            groups[int(match[1])].append(name)
    return groups


def unet_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List every tensor of the UNet that ``config`` describes, under both names."""
    first = config["block_out_channels"][0]
    skips: list[int] = []
    yield from encoder_table(config, skips)
    yield from _up_blocks(config, first * 4, skips)
    yield from affine("conv_norm_out", "out.0", first)
    yield from affine("conv_out", "out.2", config["out_channels"], first, 3, 3)


def encoder_table(config: dict[str, Any], skips: list[int]) -> Iterator[TensorSpec]:
    """List the tensors of the UNet's down and middle blocks, which ControlNets have as well.

    Appends the channels of each skip connection to ``skips``.
    """
    channels: Sequence[int] = config["block_out_channels"]
    first, time = channels[0], channels[0] * 4
    yield from affine("conv_in", "input_blocks.0.0", first, config["in_channels"], 3, 3)
    yield from affine("time_embedding.linear_1", "time_embed.0", time, first)
    yield from affine("time_embedding.linear_2", "time_embed.2", time, time)
    skips.append(first)
    yield from _down_blocks(config, time, skips)
    last, cross = channels[-1], config["cross_attention_dim"]
    yield from _resnet("mid_block.resnets.0", "middle_block.0", last, last, time)
    yield from _transformer("mid_block.attentions.0", "middle_block.1", last, cross)
    yield from _resnet("mid_block.resnets.1", "middle_block.2", last, last, time)


def _down_blocks(config: dict[str, Any], time: int, skips: list[int]) -> Iterator[TensorSpec]:
    index, previous = 1, skips[0]
    channels: Sequence[int] = config["block_out_channels"]
    for level, (width, kind) in enumerate(zip(channels, config["down_block_types"], strict=True)):
        block = f"down_blocks.{level}"
        for layer in range(config["layers_per_block"]):
            ldm = f"input_blocks.{index}"
            yield from _resnet(f"{block}.resnets.{layer}", f"{ldm}.0", previous, width, time)
            if kind.startswith("CrossAttn"):
                yield from _transformer(
                    f"{block}.attentions.{layer}",
                    f"{ldm}.1",
                    width,
                    config["cross_attention_dim"],
                )
            skips.append(width)
            previous, index = width, index + 1
        if level + 1 < len(channels):
            ldm = f"input_blocks.{index}.0.op"
            yield from affine(f"{block}.downsamplers.0.conv", ldm, width, width, 3, 3)
            skips.append(width)
            index += 1


def _up_blocks(config: dict[str, Any], time: int, skips: list[int]) -> Iterator[TensorSpec]:
    skips = list(skips)
    index, previous = 0, skips[-1]
    widths = list(reversed(config["block_out_channels"]))
    for level, (width, kind) in enumerate(zip(widths, config["up_block_types"], strict=True)):
        block, attends = f"up_blocks.{level}", kind.startswith("CrossAttn")
        for layer in range(config["layers_per_block"] + 1):
            ldm, cross = f"output_blocks.{index}", config["cross_attention_dim"]
            entering = previous + skips.pop()
            yield from _resnet(f"{block}.resnets.{layer}", f"{ldm}.0", entering, width, time)
            if attends:
                yield from _transformer(f"{block}.attentions.{layer}", f"{ldm}.1", width, cross)
            previous, index = width, index + 1
        if level + 1 < len(widths):
            ldm = f"output_blocks.{index - 1}.{2 if attends else 1}.conv"
            yield from affine(f"{block}.upsamplers.0.conv", ldm, width, width, 3, 3)


def _resnet(name: str, ldm: str, entering: int, width: int, time: int) -> Iterator[TensorSpec]:
    yield from affine(f"{name}.norm1", f"{ldm}.in_layers.0", entering)
    yield from affine(f"{name}.conv1", f"{ldm}.in_layers.2", width, entering, 3, 3)
    yield from affine(f"{name}.time_emb_proj", f"{ldm}.emb_layers.1", width, time)
    yield from affine(f"{name}.norm2", f"{ldm}.out_layers.0", width)
    yield from affine(f"{name}.conv2", f"{ldm}.out_layers.3", width, width, 3, 3)
    if entering != width:
        yield from affine(f"{name}.conv_shortcut", f"{ldm}.skip_connection", width, entering, 1, 1)


def _transformer(name: str, ldm: str, width: int, cross: int) -> Iterator[TensorSpec]:
    yield from affine(f"{name}.norm", f"{ldm}.norm", width)
    yield from affine(f"{name}.proj_in", f"{ldm}.proj_in", width, width, 1, 1)
    inner, ldm_inner = f"{name}.transformer_blocks.0", f"{ldm}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", cross)):
        for part, size in (("to_q", width), ("to_k", context), ("to_v", context)):
            layer = f"{attention}.{part}"
            yield from affine(f"{inner}.{layer}", f"{ldm_inner}.{layer}", width, size, bias=False)
        layer = f"{attention}.to_out.0"
        yield from affine(f"{inner}.{layer}", f"{ldm_inner}.{layer}", width, width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from affine(f"{inner}.{norm}", f"{ldm_inner}.{norm}", width)
    for layer, out, size in (("ff.net.0.proj", width * 8, width), ("ff.net.2", width, width * 4)):
        yield from affine(f"{inner}.{layer}", f"{ldm_inner}.{layer}", out, size)
    yield from affine(f"{name}.proj_out", f"{ldm}.proj_out", width, width, 1, 1)
