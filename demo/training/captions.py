"""Encoding of captions, and the stage that trains the text encoder to recognise their content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.tokenizer import END_TOKEN, START_TOKEN, tokenize
from torch import Tensor, nn
from torch.nn import functional

from .loop import Plan, train
from .networks import TEXT_CHANNELS, new_text_encoder
from .scenes import COLOURS, SHAPES, STYLES, TEXTURES, Scene, caption, random_scene

TEXT = Plan(steps=1_500, learning_rate=2e-3)
CAPTIONS = 32
LENGTH = 77

KNOWN: dict[str, tuple[str | None, ...]] = {
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "shape": SHAPES,
    "background": tuple(COLOURS),
    "background_texture": TEXTURES,
    "style": (None, *STYLES),
}


@cache
def _ids(text: str) -> tuple[int, ...]:
    ids = [START_TOKEN, *tokenize(text)]
    return (*ids, *[END_TOKEN] * (LENGTH - len(ids)))


def encoded(text_encoder: ClipTextModel, texts: Sequence[str]) -> Tensor:
    """Encode captions: [n, 77, channels]."""
    return text_encoder(text_encoder.embed(torch.tensor([_ids(text) for text in texts])))


class _Examiner(nn.Module):
    """Predicts the content of a caption from its tokens, by cross-attention."""

    def __init__(self, text_encoder: ClipTextModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.questions = nn.Parameter(torch.randn(len(KNOWN), TEXT_CHANNELS))
        self.answers = nn.ModuleList(nn.Linear(TEXT_CHANNELS, len(v)) for v in KNOWN.values())

    def forward(self, texts: Sequence[str], truths: Tensor) -> Tensor:
        tokens = encoded(self.text_encoder, texts)
        shares = (tokens @ self.questions.T).softmax(dim=1)
        heard = shares.transpose(1, 2) @ tokens
        return error_of(self.answers, heard, truths)


def error_of(answers: nn.ModuleList, perceived: Tensor, truths: Tensor) -> Tensor:
    """Return the mean cross-entropy of answers from `perceived` [n, answers, channels]."""
    losses = [
        functional.cross_entropy(answer(perceived[:, index]), truths[:, index])
        for index, answer in enumerate(answers)
    ]
    return torch.stack(losses).mean()


def trained_text_encoder(folder: Path) -> ClipTextModel:
    """Train a text encoder to distinguish colours, shapes, textures and styles."""
    torch.manual_seed(2)
    text_encoder = new_text_encoder()
    examiner = _Examiner(text_encoder)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        scenes = [random_scene(rng) for _ in range(CAPTIONS)]
        truths = torch.tensor([truth(scene) for scene in scenes])
        return examiner([caption(scene) for scene in scenes], truths)

    train("text", TEXT, examiner, loss_of, folder)
    return text_encoder


def truth(scene: Scene) -> list[int]:
    """Return the index of a scene's value for each property in `KNOWN`."""
    return [values.index(getattr(scene, name)) for name, values in KNOWN.items()]
