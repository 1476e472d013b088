"""The VAE of Stable Diffusion 1: its architecture and its table of tensors.

LDM names follow CompVis/stable-diffusion, ldm/modules/diffusionmodules/model.py; diffusers' names
follow diffusers' AutoencoderKL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from .tensor_specs import Layout, Shapes, TensorSpec, affine, voted_size

VAE_PREFIXES = ("first_stage_model.", "")
_WIDTH_NAMES = ("conv2.weight", "conv2.bias", "norm2.weight", "conv1.bias")
_OLD_ATTENTION = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))


def vae_names(shapes: Shapes) -> Layout:
    """Return the naming scheme of a VAE's tensors."""
    ldm = any(name.startswith(("encoder.down.", "decoder.up.")) for name in shapes)
    return "ldm" if ldm else "diffusers"


def current_name(name: str) -> str:
    """Convert a name of diffusers before 0.15 to today's: ``query`` is ``to_q`` now."""
    for old, new in _OLD_ATTENTION:
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return name


def infer_vae_config(shapes: Shapes, *, layout: Layout) -> dict[str, Any] | None:
    """Infer the architecture from the shapes of a VAE's tensors (names without any prefix).

    Returns keyword arguments for diffusers' ``AutoencoderKL``, or None if the names are not
    those of such a VAE.
    """
    level_name, layer_name = ("down", "block") if layout == "ldm" else ("down_blocks", "resnets")
    pattern = re.compile(rf"encoder\.{level_name}\.(\d+)\.{layer_name}\.(\d+)\.")
    found = {(int(m[1]), int(m[2])) for m in map(pattern.match, shapes) if m}
    if not found:
        return None
    levels = len({level for level, _ in found})
    channels: list[int] = []
    for level in range(levels):
        block = f"encoder.{level_name}.{level}.{layer_name}.0"
        votes = [(f"{block}.{name}", 0) for name in _WIDTH_NAMES]
        channels.append(voted_size(shapes, votes) or (channels[-1] if channels else 0))
    latent = voted_size(shapes, [("decoder.conv_in.weight", 1), ("post_quant_conv.bias", 0)])
    colours = voted_size(shapes, [("encoder.conv_in.weight", 1), ("decoder.conv_out.weight", 0)])
    if latent is None or colours is None:
        return None
    return {
        "in_channels": colours,
        "out_channels": colours,
        "latent_channels": latent,
        "block_out_channels": tuple(channels),
        "layers_per_block": len({layer for _, layer in found}),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    }


def vae_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List every tensor of the VAE that ``config`` describes, under both names."""
    latent = config["latent_channels"]
    yield from _encoder(config)
    yield from affine("quant_conv", "quant_conv", 2 * latent, 2 * latent, 1, 1)
    yield from affine("post_quant_conv", "post_quant_conv", latent, latent, 1, 1)
    yield from _decoder(config)


def _encoder(config: dict[str, Any]) -> Iterator[TensorSpec]:
    channels: Sequence[int] = config["block_out_channels"]
    latent, last = config["latent_channels"], channels[-1]
    previous = channels[0]
    yield from affine("encoder.conv_in", "encoder.conv_in", previous, config["in_channels"], 3, 3)
    for level, width in enumerate(channels):
        block, ldm = f"encoder.down_blocks.{level}", f"encoder.down.{level}"
        for layer in range(config["layers_per_block"]):
            yield from _resnet(f"{block}.resnets.{layer}", f"{ldm}.block.{layer}", previous, width)
            previous = width
        if level + 1 < len(channels):
            yield from affine(
                f"{block}.downsamplers.0.conv", f"{ldm}.downsample.conv", width, width, 3, 3
            )
    yield from _middle("encoder", last)
    yield from affine("encoder.conv_norm_out", "encoder.norm_out", last)
    yield from affine("encoder.conv_out", "encoder.conv_out", 2 * latent, last, 3, 3)


def _decoder(config: dict[str, Any]) -> Iterator[TensorSpec]:
    widths = list(reversed(config["block_out_channels"]))
    previous = widths[0]
    yield from affine(
        "decoder.conv_in", "decoder.conv_in", previous, config["latent_channels"], 3, 3
    )
    yield from _middle("decoder", previous)
    for level, width in enumerate(widths):
        # LDM counts the decoder's levels from the pixels to the latents.
        block, ldm = f"decoder.up_blocks.{level}", f"decoder.up.{len(widths) - 1 - level}"
        for layer in range(config["layers_per_block"] + 1):
            yield from _resnet(f"{block}.resnets.{layer}", f"{ldm}.block.{layer}", previous, width)
            previous = width
        if level + 1 < len(widths):
            yield from affine(
                f"{block}.upsamplers.0.conv", f"{ldm}.upsample.conv", width, width, 3, 3
            )
    yield from affine("decoder.conv_norm_out", "decoder.norm_out", previous)
    yield from affine(
        "decoder.conv_out", "decoder.conv_out", config["out_channels"], previous, 3, 3
    )


def _middle(half: str, width: int) -> Iterator[TensorSpec]:
    name, ldm = f"{half}.mid_block", f"{half}.mid"
    yield from _resnet(f"{name}.resnets.0", f"{ldm}.block_1", width, width)
    attention, ldm_attention = f"{name}.attentions.0", f"{ldm}.attn_1"
    yield from affine(f"{attention}.group_norm", f"{ldm_attention}.norm", width)
    for part, ldm_part in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        yield from affine(f"{attention}.{part}", f"{ldm_attention}.{ldm_part}", width, width)
    yield from _resnet(f"{name}.resnets.1", f"{ldm}.block_2", width, width)


def _resnet(name: str, ldm: str, entering: int, width: int) -> Iterator[TensorSpec]:
    yield from affine(f"{name}.norm1", f"{ldm}.norm1", entering)
    yield from affine(f"{name}.conv1", f"{ldm}.conv1", width, entering, 3, 3)
    yield from affine(f"{name}.norm2", f"{ldm}.norm2", width)
    yield from affine(f"{name}.conv2", f"{ldm}.conv2", width, width, 3, 3)
    if entering != width:
        yield from affine(f"{name}.conv_shortcut", f"{ldm}.nin_shortcut", width, entering, 1, 1)
