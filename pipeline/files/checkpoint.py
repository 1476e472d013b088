"""Load checkpoints of Stable Diffusion 1.5, and VAEs and text encoders on their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .prediction import Prediction, predicted_by
from .reading import Weights, read_weights
from .recognition import refusal
from .tensor_specs import shapes_of, take_tensors
from .text_encoder_layout import infer_text_encoder_config, text_encoder_table
from .unet_layout import UNET_PREFIXES, infer_unet_config, unet_names, unet_table
from .vae_layout import VAE_PREFIXES, current_name, infer_vae_config, vae_names, vae_table

Tensors = dict[str, torch.Tensor]
Network = tuple[dict[str, Any], Tensors]

_TEXT_PREFIXES = (
    "cond_stage_model.transformer.text_model.",
    "cond_stage_model.transformer.",  # before transformers 4.0
    "text_model.",
)


@dataclass(frozen=True)
class CheckpointWeights:
    """The networks in a checkpoint, under the names of diffusers' and transformers' modules.

    The tensors are views of the file in its stored dtype. Each config holds the keyword arguments
    of the module: ``diffusers.UNet2DConditionModel``, ``diffusers.AutoencoderKL`` and
    ``transformers.CLIPTextConfig``. The text encoder's names begin with ``text_model.``. See
    ``predicted_by`` for prediction and zero_terminal_snr.
    """

    unet_config: dict[str, Any]
    unet: Tensors
    vae_config: dict[str, Any] | None
    vae: Tensors | None
    text_encoder_config: dict[str, Any] | None
    text_encoder: Tensors | None
    prediction: Prediction = "epsilon"
    zero_terminal_snr: bool = False


def load_checkpoint(path: str | Path) -> CheckpointWeights:
    """Load a checkpoint of Stable Diffusion 1.5: whole, pruned, or the UNet alone.

    The architecture is inferred from the shapes, so smaller networks in the same layout load
    too. Parts that the file lacks are None; keys that belong to no part are ignored.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is not a Stable Diffusion 1.5 checkpoint,
            or a tensor is missing or has the wrong shape.
    """
    path = checked_path("path", path)
    weights = _read(path, wanted="checkpoint")
    unet = _find_unet(weights, path)
    if unet is None:
        raise AnimateDiffV2VError(f"{path} holds no UNet of Stable Diffusion 1.5.")
    vae = _find_vae(weights, path, prefixes=VAE_PREFIXES[:1])
    text_encoder = _find_text_encoder(weights, path, prefixes=_TEXT_PREFIXES[:2])
    prediction, zero_terminal_snr = predicted_by(weights, path)
    vae_config, vae_tensors = vae or (None, None)
    text_config, text_tensors = text_encoder or (None, None)
    return CheckpointWeights(
        *unet,
        vae_config=vae_config,
        vae=vae_tensors,
        text_encoder_config=text_config,
        text_encoder=text_tensors,
        prediction=prediction,
        zero_terminal_snr=zero_terminal_snr,
    )


def unet_of(weights: Weights, *, source: str) -> Network:
    """Extract the UNet of Stable Diffusion 1.5 from tensors in memory: config and tensors.

    Args:
        weights: tensors under the names of a checkpoint, with or without
            ``model.diffusion_model.``.
        source: where they come from, for error messages: "The connected MODEL".

    Raises:
        AnimateDiffV2VError: they belong to another model, or a tensor is missing or has the wrong
            shape.
    """
    origin = Path(source)
    wrong = refusal(weights, origin, wanted=("checkpoint",))
    unet = None if wrong else _find_unet(weights, origin)
    if unet is None:
        raise AnimateDiffV2VError(wrong or f"{source} holds no UNet of Stable Diffusion 1.5.")
    return unet


def load_vae(path: str | Path) -> Network:
    """Load a VAE from its own file or from a checkpoint: config and tensors for AutoencoderKL.

    Raises:
        AnimateDiffV2VError: the file cannot be read, has no VAE for Stable Diffusion 1.5, or a
            tensor is missing or has the wrong shape.
    """
    path = checked_path("path", path)
    vae = _find_vae(_read(path, wanted="VAE"), path, prefixes=VAE_PREFIXES)
    if vae is None:
        raise AnimateDiffV2VError(f"{path} holds no VAE. {_elsewhere('VAE')}")
    return vae


def load_text_encoder(path: str | Path) -> Network:
    """Load a CLIP text encoder from its own file or from a checkpoint.

    Returns keyword arguments for ``transformers.CLIPTextConfig``, and tensors whose names begin
    with ``text_model.``.

    Raises:
        AnimateDiffV2VError: the file cannot be read, has no text encoder for Stable Diffusion
            1.5, or a tensor is missing or has the wrong shape.
    """
    path = checked_path("path", path)
    weights = _read(path, wanted="text encoder")
    text_encoder = _find_text_encoder(weights, path, prefixes=_TEXT_PREFIXES)
    if text_encoder is None:
        raise AnimateDiffV2VError(f"{path} holds no text encoder. {_elsewhere('text encoder')}")
    return text_encoder


def _elsewhere(part: str) -> str:
    return f"Take the {part} from a full checkpoint, or from a file of its own."


def _read(path: Path, *, wanted: Any) -> Weights:
    weights = read_weights(path)
    wrong = refusal(weights, path, wanted=(wanted, "checkpoint"))
    if wrong:
        raise AnimateDiffV2VError(wrong)
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def _find_unet(weights: Mapping[str, torch.Tensor], path: Path) -> Network | None:
    for prefix in UNET_PREFIXES:
        shapes = shapes_of(weights, prefix)
        layout = unet_names(shapes)
        config = infer_unet_config(shapes, layout=layout)
        if config:
            specs = unet_table(config)
            return config, take_tensors(weights, specs, layout=layout, prefix=prefix, path=path)
    return None


def _find_vae(
    weights: Mapping[str, torch.Tensor], path: Path, *, prefixes: tuple[str, ...]
) -> Network | None:
    weights = {current_name(name): tensor for name, tensor in weights.items()}
    for prefix in prefixes:
        shapes = shapes_of(weights, prefix)
        layout = vae_names(shapes)
        config = infer_vae_config(shapes, layout=layout)
        if config:
            specs = vae_table(config)
            return config, take_tensors(weights, specs, layout=layout, prefix=prefix, path=path)
    return None


def _find_text_encoder(
    weights: Mapping[str, torch.Tensor], path: Path, *, prefixes: tuple[str, ...]
) -> Network | None:
    for prefix in prefixes:
        config = infer_text_encoder_config(shapes_of(weights, prefix))
        if config:
            specs = text_encoder_table(config)
            return config, take_tensors(weights, specs, layout="ldm", prefix=prefix, path=path)
    return None
