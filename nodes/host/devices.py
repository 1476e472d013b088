"""The devices and dtypes that ComfyUI chooses for networks."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import comfy.model_management as memory
import torch

from ...pipeline.models.fp8_weights import STORED as FP8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Devices:
    """The devices and dtypes that ComfyUI chooses for each network."""

    unet: torch.device
    unet_dtype: torch.dtype
    fp8_weights: bool
    """True when the UNet's weights are stored in 8 bits, whatever dtype it computes in."""
    text_encoder: torch.device
    vae: torch.device
    vae_dtype: torch.dtype
    offload: torch.device

    @staticmethod
    def of_comfyui() -> Devices:
        """Ask ComfyUI, which knows the machine and its own command line flags.

        Flags that this pack cannot follow are logged.
        """
        unet = unet_device()
        vae = memory.vae_device()
        text_encoder = memory.text_encoder_device()
        _log_if_low_vram()
        _log_text_encoder_dtype(text_encoder)
        stored, computed = _unet_dtypes(unet)
        return Devices(
            unet=unet,
            unet_dtype=computed,
            fp8_weights=stored.itemsize == 1,
            text_encoder=text_encoder,
            vae=vae,
            # The dtypes that ComfyUI allows for this VAE: in float16 some give black pictures.
            vae_dtype=memory.vae_dtype(vae, [torch.bfloat16, torch.float32]),
            offload=memory.unet_offload_device(),
        )


def unet_device() -> torch.device:
    """Return the device that ComfyUI chooses for the UNet."""
    return memory.get_torch_device()


def _unet_dtypes(device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtypes that ComfyUI chooses for a UNet: stored weights, and computation."""
    supported = [torch.float16, torch.bfloat16, torch.float32]
    stored = memory.unet_dtype(device=device, supported_dtypes=supported)
    computed = memory.unet_manual_cast(stored, device, supported) or stored
    ours = FP8 if stored.itemsize == 1 else computed
    if ours != stored:
        logger.info(
            "ComfyUI asks for weights in %s; AnimateDiff V2V stores them in %s.", stored, ours
        )
    return stored, computed


def _log_if_low_vram() -> None:
    if memory.vram_state in (memory.VRAMState.LOW_VRAM, memory.VRAMState.NO_VRAM):
        logger.info(
            "ComfyUI was started with --lowvram or --novram; AnimateDiff V2V still loads each "
            "network as a whole (3 GB in float16), only those of one phase at a time."
        )


def _log_text_encoder_dtype(device: torch.device) -> None:
    """Log if ComfyUI asks for neither float32 nor float16; it runs both in float32 itself."""
    asked = memory.text_encoder_dtype(device)
    if asked not in (torch.float16, torch.float32):
        logger.info(
            "ComfyUI asks for a text encoder in %s; AnimateDiff V2V keeps it in float32.", asked
        )
