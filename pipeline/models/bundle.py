"""The networks of a job, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..choices import checked_type
from ..curve import Strength
from ..files import LoraEntry, MotionFamily
from ..request import ModelFiles
from .batching import ChunkSizes, MemoryBound
from .last_result import LastResult
from .loading import Placement, ReadyNetworks, load_networks
from .text_encoder import ClipTextEncoder, FindEmbedding, TextEncoder
from .unet import MotionUNet
from .vae import LatentCodec, VaeCodec


@dataclass(frozen=True)
class Models:
    """The networks of a job: text encoder, UNet with motion modules, and latent codec."""

    unet: MotionUNet
    text_encoder: TextEncoder
    codec: LatentCodec
    has_loras: bool = False
    unsampled_latents: LastResult = field(default_factory=LastResult)
    """Keeps the UNet's latest result for the noise type "unsample"."""
    bound: MemoryBound | None = None
    """The device to compute on and the memory to stay within; None leaves the networks where they
    are."""
    chunks: ChunkSizes | None = None
    """The sizes of the chunks that go through the UNet; None is the default of its device."""
    replicas: tuple[MotionUNet, ...] = ()
    """Copies of the UNet on other devices, which share the context windows of a video with it."""

    @classmethod
    def of(
        cls,
        networks: ReadyNetworks,
        files: ModelFiles,
        *,
        find_embedding: FindEmbedding | None = None,
    ) -> Models:
        """Return the models made of networks that were loaded from `files`.

        Args:
            networks: All of them.
            files: The settings of the text encoder are read from it.
            find_embedding: Returns the tensor that `embedding:name` stands for.
        """
        unet, text_model, vae = networks
        assert unet is not None and text_model is not None and vae is not None
        encoder = ClipTextEncoder(
            text_model, clip_skip=files.clip_skip, find_embedding=find_embedding
        )
        return cls(unet, encoder, VaeCodec(vae), has_loras=bool(files.loras))

    @property
    def motion_family(self) -> MotionFamily | None:
        """Kind of the motion module in the UNet; None without one."""
        return self.unet.family


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
    motion_scale: Strength = 1.0,
    clip_skip: int = 1,
    fp8_weights: bool = False,
    find_embedding: FindEmbedding | None = None,
) -> Models:
    """Load a Stable Diffusion 1.5 checkpoint, an AnimateDiff motion module and LoRAs.

    Args:
        checkpoint: A file of Stable Diffusion 1.5.
        motion_module: None denoises each frame by itself.
        vae: A file whose VAE replaces the checkpoint's.
        text_encoder: A file whose text encoder replaces the checkpoint's.
        loras: Merged into UNet and text encoder, in this order.
        motion_loras: Merged into the motion module, in this order.
        device: The device of the networks.
        dtype: The dtype to compute in.
        motion_scale: Above 1 sharpens attention over time: more motion; 1 is as trained.
        clip_skip: 1 for the text encoder's last layer, 2 for the one before it.
        fp8_weights: Store the weights of the UNet and its motion module in 8 bits.
        find_embedding: Returns the tensor that `embedding:name` in a prompt stands for.

    Raises:
        AnimateDiffV2VError: a file is missing, is of another kind, or lacks a part.
    """
    files = ModelFiles(
        checkpoint=checkpoint,
        motion_module=motion_module,
        vae=vae,
        text_encoder=text_encoder,
        loras=loras,  # type: ignore[arg-type]  # it makes tuples of lists
        motion_loras=motion_loras,  # type: ignore[arg-type]
        motion_scale=motion_scale,
        clip_skip=clip_skip,
    )
    placement = Placement(
        checked_type("device", device, torch.device), checked_type("dtype", dtype, torch.dtype)
    )
    networks = load_networks(files, placement, fp8_weights=fp8_weights)
    return Models.of(networks, files, find_embedding=find_embedding)
