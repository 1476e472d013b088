"""Prompt Travel: a row for each frame, blended between keyframes."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from .declared import PACKAGE, without_comfyui


class Clip:
    """Encodes a text as its length."""

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, *, return_pooled):
        assert return_pooled
        return torch.full((1, 77, 4), float(len(tokens))), f"pooled {tokens}"


@pytest.fixture
def travel(monkeypatch):
    with without_comfyui():
        module = importlib.import_module(f"{PACKAGE}.prompt_travel")
        outputs = lambda *values: values  # noqa: E731
        monkeypatch.setattr(module, "io", SimpleNamespace(NodeOutput=outputs))
        yield module.PromptTravel


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"frames": 5}, [1, 2, 3, 3, 3]),
        ({"frames": 9, "latents": {"samples": torch.zeros(3, 4, 8, 8)}}, [1, 2, 3]),
        ({"frames": 2, "pre_text": "ab", "app_text": "c"}, [6, 7]),
    ],
)
def test_rows(travel, given, expected):
    ((conditioning,),) = travel.execute(clip=Clip(), schedule="0: x\n2: xyz", **given)
    encodings, extras = conditioning
    assert encodings.shape == (len(expected), 77, 4)
    assert encodings[:, 0, 0].tolist() == expected
    assert extras["pooled_output"].startswith("pooled ")
