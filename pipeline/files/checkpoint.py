"""Load checkpoints of Stable Diffusion 1.5 and stand-alone VAEs, in every layout users have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import AnimateDiffV2VError
from .reading import read_weights
from .tensor_specs import Shapes, shapes_of, take_tensors
from .text_encoder_layout import infer_text_encoder_config, text_encoder_table
from .unet_layout import infer_unet_config, unet_table
from .vae_layout import infer_vae_config, vae_table

Tensors = dict[str, torch.Tensor]
Network = tuple[dict[str, Any], Tensors]

_UNET_PREFIXES = ("model.diffusion_model.", "")
_VAE_PREFIXES = ("first_stage_model.", "")
_TEXT_PREFIXES = (
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",  # before transformers 4.0
)


@dataclass(frozen=True)
class CheckpointWeights:
    """What a checkpoint holds, under the names of diffusers' and transformers' modules.

    The tensors are views of the file in its stored dtype. Each config is the keyword arguments
    of the module: ``diffusers.UNet2DConditionModel``, ``diffusers.AutoencoderKL`` and
    ``transformers.CLIPTextConfig``. The text encoder's names begin with ``text_model.``.
    """

    unet_config: dict[str, Any]
    unet: Tensors
    vae_config: dict[str, Any] | None
    vae: Tensors | None
    text_encoder_config: dict[str, Any] | None
    text_encoder: Tensors | None


def load_checkpoint(path: str | Path) -> CheckpointWeights:
    """Load a checkpoint of Stable Diffusion 1.5: whole, pruned, or the UNet alone.

    The architecture is inferred from the shapes, so smaller networks in the same layout load
    too. Parts that the file lacks are None; keys that belong to no part are ignored.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is no checkpoint of Stable Diffusion 1.5,
            or a tensor is missing or misshapen.
    """
    path = Path(path)
    weights = read_weights(path)
    unet = _find_unet(weights, path)
    if unet is None:
        raise AnimateDiffV2VError(f"{path} is no checkpoint of Stable Diffusion 1.5.")
    vae = _find_vae(weights, path, prefixes=_VAE_PREFIXES[:1])
    text_encoder = _find_text_encoder(weights, path)
    return CheckpointWeights(*unet, *(vae or (None, None)), *(text_encoder or (None, None)))


def load_vae(path: str | Path) -> Network:
    """Load a VAE from its own file or out of a checkpoint: config and tensors for AutoencoderKL.

    Raises:
        AnimateDiffV2VError: the file cannot be read, holds no VAE of Stable Diffusion 1.5, or a
            tensor is missing or misshapen.
    """
    path = Path(path)
    vae = _find_vae(read_weights(path), path, prefixes=_VAE_PREFIXES)
    if vae is None:
        raise AnimateDiffV2VError(f"{path} holds no VAE of Stable Diffusion 1.5.")
    return vae


def _find_unet(weights: Mapping[str, torch.Tensor], path: Path) -> Network | None:
    for prefix in _UNET_PREFIXES:
        shapes = shapes_of(weights, prefix)
        layout = "ldm" if "input_blocks.0.0.weight" in shapes else "diffusers"
        config = infer_unet_config(shapes, layout=layout)
        if config:
            specs = unet_table(config)
            return config, take_tensors(weights, specs, layout=layout, prefix=prefix, path=path)
    return None


def _find_vae(
    weights: Mapping[str, torch.Tensor], path: Path, *, prefixes: tuple[str, ...]
) -> Network | None:
    for prefix in prefixes:
        shapes = shapes_of(weights, prefix)
        layout = _vae_layout(shapes)
        config = infer_vae_config(shapes, layout=layout)
        if config:
            specs = vae_table(config)
            return config, take_tensors(weights, specs, layout=layout, prefix=prefix, path=path)
    return None


def _vae_layout(shapes: Shapes) -> str:
    return "ldm" if any(name.startswith("encoder.down.") for name in shapes) else "diffusers"


def _find_text_encoder(weights: Mapping[str, torch.Tensor], path: Path) -> Network | None:
    for prefix in _TEXT_PREFIXES:
        config = infer_text_encoder_config(shapes_of(weights, prefix))
        if config:
            specs = text_encoder_table(config)
            return config, take_tensors(weights, specs, layout="ldm", prefix=prefix, path=path)
    return None
