"""The miniature at the sizes of Stable Diffusion 1.5 and CLIP, for loaders that need those.

Each channel is repeated several times, and layers read only the first copy. So the wide network
computes the same as the narrow one (Net2Net, arXiv 1511.05641): copies change neither mean nor
variance of the input of a norm, attention is rescaled, and additional layers pass their input
through. Two norms are equal only up to a few percent: where the UNet joins features of its
outermost level with those of the next one, which have other numbers of copies, the 32 groups of
the norm contain other channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..pipeline.files import CheckpointWeights
from ..pipeline.files.tensor_specs import TensorSpec
from ..pipeline.files.text_encoder_layout import text_encoder_table
from ..pipeline.files.unet_layout import encoder_table, unet_table
from ..pipeline.files.vae_layout import vae_table
from ..pipeline.models.motion_module import MotionModules

Tensors = dict[str, Tensor]
Copies = NDArray[np.int64]
"""The narrow channel that each wide channel copies, [wide channels]."""

# Channels of the lower levels: a multiple of 320, and of 32 groups of three channels.
UNET_LEVELS = (320, 960, 960)
VAE_LEVELS, VAE_LAYERS = (128, 256, 512, 512), 2
TEXT_CHANNELS, TEXT_LAYERS = 768, 12
VISION_CHANNELS, VISION_LAYERS, VISION_EMBEDDING = 1024, 24, 768  # CLIP's ViT-L/14
CLIP_HEAD_CHANNELS = 64

_QUERY = re.compile(r"\.(to_q|q_proj)\.")
_READS_TEXT = re.compile(r"\.attn2\.to_[kv]\.")
_CLIP_LAYER = re.compile(r"\.layers\.(\d+)\.")


def side_by_side(narrow: int, wide: int) -> Copies:
    """Put the copies of a channel next to each other, so that groups and heads stay together.

    >>> side_by_side(2, 6)
    array([0, 0, 0, 1, 1, 1])
    """
    return np.arange(wide) // (wide // narrow)


def in_turn(narrow: int, wide: int) -> Copies:
    """Repeat all channels, so that each head has all channels of a single head.

    >>> in_turn(2, 6)
    array([0, 1, 0, 1, 0, 1])
    """
    return np.arange(wide) % narrow


def widened_checkpoint(weights: CheckpointWeights) -> Tensors:
    """Return a checkpoint with the sizes of Stable Diffusion 1.5, in LDM's layout, fp16.

    Args:
        weights: the miniature: three levels, the outermost with a divisor of 320 channels.
    """
    if weights.vae is None or weights.vae_config is None or weights.text_encoder is None:
        raise ValueError("the miniature's checkpoint holds its VAE and its text encoder")
    unet = _unet(weights.unet_config, weights.unet)
    vae = _vae(weights.vae_config, weights.vae)
    text = _clip(weights.text_encoder, _text_table(), channels=TEXT_CHANNELS)
    return (
        {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
        | {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}
        | {f"cond_stage_model.transformer.{name}": tensor for name, tensor in text.items()}
    )


def widened_motion_module(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return a motion module for the UNet of `widened_checkpoint`, AnimateDiff's layout, fp16."""
    frames = next(t.shape[1] for name, t in tensors.items() if name.endswith(".pe"))
    with torch.device("meta"):
        wide = MotionModules(
            block_channels=UNET_LEVELS, layers_per_block=1, max_frames=frames, mid=True
        )
    return {
        name: _encoding(tensors[name], like)
        if name.endswith(".pe")
        else _weight(name, tensors[name], like.shape)
        for name, like in wide.state_dict().items()
    }


