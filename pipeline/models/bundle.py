"""All the networks of a job, built from users' files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from ..choices import checked_path, checked_type
from ..errors import AnimateDiffV2VError
from ..files import (
    CheckpointWeights,
    LoraEntry,
    LoraMerger,
    LoraReport,
    MotionFamily,
    MotionModuleWeights,
    load_checkpoint,
    load_motion_module,
    load_text_encoder,
    load_vae,
    merge_motion_loras,
)
from .batching import ChunkSizes, MemoryBound
from .fp8_weights import store_in_fp8
from .last_result import LastResult
from .motion_module import MotionModules, positional_tables
from .ops.select import default_ops, lay_out_weights
from .ops.stored_layers import store_weights
from .text_encoder import ClipTextEncoder, ClipTextModel, FindEmbedding, TextEncoder
from .unet import PREDICTS_NOISE, MotionUNet, Parameterization
from .vae import LatentCodec, VaeCodec, fuse_norm_silu, fuse_upsample_conv

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


class _Place(NamedTuple):
    """Where a network is to work, in which precision, and where its weights lie until then."""

    device: torch.device
    dtype: torch.dtype
    waiting: torch.device


@dataclass(frozen=True)
class Models:
    """What a job needs: text encoder, UNet with motion modules, and latent codec."""

    unet: MotionUNet
    text_encoder: TextEncoder
    codec: LatentCodec
    has_loras: bool = False
    unsampled_clips: LastResult = field(default_factory=LastResult)
    """Remembers what the UNet found for the noise type "unsample"."""
    bound: MemoryBound | None = None
    """Where and within what the networks work, if they wait in main memory until they do."""
    chunks: ChunkSizes | None = None
    """How much goes through the UNet at a time; None is what is usual on its device."""

    @property
    def motion_family(self) -> MotionFamily | None:
        """Which kind of motion module is in the UNet; None without one."""
        return self.unet.family


class ReadyNetworks(NamedTuple):
    """Networks that exist already, and need not be loaded; None is one that does not."""

    unet: MotionUNet | None = None
    text_model: ClipTextModel | None = None
    vae: AutoencoderKL | None = None


NOTHING_READY = ReadyNetworks()


def load_models(
    checkpoint: Path,
    *,
    motion_module: Path | None = None,
    vae: Path | None = None,
    text_encoder: Path | None = None,
    loras: Sequence[LoraEntry] = (),
    motion_loras: Sequence[LoraEntry] = (),
    device: torch.device,
    dtype: torch.dtype,
    motion_scale: float = 1.0,
    clip_skip: int = 1,
    waiting: torch.device | None = None,
    fp8_weights: bool = False,
    find_embedding: FindEmbedding | None = None,
    ready: ReadyNetworks = NOTHING_READY,
) -> Models:
    """Load a Stable Diffusion 1.5 checkpoint, an AnimateDiff motion module and LoRAs.

    On the CPU, tensors of `dtype` stay memory-mapped views of the files, and so do the UNet's and
    the motion module's weights of a smaller one, which are cast as they are used. Nothing is loaded
    twice, and nothing is fetched from anywhere.

    vae, text_encoder: files whose networks take the place of the checkpoint's.
    motion_scale: above 1 sharpens attention over time: more motion; 1 is as trained.
    clip_skip: 1 for the text encoder's last layer, 2 for the one before it.
    fp8_weights: store the weights of the UNet and its motion module in 8 bits; it computes in
    `dtype` all the same.
    waiting: where the networks stay, made for `device`, until somebody moves them; None is there.
    ready: networks from an earlier call with the same files for them, which are taken as they are.
    Raises AnimateDiffV2VError when a file is missing, is of another kind, or lacks a part.
    """
    for name, value, kind in (
        ("device", device, torch.device),
        ("dtype", dtype, torch.dtype),
        ("motion_scale", motion_scale, float),
        ("clip_skip", clip_skip, int),
    ):
        checked_type(name, value, kind)
    if None in ready:
        base = BaseNetworks(checkpoint, vae=vae, text_encoder=text_encoder)
        ready = base.networks(
            motion_module=checked_type("motion_module", motion_module, Path | None),
            loras=checked_type("loras", loras, tuple[LoraEntry, ...]),
            motion_loras=checked_type("motion_loras", motion_loras, tuple[LoraEntry, ...]),
            device=device,
            dtype=dtype,
            waiting=waiting,
            motion_scale=motion_scale,
            fp8_weights=fp8_weights,
            ready=ready,
        )
    return _bundled(
        ready, clip_skip=clip_skip, find_embedding=find_embedding, has_loras=bool(loras)
    )


class BaseNetworks:
    """A checkpoint before LoRAs: read once, whatever stacks are merged into it afterwards."""

    def __init__(
        self, checkpoint: Path, *, vae: Path | None = None, text_encoder: Path | None = None
    ) -> None:
        """Map the files; see load_models."""
        checkpoint = checked_path("checkpoint", checkpoint)
        vae = checked_type("vae", vae, Path | None)
        text_encoder = checked_type("text_encoder", text_encoder, Path | None)
        weights = load_checkpoint(checkpoint)
        self._unet_config = weights.unet_config
        self._parameterization = Parameterization(weights.prediction, weights.zero_terminal_snr)
        self._text_config, text_tensors = _text_encoder(checkpoint, text_encoder, weights)
        self._vae_config, self._vae_tensors = _vae(checkpoint, vae, weights)
        width, wanted = self._text_config["hidden_size"], weights.unet_config["cross_attention_dim"]
        if width != wanted:
            raise AnimateDiffV2VError(
                f"The text encoder gives tokens of {width} channels, and the UNet of {checkpoint} "
                f"takes {wanted}: use the text encoder that belongs to it, clip_l for Stable "
                "Diffusion 1.5."
            )
        self._merger = LoraMerger(unet=weights.unet, text_encoder=text_tensors)

    def networks(
        self,
        *,
        motion_module: Path | None,
        loras: Sequence[LoraEntry],
        motion_loras: Sequence[LoraEntry],
        device: torch.device,
        dtype: torch.dtype,
        motion_scale: float,
        waiting: torch.device | None = None,
        fp8_weights: bool = False,
        ready: ReadyNetworks = NOTHING_READY,
    ) -> ReadyNetworks:
        """Build the networks that are not `ready`; see load_models."""
        unet, text_model, vae = ready
        place = _Place(device, dtype, waiting or device)
        if unet is None or text_model is None:
            unet_tensors, text_tensors, reports = self._merger.merge(loras)
            for report in reports:
                _log_report(report)
            text_model = text_model or _filled(
                lambda: _text_model(self._text_config),
                text_tensors or {},
                place,
                stored=place.device.type == "cpu",
            )
            unet = unet or build_motion_unet(
                self._unet_config,
                unet_tensors,
                motion_module=motion_module,
                motion_loras=motion_loras,
                motion_scale=motion_scale,
                device=device,
                dtype=dtype,
                waiting=waiting,
                fp8_weights=fp8_weights,
                parameterization=self._parameterization,
            )
        vae = vae or _filled_vae(self._vae_config, self._vae_tensors, place)
        return ReadyNetworks(unet, text_model, vae)


def _bundled(
    networks: ReadyNetworks,
    *,
    clip_skip: int,
    find_embedding: FindEmbedding | None,
    has_loras: bool,
) -> Models:
    unet, text_model, vae = networks
    assert unet is not None and text_model is not None and vae is not None
    return Models(
        unet=unet,
        text_encoder=ClipTextEncoder(
            text_model, clip_skip=clip_skip, find_embedding=find_embedding
        ),
        codec=VaeCodec(vae),
        has_loras=has_loras,
    )


def build_motion_unet(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    motion_module: Path | None,
    motion_loras: Sequence[LoraEntry] = (),
    motion_scale: float = 1.0,
    device: torch.device,
    dtype: torch.dtype,
    waiting: torch.device | None = None,
    fp8_weights: bool = False,
    parameterization: Parameterization = PREDICTS_NOISE,
) -> MotionUNet:
    """Put motion modules from a file between the layers of a UNet.

    config, tensors: keyword arguments and weights of diffusers' UNet2DConditionModel.
    waiting: see load_models.
    Raises AnimateDiffV2VError when the file is missing, is of another kind, or of another size.
    """
    # In 8 bits they go to the device, which need not have room for more.
    waiting = waiting or device
    cpu = torch.device("cpu")
    place = _Place(cpu, dtype, cpu) if fp8_weights else _Place(device, dtype, waiting)
    unet = _with_motion(
        _filled(
            lambda: UNet2DConditionModel(**config),
            tensors,
            place,
            stored=place.device.type == "cpu",
        ),
        motion_module,
        motion_loras=motion_loras,
        motion_scale=motion_scale,
        place=place,
        parameterization=parameterization,
    )
    if fp8_weights:
        store_in_fp8(unet)
    return unet.to(waiting)


def _with_motion(
    unet: UNet2DConditionModel,
    motion_module: Path | None,
    *,
    motion_loras: Sequence[LoraEntry],
    motion_scale: float,
    place: _Place,
    parameterization: Parameterization,
) -> MotionUNet:
    if motion_module is None:
        return MotionUNet(unet, None, parameterization=parameterization)
    weights = load_motion_module(motion_module)
    if motion_loras:
        weights, reports = merge_motion_loras(motion_module=weights, loras=motion_loras)
        for report in reports:
            _log_report(report)
    motion = _motion(weights, unet, place)
    motion.set_motion_scale(motion_scale)
    return MotionUNet(unet, motion, family=weights.family, parameterization=parameterization)


def _log_report(report: LoraReport) -> None:
    logger.info("%s: %s, %d modules", report.path, report.family, report.matched_modules)
    if report.unmatched_keys:
        logger.warning(
            "%s: %d keys fit nothing in this model and were left out, the first being %s.",
            report.path, len(report.unmatched_keys), report.unmatched_keys[0],
        )  # fmt: skip


def _filled(
    build: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    place: _Place,
    *,
    stored: bool = False,
) -> Network:
    """Build a network without memory of its own, and put the tensors in their places.

    stored: leave the large weights in the file's own dtype where that is smaller; see
    stored_weights.
    """
    with torch.device("meta"):
        network = build()
    kept = store_weights(network) if stored else set()
    network.load_state_dict(
        {
            name: tensor.to(place.waiting)
            if name in kept and tensor.dtype.itemsize < place.dtype.itemsize
            else tensor.to(place.waiting, place.dtype)
            for name, tensor in tensors.items()
        },
        strict=True,
        assign=True,
    )
    # Nothing else holds the weights now: one at a time is there twice.
    lay_out_weights(network, place.waiting)
    return network.eval().requires_grad_(False)


def _filled_vae(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], place: _Place
) -> AutoencoderKL:
    vae = _filled(lambda: AutoencoderKL(**config), tensors, place)
    fuse_norm_silu(vae)
    has_channels_last = default_ops(place.device, place.dtype).memory_format == torch.channels_last
    if place.device.type == "cpu" or has_channels_last:
        fuse_upsample_conv(vae)  # with channels first, and on other devices, it was not measured
    if place.device.type == "cpu":
        vae.to(memory_format=torch.channels_last)
    return vae


def _text_encoder(
    checkpoint: Path, text_encoder: Path | None, weights: CheckpointWeights
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of the text encoder: the given file's, or the checkpoint's own."""
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
    weights: MotionModuleWeights,
    unet: UNet2DConditionModel,
    place: _Place,
) -> MotionModules:
    tables = weights.positional_encoding
    if tables is None:
        tables = positional_tables(weights.tensors, weights.max_frames)

    def build() -> MotionModules:
        return MotionModules(
            block_channels=tuple(unet.config.block_out_channels),
            layers_per_block=unet.config.layers_per_block,
            max_frames=weights.max_frames,
            mid=weights.has_mid_block,
        )

    tensors = {**weights.tensors, **tables}
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in build().state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in tensors.items()}:
        raise AnimateDiffV2VError(
            "The motion module is of another size than the checkpoint's UNet "
            f"({', '.join(map(str, unet.config.block_out_channels))} channels): "
            "use one that was made for this kind of model."
        )
    return _filled(build, tensors, place, stored=place.device.type == "cpu")


def _vae(
    checkpoint: Path, vae: Path | None, weights: CheckpointWeights
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of the VAE: the given file's, or the checkpoint's own."""
    if vae is not None:
        return load_vae(vae)
    if weights.vae_config is None or weights.vae is None:
        raise AnimateDiffV2VError(
            f"{checkpoint} holds no VAE: give one as vae, for example "
            "vae-ft-mse-840000-ema-pruned.safetensors."
        )
    return weights.vae_config, weights.vae
