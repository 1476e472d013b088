"""IP-Adapters and their images from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .errors import AnimateDiffV2VError
from .models.ip_adapter import load_ip_adapter_network
from .models.unet import MotionUNet
from .models.vision_encoder import load_vision_model
from .request import StyleFile
from .sampling import StyleImages


def load_style(style: StyleFile, *, unet: MotionUNet) -> StyleImages:
    """Load an IP-Adapter, and look at its images with its vision model, which is let go again.

    Raises AnimateDiffV2VError when a file is missing, of another kind, or made for another UNet.
    """
    adapter = load_ip_adapter_network(style.adapter, device=unet.device, dtype=unet.dtype)
    adapter.check_fits(unet.unet)
    vision = load_vision_model(style.vision_model, device=unet.device, dtype=unet.dtype)
    as_tokens = adapter.takes_tokens
    seen = [vision.encode(_pixels(path), as_tokens=as_tokens) for path in style.images]
    return StyleImages(
        adapter=adapter,
        embeddings=torch.cat(seen),
        empty=vision.empty(as_tokens=as_tokens),
        weight=style.weight,
        weights=style.weights,
        arrangement=style.arrangement,
        span=style.span,
    )


def read_picture(path: Path) -> Image.Image:
    """Read one picture as RGB, upright; raises AnimateDiffV2VError when it is none."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise AnimateDiffV2VError(f"{path} cannot be read as a picture: {error}.") from error


def _pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(read_picture(path))).float() / 255
