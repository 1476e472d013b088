"""Load SparseCtrl models of AnimateDiff v3, in the original layout or diffusers'.

Arxiv 2311.16933. A file holds a ControlNet under diffusers' names and a motion module for its
encoder. Original names follow guoyww/AnimateDiff, animatediff/models/sparse_controlnet.py;
diffusers' names follow its SparseControlNetModel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .controlnet import controlnet_config, controlnet_table, guiding_table
from .motion_module import original_names, temporal_transformer_table
from .reading import read_weights
from .recognition import refusal
from .tensor_specs import TensorSpec, affine, shapes_of, take_tensors, voted_size
from .unet_layout import infer_unet_config

_FRAMES_WITHOUT_TABLE = 32  # the length of the positional encoding in training
_ENCODER = "controlnet_cond_embedding"
_PREFIX = "controlnet."


@dataclass(frozen=True)
class SparseCtrlWeights:
    """A SparseCtrl model.

    Attributes:
        config: keyword arguments of a ControlNet.
        tensors: the ControlNet's weights under diffusers' names, in the stored dtype.
        motion: the motion module's weights under AnimateDiff's original names, with the tables of
            the positional encoding if the file has them.
        attentions: attention layers of each motion module.
        max_frames: the largest number of frames that the motion module takes at once.
        has_mid_block: True if the middle block has a motion module as well, as in v2's files.
            None of AnimateDiff's own SparseCtrl models has one: they were trained with v3.
        takes_latents: True if the keyframes are encoded by the VAE (RGB); False if it has a
            network of its own that encodes pictures (scribbles).
    """

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    motion: dict[str, torch.Tensor]
    attentions: int
    max_frames: int
    has_mid_block: bool
    takes_latents: bool


def load_sparsectrl(path: str | Path) -> SparseCtrlWeights:
    """Load a SparseCtrl model.

    The architecture is inferred from the shapes, so smaller networks in the same layout load too.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is not such a model, or a tensor is missing
            or has the wrong shape.
    """
    path = checked_path("path", path)
    stored = read_weights(path)
    wrong = refusal(stored, path, wanted=("SparseCtrl",))
    if wrong:
        raise AnimateDiffV2VError(wrong)
    weights = {
        name.removeprefix("module.").removeprefix(_PREFIX): tensor
        for name, tensor in stored.items()
    }
    shapes = shapes_of(weights)
    unet = infer_unet_config(shapes, layout="diffusers")
    if unet is None:
        raise AnimateDiffV2VError(f"{path} is incomplete: it holds no encoder of a ControlNet.")
    config = controlnet_config(unet, shapes, ldm=False)
    takes_latents = f"{_ENCODER}.weight" in shapes
    specs = controlnet_table(config)
    if takes_latents:
        config["conditioning_channels"] = shapes[f"{_ENCODER}.weight"][1]
        del config["conditioning_embedding_out_channels"]
        specs = chain(guiding_table(config), _latents_table(config))
    tensors = take_tensors(weights, specs, layout="diffusers", prefix="", path=path)
    named = original_names(weights)
    frames = voted_size(shapes_of(named), [(name, 1) for name in named if name.endswith(".pe")])
    attentions = 1 + any(".attention_blocks.1.to_q." in name for name in named)
    has_mid_block = any(name.startswith("mid_block.") for name in named)
    specs = _motion_table(config, frames, attentions, has_mid_block=has_mid_block)
    motion = take_tensors(named, specs, layout="diffusers", prefix="", path=path)
    return SparseCtrlWeights(
        config=config,
        tensors=tensors,
        motion=motion,
        attentions=attentions,
        max_frames=frames or _FRAMES_WITHOUT_TABLE,
        has_mid_block=has_mid_block,
        takes_latents=takes_latents,
    )


def _latents_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    channels = config["block_out_channels"][0], config["conditioning_channels"]
    return affine(_ENCODER, _ENCODER, *channels, 3, 3)


def _motion_table(
    config: dict[str, Any], frames: int | None, attentions: int, *, has_mid_block: bool
) -> Iterator[TensorSpec]:
    """List the tensors of the motion modules: one for each layer of the encoder's levels."""
    if has_mid_block:
        name = "mid_block.motion_modules.0.temporal_transformer"
        width = config["block_out_channels"][-1]
        yield from temporal_transformer_table(name, width, frames, attentions=attentions)
    for level, width in enumerate(config["block_out_channels"]):
        for layer in range(config["layers_per_block"]):
            name = f"down_blocks.{level}.motion_modules.{layer}.temporal_transformer"
            yield from temporal_transformer_table(name, width, frames, attentions=attentions)
