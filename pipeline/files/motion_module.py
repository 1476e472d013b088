"""Load AnimateDiff's motion modules, in the original layout or diffusers'.

The original names follow guoyww/AnimateDiff, animatediff/models/motion_module.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .motion_kinds import FRAMES_WITHOUT_TABLE, MotionFamily, motion_family
from .reading import read_weights
from .recognition import refusal
from .tensor_specs import Shapes, TensorSpec, affine, shapes_of, take_tensors, voted_size

__all__ = ["MotionFamily", "MotionModuleWeights", "load_motion_module"]

_MODULE = re.compile(r"((?:down_blocks|up_blocks)\.(\d+)|mid_block)\.motion_modules\.(\d+)\.")
_TABLE = ".pos_encoder.pe"
_FROM_DIFFUSERS = (
    (re.compile(r"(motion_modules\.\d+)\."), r"\1.temporal_transformer."),
    (re.compile(r"\.norm([12])\."), lambda match: f".norms.{int(match[1]) - 1}."),
    (re.compile(r"\.norm3\."), ".ff_norm."),
    (re.compile(r"\.attn([12])\."), lambda match: f".attention_blocks.{int(match[1]) - 1}."),
)


@dataclass(frozen=True)
class MotionModuleWeights:
    """A motion module under AnimateDiff's original names.

    Attributes:
        tensors: ``down_blocks.0.motion_modules.0.temporal_transformer.norm.weight`` and so on,
            in the stored dtype, without the positional encoding.
        positional_encoding: the tables in the file, ``[1, frames, channels]`` each, by their
            original names (``....attention_blocks.0.pos_encoder.pe``), or None if there are none
            and the sinusoid must be computed.
        max_frames: the largest number of frames that the module takes at once.
        has_mid_block: True if the UNet's middle block has a motion module as well.
        family: the family by the keys. Files of AnimateDiff-Lightning are "v2" here: neither their
            keys nor their shapes are different.
    """

    tensors: dict[str, torch.Tensor]
    positional_encoding: dict[str, torch.Tensor] | None
    max_frames: int
    has_mid_block: bool
    family: MotionFamily


def load_motion_module(path: str | Path) -> MotionModuleWeights:
    """Load a motion module of AnimateDiff for Stable Diffusion 1.5.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is not such a motion module, or a tensor is
            missing or has the wrong shape.
    """
    path = checked_path("path", path)
    stored = read_weights(path)
    wrong = refusal(stored, path, wanted=("motion module",))
    if wrong:
        raise AnimateDiffV2VError(wrong)
    weights = original_names(stored)
    specs = motion_table(shapes_of(weights))
    tensors = take_tensors(weights, specs, layout="diffusers", prefix="", path=path)
    unknown = next((name for name in weights if name not in tensors), None)
    if unknown is not None:
        raise AnimateDiffV2VError(
            f"{path} is not a motion module that this pack knows: it has the tensor {unknown}."
        )
    tables = {name: tensors.pop(name) for name in weights if name.endswith(_TABLE)}
    has_mid_block = any(name.startswith("mid_block.") for name in tensors)
    frames = next(iter(tables.values())).shape[1] if tables else None
    return MotionModuleWeights(
        tensors=tensors,
        positional_encoding=tables or None,
        max_frames=frames or FRAMES_WITHOUT_TABLE,
        has_mid_block=has_mid_block,
        family=motion_family(frames=frames, has_mid_block=has_mid_block),
    )


def original_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of motion modules, under AnimateDiff's original names."""
    kept = {}
    for name, tensor in weights.items():
        match = _MODULE.search(name)
        if match:
            kept[name[match.start() :]] = tensor
    if any(".temporal_transformer." in name for name in kept):
        return kept
    return dict(_renamed_from_diffusers(kept))


def _renamed_from_diffusers(
    weights: dict[str, torch.Tensor],
) -> Iterator[tuple[str, torch.Tensor]]:
    for diffusers_name, tensor in weights.items():
        name = diffusers_name
        for pattern, replacement in _FROM_DIFFUSERS:
            name = pattern.sub(replacement, name, count=1)
        if name.endswith(".pos_embed.pe"):
            block = name.removesuffix(".pos_embed.pe")
            for attention in (0, 1):
                yield f"{block}.attention_blocks.{attention}{_TABLE}", tensor
        else:
            yield name, tensor


def diffusers_name(name: str) -> str:
    """Convert an original name to diffusers'."""
    name = name.replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
    for index in (0, 1):
        name = name.replace(f".norms.{index}.", f".norm{index + 1}.")
        name = name.replace(f".attention_blocks.{index}.", f".attn{index + 1}.")
    return name


def motion_table(shapes: Shapes) -> Iterator[TensorSpec]:
    """List every tensor that a motion module with these levels and widths has.

    Args:
        shapes: shapes by original names. Missing tensors are listed too, if the others imply that
            they must exist.
    """
    blocks: dict[str, set[str]] = defaultdict(set)
    for match in filter(None, map(_MODULE.match, shapes)):
        blocks[match[1]].add(match[3])
    levels = len({block[-1] for block in blocks if block != "mid_block"})
    frames = voted_size(shapes, [(name, 1) for name in shapes if name.endswith(_TABLE)])
    for side in ("down_blocks", "up_blocks"):
        count = max((len(found) for block, found in blocks.items() if side in block), default=0)
        for level in range(levels):
            facing = f"down_blocks.{level if side == 'down_blocks' else levels - 1 - level}."
            width = _width(shapes, (f"{side}.{level}.", facing))
            for index in range(count):
                module = f"{side}.{level}.motion_modules.{index}.temporal_transformer"
                yield from temporal_transformer_table(module, width, frames)
    if "mid_block" in blocks:
        width = _width(shapes, ("mid_block.", f"down_blocks.{levels - 1}."))
        module = "mid_block.motion_modules.0.temporal_transformer"
        yield from temporal_transformer_table(module, width, frames)


def _width(shapes: Shapes, blocks: tuple[str, str]) -> int:
    norms = [name for name in shapes if name.startswith(blocks) and ".norm." in name]
    return voted_size(shapes, [(name, 0) for name in norms]) or 0


def temporal_transformer_table(
    name: str, width: int, frames: int | None, *, attentions: int = 2
) -> Iterator[TensorSpec]:
    """List the tensors of a motion module.

    Args:
        name: the prefix of their names.
        width: channels.
        frames: length of the table of the positional encoding; None if the file has none.
        attentions: attention layers.
    """
    yield from _affine(f"{name}.norm", width)
    yield from _affine(f"{name}.proj_in", width, width)
    block = f"{name}.transformer_blocks.0"
    for attention in range(attentions):
        layer = f"{block}.attention_blocks.{attention}"
        for part in ("to_q", "to_k", "to_v"):
            yield from _affine(f"{layer}.{part}", width, width, bias=False)
        yield from _affine(f"{layer}.to_out.0", width, width)
        yield from _affine(f"{block}.norms.{attention}", width)
        if frames is not None:
            table = f"{layer}{_TABLE}"
            yield TensorSpec(table, table, (1, frames, width))
    yield from _affine(f"{block}.ff.net.0.proj", width * 8, width)
    yield from _affine(f"{block}.ff.net.2", width, width * 4)
    yield from _affine(f"{block}.ff_norm", width)
    yield from _affine(f"{name}.proj_out", width, width)


def _affine(name: str, *shape: int, bias: bool = True) -> Iterator[TensorSpec]:
    return affine(name, name, *shape, bias=bias)
