"""The VAE: frames to latents and back, a few frames at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import AnimateDiffV2VError
from ..files.finite import is_finite
from .autoencoder import Autoencoder
from .batching import ShrinkingBatch

logger = logging.getLogger(__name__)

# A pass on an accelerator takes two frames of 512x512, which keep it busy and need 0.8 GB in
# float16, or up to eight smaller frames. It is halved when memory runs out.
PIXELS_PER_PASS = 2 * 512 * 512
FRAMES_PER_PASS = 8
# The most channels of its VAE.
SD15_CHANNELS = 512
FRAMES_OF_THE_VAE = "frames of the VAE"


_NOT_FINITE = (
    "that are not finite (NaN or infinite), which are black in a video: some VAEs overflow in "
    "float16. Compute in more room (--dtype float32 or bfloat16; ComfyUI: --fp32-vae or "
    "--bf16-vae), or take another VAE, for example vae-ft-mse-840000-ema-pruned."
)


def default_frames_per_pass(height: int, width: int) -> int:
    """Return how many frames of a size go through the VAE at a time on an accelerator."""
    return max(1, min(FRAMES_PER_PASS, PIXELS_PER_PASS // (height * width)))


# Factor from the VAE's latents to those that Stable Diffusion 1.5 was trained on.
LATENT_SCALE = 0.18215


class LatentCodec(Protocol):
    """A codec between frames and latents."""

    @property
    def is_smaller_than_sd15(self) -> bool:
        """True when its VAE has fewer channels than Stable Diffusion 1.5's: its latents differ."""
        ...

    def encode(self, frames: Tensor) -> Tensor:
        """Return the latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        Args:
            frames: [n, height, width, 3], uint8 or float in 0..1.
        """
        ...

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the frames of `latents` in order, as chunks [n, height, width, 3], float32, 0..1.

        They may lie on the VAE's device.
        """
        ...


class VaeCodec:
    """A codec that uses a VAE.

    Encoding returns the mean of the posterior: the same video always has the same latents, however
    it is cut into chunks. ComfyUI's VAE samples from the posterior with the global random
    generator.
    """

    def __init__(self, vae: Autoencoder, *, frames_per_pass: int | None = None) -> None:
        """Use `vae`, on whatever device and in whatever dtype it is.

        Args:
            vae: The network.
            frames_per_pass: Largest number of frames at a time; None is the default of an
                accelerator. On a CPU it is always 1.
        """
        self.vae = vae
        self._frames_per_pass = frames_per_pass
        # An attribute, because the chunks of a video arrive in separate calls.
        self._encoding = ShrinkingBatch(FRAMES_OF_THE_VAE)

    @property
    def is_smaller_than_sd15(self) -> bool:
        """True when the VAE has fewer channels than Stable Diffusion 1.5's: its latents differ."""
        return max(self.vae.config.block_out_channels) < SD15_CHANNELS

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Return the latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        Args:
            frames: [n, height, width, 3], uint8 or float in 0..1; height and width multiples of 8.
        """
        height, width = frames.shape[1:3]
        at_most = self.frames_at_once(height, width)
        return torch.cat(list(self._encoding.run(*_by_index(self._encode, frames), at_most)))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the frames of `latents` in order, as chunks [n, height, width, 3], float32, 0..1.

        Args:
            latents: [frames, 4, height / 8, width / 8], unscaled.
        """
        height, width = (8 * side for side in latents.shape[2:])
        decoding = ShrinkingBatch(FRAMES_OF_THE_VAE)
        at_most = self.frames_at_once(height, width)
        yield from decoding.run(*_by_index(self._decode, latents), at_most)

    def frames_at_once(self, height: int, width: int) -> int:
        """Return how many frames of a size go through the network at a time, if memory allows."""
        if self.vae.device.type == "cpu":
            # Larger passes are no faster there, and single frames give the same bits whatever
            # the chunks that callers pass in.
            return 1
        return self._frames_per_pass or default_frames_per_pass(height, width)

    def _encode(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self.vae.device)
        scale = 127.5 if frames.dtype == torch.uint8 else 0.5
        pixels = (pixels.float() / scale - 1.0).permute(0, 3, 1, 2).to(self.vae.dtype)
        return check_encoded(self.vae.encode(pixels).float().cpu())

    def _decode(self, latents: Tensor) -> Tensor:
        pixels = self.vae.decode(latents.to(self.vae.device, self.vae.dtype))
        check_decoded(pixels)
        images: Tensor = (pixels.float() * 0.5 + 0.5).clamp(0.0, 1.0)
        return images.permute(0, 2, 3, 1)


def check_encoded(latents: Tensor) -> Tensor:
    """Return `latents`; raise AnimateDiffV2VError if they are not finite."""
    if not is_finite(latents):
        raise AnimateDiffV2VError(f"The VAE makes latents of the frames {_NOT_FINITE}")
    return latents


def check_decoded(frames: Tensor) -> Tensor:
    """Return `frames`; raise AnimateDiffV2VError if they are not finite."""
    if not is_finite(frames):
        raise AnimateDiffV2VError(f"The VAE gives frames {_NOT_FINITE}")
    return frames


def _by_index(
    run: Callable[[Tensor], Tensor], rows: Tensor
) -> tuple[Callable[[Sequence[int]], Tensor], range]:
    """Return `run` for a range of row indices, and the indices of all rows."""
    return lambda part: run(rows[part[0] : part[-1] + 1]), range(len(rows))


def fuse_upsample_conv(vae: Autoencoder) -> None:
    """Replace upsampling and convolution in a VAE's decoder by one step: 15 % fewer operations."""
    decoder: Any = vae.decoder
    for block in decoder.up_blocks:
        if block.upsamplers is not None:
            block.upsamplers = nn.ModuleList(UpsampleConv2d(up.conv) for up in block.upsamplers)


class UpsampleConv2d(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution with zero padding, in one step.

    After doubling, each pixel is a block of 2x2 equal pixels, on which a 3x3 kernel acts like a 2x2
    kernel of sums of its taps. With these sums computed once, as the 4x4 kernel of a transposed
    convolution of stride 2, 4/9 of the multiplications remain.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Replace a nearest-neighbour doubling that `conv` follows."""
        super().__init__()
        self.weight = nn.Parameter(upsample_kernel(conv.weight.detach()), requires_grad=False)
        self.bias = conv.bias

    def forward(self, features: Tensor, *_: object) -> Tensor:
        """Map [rows, channels, height, width] to twice the height and width."""
        return functional.conv_transpose2d(features, self.weight, self.bias, stride=2, padding=1)


def upsample_kernel(weight: Tensor) -> Tensor:
    """Return the transposed convolution's kernel, [in, out, 4, 4] for one of [out, in, 3, 3]."""
    kernel = weight.new_zeros(*weight.shape[:2], 4, 4, dtype=torch.float32)
    for row in range(2):
        for column in range(2):
            kernel[..., row : row + 3, column : column + 3] += weight
    # Convolution layers compute correlations; the transposed ones need the kernel rotated by 180°.
    kernel = kernel.flip(2, 3).transpose(0, 1).to(weight.dtype)
    return kernel.contiguous(memory_format=torch.channels_last)
