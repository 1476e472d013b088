"""The stage that trains an IP-Adapter: a picture instead of the prompt, the UNet frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.ip_adapter import IpAdapter
from animatediff_v2v.pipeline.models.ops.image_prompt import ImagePrompt
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from .base_model import Batch, draw_batch, noised_stills
from .captions import encoded
from .diffusion import picture_error, timesteps
from .examples import Examples
from .loop import Plan, frozen, train
from .networks import new_ip_adapter
from .scenes import draw
from .vision import looked_at

STYLE_IMAGE = Plan(steps=3_000, learning_rate=1e-3, average_decay=0.99)
BATCH = 16
WITHOUT_WORDS = 0.5
WITHOUT_PICTURE = 0.1


def trained_ip_adapter(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
    vision: CLIPVisionModelWithProjection,
) -> IpAdapter:
    """Train an IP-Adapter, starting from the keys and values for text.

    As in arXiv 2308.06721, on single frames and both noise schedules, like the UNet. The picture
    shows the scene at another time, so that it shows the object, but not its position.
    """
    torch.manual_seed(9)
    for network in (unet, text_encoder, vision):
        frozen(network)
    adapter = new_ip_adapter(unet)
    denoiser = MotionUNet(unet, None)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, BATCH)
        seen = noised_stills(batch, timesteps(BATCH, generator), generator)
        captions = [c if rng.random() > WITHOUT_WORDS else "" for c in batch.captions]
        embeddings = looked_at(vision, _at_other_times(examples, batch, rng))
        embeddings[torch.from_numpy(rng.random(BATCH) < WITHOUT_PICTURE)] = 0
        prompt = ImagePrompt(
            adapter.layers, adapter.image_proj(embeddings), torch.ones(BATCH, 1, 1)
        )
        predicted = denoiser(
            seen.sample,
            seen.timesteps,
            encoded(text_encoder, captions),
            num_frames=1,
            images=[prompt],
        )
        return picture_error(predicted, seen, batch.masks[:, 0])

    train("style_image", STYLE_IMAGE, adapter, loss_of, folder)
    return adapter


def _at_other_times(examples: Examples, batch: Batch, rng: np.random.Generator) -> list[np.ndarray]:
    return [
        draw(examples.scenes[row][side], rng.random())
        for row, side in zip(batch.rows, batch.sides, strict=True)
    ]
