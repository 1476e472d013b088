"""The VAE: frames to latents and back, a few frames at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .memory import ShrinkingBatch

logger = logging.getLogger(__name__)

# Frames per pass on an accelerator; halved when its memory runs out.
FRAMES_PER_PASS = 8


class LatentCodec(Protocol):
    """What turns frames into latents and back."""

    def encode(self, frames: Tensor) -> Tensor:
        """Give the latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        frames: [n, height, width, 3], uint8 or float in 0..1.
        """
        ...

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Give the frames of `latents` in order, as chunks [n, height, width, 3], float32, 0..1."""
        ...


class VaeCodec:
    """A codec over diffusers' AutoencoderKL.

    Encoding takes the mean of the posterior, where ComfyUI's VAE draws from it with whatever
    state the global generator is in: the same clip gives the same latents, however it is cut up.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        """Use `vae`, on whatever device and in whatever dtype it is."""
        self.vae = vae
        # Kept from chunk to chunk of a clip, which come in one by one.
        self._encoding = ShrinkingBatch(FRAMES_PER_PASS, what="frames of the VAE")

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Give the latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        frames: [n, height, width, 3], uint8 or float in 0..1; height and width multiples of 8.
        """
        return torch.cat(list(self._passes(self._encode, frames, self._encoding)))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Give the frames of `latents` in order, as chunks [n, height, width, 3], float32, 0..1.

        latents: [frames, 4, height / 8, width / 8], unscaled.
        """
        decoding = ShrinkingBatch(FRAMES_PER_PASS, what="frames of the VAE")
        yield from self._passes(self._decode, latents, decoding)

    def _passes(
        self, run: Callable[[Tensor], Tensor], rows: Tensor, batch: ShrinkingBatch
    ) -> Iterator[Tensor]:
        if self.vae.device.type == "cpu":
            # Larger passes gain nothing there, and single frames keep results the same to the bit
            # whatever the chunk that the caller hands in.
            batch = ShrinkingBatch(1, what="frames of the VAE")
        return batch.run(lambda part: run(rows[part[0] : part[-1] + 1]), range(len(rows)))

    def _encode(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self.vae.device)
        scale = 127.5 if frames.dtype == torch.uint8 else 0.5
        pixels = (pixels.float() / scale - 1.0).permute(0, 3, 1, 2).to(self.vae.dtype)
        mean: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return mean.float().cpu()

    def _decode(self, latents: Tensor) -> Tensor:
        pixels = self.vae.decode(latents.to(self.vae.device, self.vae.dtype)).sample
        images: Tensor = (pixels.float() * 0.5 + 0.5).clamp(0.0, 1.0)
        return images.permute(0, 2, 3, 1).cpu()
