"""Networks built from users' files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..curve import Strength, check_strength
from ..errors import AnimateDiffV2VError
from ..files import (
    CheckpointWeights,
    LoraEntry,
    LoraReport,
    MotionFamily,
    MotionModuleWeights,
    layered_loras,
    load_checkpoint,
    load_motion_module,
    load_text_encoder,
    load_tiny_decoder,
    load_vae,
    merge_loras,
    merge_motion_loras,
)
from ..ranges import MOTION_SCALE, SHARE
from ..request import ModelFiles
from .autoencoder import Autoencoder, vae_sizes
from .fp8_weights import store_in_fp8
from .motion_module import MotionModules, positional_tables
from .ops.select import default_ops, lay_out_weights
from .ops.stored_layers import store_weights
from .spatial_unet import SpatialUNet, UNetSizes
from .text_encoder import ClipTextModel
from .tiny_decoder import TinyDecoder, decode_with
from .unet import PREDICTS_NOISE, MotionUNet, Parameterization
from .vae import fuse_upsample_conv

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


class Placement(NamedTuple):
    """The device and the dtype that networks are made for."""

    device: torch.device
    dtype: torch.dtype
    offload_device: torch.device | None = None
    """The device on which the weights stay until they are moved; None is `device`."""

    @property
    def first_device(self) -> torch.device:
        """Device that the weights are loaded to."""
        return self.offload_device or self.device


class ReadyNetworks(NamedTuple):
    """The networks of a job; None is one that is still to be loaded."""

    unet: MotionUNet | None = None
    text_model: ClipTextModel | None = None
    vae: Autoencoder | None = None


NOTHING_READY = ReadyNetworks()


def load_networks(
    files: ModelFiles,
    placement: Placement,
    *,
    fp8_weights: bool = False,
    ready: ReadyNetworks = NOTHING_READY,
) -> ReadyNetworks:
    """Load the networks that are not in `ready`.

    On a CPU, tensors of `placement.dtype` stay memory-mapped views of the files, and so do weights
    of the UNet and the motion module in a smaller dtype, which are cast as they are used.

    Args:
        files: The files, LoRAs with their strengths, and the motion scale.
        placement: The device and the dtype.
        fp8_weights: Store the weights of the UNet and its motion module in 8 bits; it computes in
            `placement.dtype` all the same.
        ready: Networks from an earlier call with the same files.

    Raises:
        AnimateDiffV2VError: a file is missing, is of another kind, or lacks a part.
    """
    if None not in ready:
        return ready
    unet, text_model, vae = ready
    checkpoint = load_checkpoint(files.checkpoint)
    text_config, text_tensors = _text_encoder(files.checkpoint, files.text_encoder, checkpoint)
    tiny_decoder = load_tiny_decoder(files.vae) if files.vae else None
    vae_config, vae_tensors = _vae(
        files.checkpoint, None if tiny_decoder else files.vae, checkpoint
    )
    _check_width(text_config, checkpoint, files.checkpoint)
    if unet is None or text_model is None:
        unet_tensors, merged_text, reports = merge_loras(
            unet=checkpoint.unet, text_encoder=text_tensors, loras=files.loras
        )
        _log_reports(reports)
        text_model = text_model or _filled(
            lambda: _text_model(text_config),
            merged_text or {},
            placement,
            stored=placement.device.type == "cpu",
        )
        unet = unet or build_motion_unet(
            checkpoint.unet_config,
            unet_tensors,
            motion_module=files.motion_module,
            motion_loras=files.motion_loras,
            motion_scale=files.motion_scale,
            motion_effect=files.motion_effect,
            placement=placement,
            fp8_weights=fp8_weights,
            parameterization=Parameterization(checkpoint.prediction, checkpoint.zero_terminal_snr),
        )
        if not unet.lora_curves:
            _attach_loras(unet, unet_tensors, files.loras)
    vae = vae or _filled_vae(vae_config, vae_tensors, placement, tiny_decoder)
    return ReadyNetworks(unet, text_model, vae)


def _attach_loras(
    unet: MotionUNet, tensors: Mapping[str, Tensor], loras: Sequence[LoraEntry]
) -> None:
    """Attach the LoRAs whose strength is a curve to a UNet of these weights."""
    layered, reports = layered_loras(tensors, loras)
    _log_reports(reports)
    if layered:
        unet.attach_loras([lora.strength for lora in layered], [lora.layers for lora in layered])


def build_motion_unet(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    motion_module: Path | None,
    motion_loras: Sequence[LoraEntry] = (),
    motion_scale: Strength = 1.0,
    motion_effect: Strength = 1.0,
    placement: Placement,
    fp8_weights: bool = False,
    parameterization: Parameterization = PREDICTS_NOISE,
) -> MotionUNet:
    """Build a UNet with the motion modules of a file between its layers.

    Args:
        config: The sizes, as arguments of UNetSizes.
        tensors: Its weights.
        motion_module: The file; None builds the UNet without.
        motion_loras: Merged into the motion module, in this order.
        motion_scale: Above 1 sharpens attention over time; 1 is as trained.
        motion_effect: Share of the motion modules' change that is used; 1 is as trained.
        placement: The device and the dtype.
        fp8_weights: Store the weights in 8 bits.
        parameterization: What the UNet predicts.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or of another size.
    """
    first_device = placement.first_device
    if fp8_weights:
        # Quantise on the CPU: the device may not fit the fp16 weights.
        placement = Placement(torch.device("cpu"), placement.dtype)
    unet = _filled(
        lambda: SpatialUNet(UNetSizes(**config)),
        tensors,
        placement,
        stored=placement.device.type == "cpu",
    )
    motion, family = None, None
    if motion_module is not None:
        motion, family = load_motion(
            motion_module,
            config,
            motion_loras=motion_loras,
            motion_scale=motion_scale,
            motion_effect=motion_effect,
            placement=placement,
        )
    result = MotionUNet(unet, motion, family=family, parameterization=parameterization)
    if fp8_weights:
        store_in_fp8(result)
    return result.to(first_device)


def load_motion(
    motion_module: Path,
    unet_config: Mapping[str, Any],
    *,
    motion_loras: Sequence[LoraEntry] = (),
    motion_scale: Strength = 1.0,
    motion_effect: Strength = 1.0,
    placement: Placement,
) -> tuple[MotionModules, MotionFamily]:
    """Load the motion modules of a file, and their family.

    Args:
        motion_module: The file.
        unet_config: The sizes of the UNet, as arguments of UNetSizes.
        motion_loras: Merged into the motion modules, in this order.
        motion_scale: Above 1 sharpens attention over time; 1 is as trained.
        motion_effect: Share of the motion modules' change that is used; 1 is as trained.
        placement: The device and the dtype.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or of another size, or a
            strength is out of range.
    """
    check_strength(MOTION_SCALE, "motion_scale", motion_scale, hint="1 is as trained")
    check_strength(SHARE, "motion_effect", motion_effect, hint="1 is as trained")
    weights = load_motion_module(motion_module)
    if motion_loras:
        weights, reports = merge_motion_loras(motion_module=weights, loras=motion_loras)
        _log_reports(reports)
    motion = _motion(weights, unet_config, placement)
    motion.set_motion_scale(motion_scale)
    motion.effect = motion_effect
    return motion, weights.family


def _check_width(text_config: Mapping[str, Any], checkpoint: CheckpointWeights, path: Path) -> None:
    width, wanted = text_config["hidden_size"], checkpoint.unet_config["cross_attention_dim"]
    if width != wanted:
        raise AnimateDiffV2VError(
            f"The text encoder gives tokens of {width} channels, and the UNet of {path} takes "
            f"{wanted}: use the text encoder that belongs to it, clip_l for Stable Diffusion 1.5."
        )


def _log_reports(reports: Sequence[LoraReport]) -> None:
    for report in reports:
        logger.info("%s: %s, %d modules", report.path, report.family, report.matched_modules)
        if report.unmatched_keys:
            logger.warning(
                "%s: %d keys fit nothing in this model and were left out, the first being %s.",
                report.path, len(report.unmatched_keys), report.unmatched_keys[0],
            )  # fmt: skip


def _filled(
    build: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    placement: Placement,
    *,
    stored: bool = False,
) -> Network:
    """Build a network on the meta device and fill it with tensors.

    Args:
        build: Makes the network.
        tensors: Its whole state dict.
        placement: The device and the dtype.
        stored: Keep large weights in the file's own dtype where that is smaller; see
            ops.stored_layers.
    """
    with torch.device("meta"):
        network = build()
    kept = store_weights(network) if stored else set()
    network.load_state_dict(
        {
            name: tensor.to(placement.first_device)
            if name in kept and tensor.dtype.itemsize < placement.dtype.itemsize
            else tensor.to(placement.first_device, placement.dtype)
            for name, tensor in tensors.items()
        },
        strict=True,
        assign=True,
    )
    # Done last: nothing else holds the weights now, so only one of them at a time exists twice.
    lay_out_weights(network, placement.first_device)
    return network.eval().requires_grad_(False)


def _filled_vae(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    placement: Placement,
    tiny_decoder: Mapping[str, Tensor] | None,
) -> Autoencoder:
    vae = _filled(lambda: Autoencoder(vae_sizes(config)), tensors, placement)
    if tiny_decoder is not None:
        width = len(tiny_decoder["layers.0.weight"])
        decode_with(vae, _filled(lambda: TinyDecoder(width), tiny_decoder, placement))
    is_on_cpu = placement.device.type == "cpu"
    memory_format = default_ops(placement.device, placement.dtype).memory_format
    if tiny_decoder is None and (is_on_cpu or memory_format == torch.channels_last):
        fuse_upsample_conv(vae)  # not measured with channels first, or on other devices
    if is_on_cpu:
        vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae


def _text_encoder(
    checkpoint: Path, text_encoder: Path | None, weights: CheckpointWeights
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of the text encoder: the given file's, or the checkpoint's own."""
    if text_encoder is not None:
        return load_text_encoder(text_encoder)
    if weights.text_encoder_config is None or weights.text_encoder is None:
        raise AnimateDiffV2VError(
            f"{checkpoint} holds no text encoder: give one as text_encoder, for example "
            "clip_l.safetensors, or use a full checkpoint."
        )
    return weights.text_encoder_config, weights.text_encoder


