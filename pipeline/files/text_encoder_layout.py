"""The CLIP text encoder of Stable Diffusion 1: its architecture and its table of tensors.

Names follow transformers 4's CLIPTextModel, which is stored in checkpoints of Stable Diffusion 1
under ``cond_stage_model.transformer.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .tensor_specs import Shapes, TensorSpec, affine, voted_size

_PREFIX = "text_model."


def infer_text_encoder_config(shapes: Shapes) -> dict[str, Any] | None:
    """Infer the architecture from the shapes of a CLIP text encoder.

    Args:
        shapes: names without any prefix, ``text_model.`` included: ``embeddings. ...``.

    Returns keyword arguments for transformers' ``CLIPTextConfig``, or None if the names are
    not those of such a text encoder.
    """
    layers = {int(m[1]) for m in map(re.compile(r"encoder\.layers\.(\d+)\.").match, shapes) if m}
    tokens = "embeddings.token_embedding.weight"
    positions = "embeddings.position_embedding.weight"
    if not layers or tokens not in shapes:
        return None
    hidden = voted_size(shapes, [(tokens, 1), (positions, 1), ("final_layer_norm.weight", 0)])
    intermediate = voted_size(
        shapes, [(f"encoder.layers.{layer}.mlp.fc1.weight", 0) for layer in layers]
    )
    if hidden is None or intermediate is None:
        return None
    return {
        "vocab_size": shapes[tokens][0],
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // 64),
        "max_position_embeddings": voted_size(shapes, [(positions, 0)]) or 77,
        "hidden_act": "quick_gelu",
    }


def text_encoder_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List every tensor of the text encoder; only diffusers' names begin with ``text_model.``."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    yield from _affine("embeddings.token_embedding", config["vocab_size"], hidden, bias=False)
    yield from _affine(
        "embeddings.position_embedding", config["max_position_embeddings"], hidden, bias=False
    )
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _affine(f"{layer}.self_attn.{part}", hidden, hidden)
        yield from _affine(f"{layer}.layer_norm1", hidden)
        yield from _affine(f"{layer}.mlp.fc1", inner, hidden)
        yield from _affine(f"{layer}.mlp.fc2", hidden, inner)
        yield from _affine(f"{layer}.layer_norm2", hidden)
    yield from _affine("final_layer_norm", hidden)


def _affine(name: str, *shape: int, bias: bool = True) -> Iterator[TensorSpec]:
    return affine(_PREFIX + name, name, *shape, bias=bias)
