"""Where ComfyUI wants networks to be, and in which precision."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import comfy.model_management as memory
import torch

from ...pipeline.models.fp8_weights import STORED as FP8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where ComfyUI wants networks to compute and to wait, and in which precision."""

    unet: torch.device
    unet_dtype: torch.dtype
    fp8_weights: bool
    """Whether the UNet's weights are stored in 8 bits, whatever it computes in."""
    text_encoder: torch.device
    vae: torch.device
    vae_dtype: torch.dtype
    waiting: torch.device

    @staticmethod
    def chosen() -> Places:
        """Ask ComfyUI, which knows the machine and the flags that it was started with.

        What a flag asks for and cannot be had is said in the log.
        """
        unet = unet_device()
        vae = memory.vae_device()
        text_encoder = memory.text_encoder_device()
        _say_what_stays_whole()
        _say_what_stays_float32(text_encoder)
        stored, computed = _unet_dtypes(unet)
        return Places(
            unet=unet,
            unet_dtype=computed,
            fp8_weights=stored.itemsize == 1,
            text_encoder=text_encoder,
            vae=vae,
            # ComfyUI's own choice for this VAE: in float16 some of them give black pictures.
            vae_dtype=memory.vae_dtype(vae, [torch.bfloat16, torch.float32]),
            waiting=memory.unet_offload_device(),
        )


def unet_device() -> torch.device:
    """Where ComfyUI wants the UNet to compute."""
    return memory.get_torch_device()


def _unet_dtypes(device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes that ComfyUI wants a UNet's weights in, and its arithmetic."""
    supported = [torch.float16, torch.bfloat16, torch.float32]
    stored = memory.unet_dtype(device=device, supported_dtypes=supported)
    computed = memory.unet_manual_cast(stored, device, supported) or stored
    ours = FP8 if stored.itemsize == 1 else computed
    if ours != stored:
        logger.info(
            "ComfyUI asks for weights in %s; AnimateDiff V2V stores them in %s.", stored, ours
        )
    return stored, computed


def _say_what_stays_whole() -> None:
    if memory.vram_state in (memory.VRAMState.LOW_VRAM, memory.VRAMState.NO_VRAM):
        logger.info(
            "ComfyUI was started with --lowvram or --novram; AnimateDiff V2V's networks go to the "
            "device whole (3 GB in float16), those of one phase at a time."
        )


def _say_what_stays_float32(device: torch.device) -> None:
    """The encoder takes 0.5 GB and milliseconds, and float32 is what ComfyUI's computes in."""
    asked = memory.text_encoder_dtype(device)
    if asked not in (torch.float16, torch.float32):
        logger.info(
            "ComfyUI asks for a text encoder in %s; AnimateDiff V2V keeps it in float32.", asked
        )
