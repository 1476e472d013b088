"""IP-Adapters and their images from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .models.ip_adapter import load_ip_adapter_network
from .models.unet import MotionUNet
from .models.vision_encoder import load_vision_model
from .request import StyleFile
from .sampling import StyleImages
from .video.pictures import read_picture


def load_style(style: StyleFile, *, unet: MotionUNet) -> StyleImages:
    """Load an IP-Adapter, and encode its images with its vision model, which is then freed.

    Raises:
        AnimateDiffV2VError: a file is missing, of another kind, or made for another UNet.
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


def _pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(read_picture(path))).float() / 255