def _text_model(config: Mapping[str, Any]) -> ClipTextModel:
    sizes = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    )
    return ClipTextModel(**{size: config[size] for size in sizes})


def _motion(
    weights: MotionModuleWeights, unet_config: Mapping[str, Any], placement: Placement
) -> MotionModules:
    tables = weights.positional_encoding
    if tables is None:
        tables = positional_tables(weights.tensors, weights.max_frames)

    def build() -> MotionModules:
        return MotionModules(
            block_channels=tuple(unet_config["block_out_channels"]),
            layers_per_block=unet_config["layers_per_block"],
            max_frames=weights.max_frames,
            mid=weights.has_mid_block,
        )

    tensors = {**weights.tensors, **tables}
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in build().state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in tensors.items()}:
        raise AnimateDiffV2VError(
            "The motion module is of another size than the checkpoint's UNet "
            f"({', '.join(map(str, unet_config['block_out_channels']))} channels): "
            "use one that was made for this kind of model."
        )
    return _filled(build, tensors, placement, stored=placement.device.type == "cpu")


def _vae(
    checkpoint: Path, vae: Path | None, weights: CheckpointWeights
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of the VAE: the given file's, or the checkpoint's own."""
    if vae is not None:
        return load_vae(vae)
    if weights.vae_config is None or weights.vae is None:
        raise AnimateDiffV2VError(
            f"{checkpoint} holds no VAE: give one as vae, for example "
            "vae-ft-mse-840000-ema-pruned.safetensors."
        )
    return weights.vae_config, weights.vae