def widened_lora(tensors: Mapping[str, Tensor], unet_config: Mapping[str, Any]) -> Tensors:
    """Return a LoRA for the UNet of `widened_checkpoint`, in kohya's layout, fp16.

    Args:
        tensors: the LoRA for the narrow UNet.
        unet_config: the config of the narrow UNet.
    """
    wide = _wide_unet(unet_config)
    joined = dict(_joined(unet_config, wide))
    specs = {f"lora_unet_{spec.name.replace('.', '_')}": spec for spec in unet_table(wide)}
    result = {}
    for name, tensor in tensors.items():
        layer, _, part = name.partition(".")
        spec = specs[f"{layer}_weight"]
        if part == "lora_down.weight":
            shape = (len(tensor), *spec.shape[1:])
            result[name] = _weight(spec.name, tensor, shape, joined)
        elif part == "lora_up.weight":
            result[name] = _weight(spec.name, tensor, (spec.shape[0], *tensor.shape[1:]))
        else:
            result[name] = tensor
    return result


def widened_vision_model(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return a vision model with the sizes of CLIP's ViT-L/14, Hugging Face's layout, fp16."""
    layers = {re.sub(_CLIP_LAYER, ".layers.{}.", name): t for name, t in tensors.items()}
    shapes = {
        name.format(layer): _vision_shape(name, tensor)
        for name, tensor in layers.items()
        for layer in range(VISION_LAYERS if "{}" in name else 1)
    }
    table = [TensorSpec(name, name, shape) for name, shape in shapes.items()]
    return _clip(tensors, table, channels=VISION_CHANNELS)


def widened_ip_adapter(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return an IP-Adapter for the vision model of `widened_vision_model`."""
    name = "image_proj.proj.weight"
    rows, channels = tensors[name].shape
    columns = in_turn(channels, VISION_EMBEDDING)
    return dict(tensors) | {name: _spread(tensors[name], np.arange(rows), columns)}


def _unet(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensors:
    wide = _wide_unet(config)
    joined = dict(_joined(config, wide))
    return {
        spec.ldm_name: _weight(spec.name, tensors[spec.name], spec.shape, joined)
        for spec in unet_table(wide)
    }


def _wide_unet(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config) | {"block_out_channels": UNET_LEVELS, "cross_attention_dim": TEXT_CHANNELS}


def _joined(narrow: Mapping[str, Any], wide: Mapping[str, Any]) -> Iterator[tuple[str, Copies]]:
    """Yield the input copies of each up block's resnets: features, then the skip connection."""
    ways: list[list[tuple[str, int, int]]] = [
        list(_entering(dict(each))) for each in (narrow, wide)
    ]
    for (name, below, skip), (_, wide_below, wide_skip) in zip(*ways, strict=True):
        copies = (side_by_side(below, wide_below), below + side_by_side(skip, wide_skip))
        yield name, np.concatenate(copies)


def _entering(config: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    skips: list[int] = []
    list(encoder_table(config, skips))
    below = skips[-1]
    for level, width in enumerate(reversed(config["block_out_channels"])):
        for layer in range(config["layers_per_block"] + 1):
            yield f"up_blocks.{level}.resnets.{layer}", below, skips.pop()
            below = width


def _vae(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensors:
    wide = dict(config) | {"block_out_channels": VAE_LEVELS, "layers_per_block": VAE_LAYERS}
    result = {}
    for spec in vae_table(wide):
        if spec.name in tensors:
            tensor = _weight(spec.name, tensors[spec.name], spec.shape)
        elif spec.name.endswith(".conv_shortcut.weight"):
            channels = config["block_out_channels"][0]
            tensor = _weight(spec.name, torch.eye(channels)[..., None, None], spec.shape)
        else:
            tensor = _letting_through(spec)
        if ".mid.attn_1." in spec.ldm_name and tensor.ndim == 2:
            tensor = tensor[..., None, None]  # the original is a convolution
        result[spec.ldm_name] = tensor
    return result


def _clip(tensors: Mapping[str, Tensor], table: list[TensorSpec], *, channels: int) -> Tensors:
    """Return a CLIP transformer with as many copies of its single head in each head as fit."""
    result = {}
    for spec in table:
        narrow = tensors.get(spec.name)
        if narrow is None:
            result[spec.name] = _letting_through(spec)
        elif spec.name.endswith("embedding.weight") and narrow.ndim == 2:
            result[spec.name] = narrow.half()[:, in_turn(narrow.shape[1], channels)]
        else:
            rows, *columns = (
                in_turn(n, w) if w != n else np.arange(n)
                for n, w in zip(narrow.shape[:2], spec.shape[:2], strict=True)
            )
            wide = _spread(narrow, rows, columns[0] if columns else None)
            if _QUERY.search(spec.name):
                wide = _scaled(wide, CLIP_HEAD_CHANNELS // narrow.shape[0])
            result[spec.name] = wide
    return result


def _text_table() -> list[TensorSpec]:
    config = {
        "vocab_size": 49_408,
        "hidden_size": TEXT_CHANNELS,
        "intermediate_size": 4 * TEXT_CHANNELS,
        "max_position_embeddings": 77,
        "num_hidden_layers": TEXT_LAYERS,
    }
    return list(text_encoder_table(config))


def _vision_shape(name: str, narrow: Tensor) -> tuple[int, ...]:
    channels, inner = VISION_CHANNELS, 4 * VISION_CHANNELS
    shapes = {
        "visual_projection.weight": (VISION_EMBEDDING, channels),
        "position_embedding.weight": (narrow.shape[0], channels),
        "patch_embedding.weight": (channels, *narrow.shape[1:]),
        "mlp.fc1.weight": (inner, channels),
        "mlp.fc1.bias": (inner,),
        "mlp.fc2.weight": (channels, inner),
    }
    usual = (channels,) * narrow.ndim
    return next((shape for end, shape in shapes.items() if name.endswith(end)), usual)


def _weight(
    name: str,
    narrow: Tensor,
    shape: tuple[int, ...],
    joined: Mapping[str, Copies] | None = None,
) -> Tensor:
    """Widen a weight, bias or norm whose copies are side by side."""
    module = name.rpartition(".")[0]
    block, _, layer = module.rpartition(".")
    entering = (joined or {}).get(block)
    rows = side_by_side(narrow.shape[0], shape[0])
    columns = side_by_side(narrow.shape[1], shape[1]) if len(shape) > 1 else None
    if entering is not None and layer in ("conv1", "conv_shortcut") and columns is not None:
        columns = entering
    if entering is not None and layer == "norm1":
        rows = entering
    if _READS_TEXT.search(name):
        columns = in_turn(narrow.shape[1], shape[1])
    wide = _spread(narrow, rows, columns)
    return _scaled(wide, shape[0] // narrow.shape[0]) if _QUERY.search(f".{name}") else wide


def _spread(narrow: Tensor, rows: Copies, columns: Copies | None) -> Tensor:
    """Copy rows; of the copies of a column, only the first one gets a weight."""
    copied: Tensor = narrow.half()[rows]
    if columns is None:
        return copied
    _, first = np.unique(columns, return_index=True)
    wide = copied.new_zeros(len(rows), len(columns), *narrow.shape[2:])
    wide[:, first] = copied
    return wide


def _scaled(query: Tensor, copies: int) -> Tensor:
    """Compensate for copies in a head: more channels in the sum, and another scale.

    Softmax attention multiplies by 1 / sqrt(channels of a head).
    """
    return (query.float() / math.sqrt(copies)).half()


def _encoding(narrow: Tensor, like: Tensor) -> Tensor:
    wide: Tensor = narrow.half()[..., side_by_side(narrow.shape[-1], like.shape[-1])]
    return wide


def _letting_through(spec: TensorSpec) -> Tensor:
    """Return a tensor of a layer on a residual path that adds nothing: 0, or 1 for norms."""
    is_norm = len(spec.shape) == 1 and spec.name.endswith(".weight")
    return torch.full(spec.shape, float(is_norm), dtype=torch.float16)
