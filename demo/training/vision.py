"""A vision model like CLIP's, and the stage that trains it to recognise scenes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from .captions import KNOWN, error_of, truth
from .loop import Plan, train
from .networks import VISION, VISION_CHANNELS, new_vision_model
from .scenes import Picture, draw, random_scene

LOOKING = Plan(steps=2_000, learning_rate=1e-3, average_decay=0.99)
PICTURES = 32
# CLIP's preprocessing: github.com/openai/CLIP, clip/clip.py.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def looked_at(vision: CLIPVisionModelWithProjection, pictures: Iterable[Picture]) -> Tensor:
    """Embed pictures [height, width, 3], 0 to 1, square: [n, channels]."""
    pixels = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2)
    size = VISION["image_size"]
    pixels = functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    embeddings: Tensor = vision((pixels.clamp(0, 1) - mean) / deviation).image_embeds
    return embeddings


class _Examiner(nn.Module):
    """Predicts the content of a picture from its embedding."""

    def __init__(self, vision: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.vision = vision
        self.answers = nn.ModuleList(nn.Linear(VISION_CHANNELS, len(v)) for v in KNOWN.values())

    def forward(self, pictures: Iterable[Picture], truths: Tensor) -> Tensor:
        seen = looked_at(self.vision, pictures).unsqueeze(1)
        return error_of(self.answers, seen.expand(-1, len(self.answers), -1), truths)


def trained_vision(folder: Path) -> CLIPVisionModelWithProjection:
    """Train a vision model to distinguish colours, shapes, textures and styles."""
    torch.manual_seed(8)
    vision = new_vision_model()
    examiner = _Examiner(vision)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        scenes = [random_scene(rng) for _ in range(PICTURES)]
        truths = torch.tensor([truth(scene) for scene in scenes])
        return examiner([draw(scene, rng.random()) for scene in scenes], truths)

    train("vision", LOOKING, examiner, loss_of, folder)
    return vision
