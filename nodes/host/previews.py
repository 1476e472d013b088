"""Animated previews of a video while it is sampled.

ComfyUI's frontend shows a preview of any picture type: a WebP of several frames plays in
Nodes 2.0, and the canvas draws its first frame.
"""

from __future__ import annotations

import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import comfy.latent_formats
import comfy.model_management as memory
import latent_preview
import torch
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

if TYPE_CHECKING:
    from ...pipeline.models.vae import LatentCodec

# Type, picture, and the size that ComfyUI scales it to; None leaves it unscaled.
Preview = tuple[str, Any, int | None]

FRAME_RATE = 8
MAX_FRAMES = 32
# Decoding takes longer than ComfyUI's previewers.
MAX_DECODED_FRAMES = 8
LONGER_SIDE = 256
# Previews take at most a tenth of the time, with at least this pause between them.
SECONDS_BETWEEN = 0.5
REST_AFTER_WORK = 9


class Previews:
    """Makes previews of latents with ComfyUI's preview method, or with an unusual VAE itself."""

    def __init__(self, codec: LatentCodec | None = None) -> None:
        """Get ComfyUI's previewer; with the preview method "none" there is none.

        Args:
            codec: The codec of the latents. ComfyUI's previewers know the latents of Stable
                Diffusion 1.5; what a smaller VAE encodes would have other colours.
        """
        self._previewer = latent_preview.get_previewer(
            memory.get_torch_device(), comfy.latent_formats.SD15()
        )
        self._codec = codec if codec is not None and codec.is_smaller_than_sd15 else None
        self._next = 0.0

    def of(self, latents: Tensor) -> Preview | None:
        """Return a preview of latents [frames, 4, height / 8, width / 8], scaled as for the UNet.

        None when previews are off, or when the last one was too recent.
        """
        started = time.monotonic()
        if self._previewer is None or started < self._next:
            return None
        if self._codec is not None:
            preview = _animated(_decoded(self._codec, latents), started)
        else:
            preview = _preview(self._previewer, latents.to(memory.get_torch_device()), started)
        ended = time.monotonic()
        self._next = ended + max(SECONDS_BETWEEN, REST_AFTER_WORK * (ended - started))
        return preview


def _preview(previewer: latent_preview.LatentPreviewer, latents: Tensor, now: float) -> Preview:
    if len(latents) == 1 or _is_animated_by_another_pack(previewer):
        return previewer.decode_latent_to_preview_image("JPEG", latents)
    parts = torch.split(latents[spread(len(latents))], 1)
    return _animated([_picture(previewer, latent) for latent in parts], now)


def _decoded(codec: LatentCodec, latents: Tensor) -> list[Image.Image]:
    shown = latents[spread(len(latents), MAX_DECODED_FRAMES)]
    chunks = codec.decode(comfy.latent_formats.SD15().process_out(shown))
    frames = torch.cat([chunk.cpu() for chunk in chunks])
    return [_enlarged(Image.fromarray(frame)) for frame in (frames * 255).byte().numpy()]


def _animated(frames: list[Image.Image], now: float) -> Preview:
    if len(frames) == 1:
        return "JPEG", frames[0], None
    # The canvas draws only the first frame: start at another one each time, as if it played.
    first = int(now * FRAME_RATE) % len(frames)
    return "JPEG", AnimatedPicture.of(frames[first:] + frames[:first]), None


def _is_animated_by_another_pack(previewer: latent_preview.LatentPreviewer) -> bool:
    """Return whether another pack has replaced the previewer by one that takes all frames."""
    own = latent_preview.LatentPreviewer.decode_latent_to_preview_image
    return type(previewer).decode_latent_to_preview_image is not own


def _picture(previewer: latent_preview.LatentPreviewer, latents: Tensor) -> Image.Image:
    return _enlarged(previewer.decode_latent_to_preview(latents))


def _enlarged(picture: Image.Image) -> Image.Image:
    scale = LONGER_SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


class AnimatedPicture(WebPImageFile):
    """An animated WebP that ComfyUI's server accepts as a picture; it always saves as WebP.

    The server only knows JPEG and PNG, but browsers detect the type from the data.
    """

    _data: bytes

    @classmethod
    def of(cls, frames: list[Image.Image]) -> AnimatedPicture:
        """Join pictures of the same size into an endless loop."""
        data = BytesIO()
        frames[0].save(
            data,
            "WEBP",
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / FRAME_RATE),
            loop=0,
            quality=60,
            method=0,
        )
        picture = cls(BytesIO(data.getvalue()))
        picture._data = data.getvalue()
        return picture

    def save(self, fp: Any, format: str | None = None, **_options: Any) -> None:
        """Write the file."""
        del format
        fp.write(self._data)


def spread(count: int, most: int = MAX_FRAMES) -> Tensor:
    """Return the indices of at most `most` frames, evenly spread over `count`."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()
