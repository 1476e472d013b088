"""ComfyUI's spatial transformers, run by this pack's operations where nothing is patched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from comfy.ldm.modules import attention as comfy_attention
from torch import Tensor

from ...pipeline.models.batching import default_chunk_tokens
from ...pipeline.models.ops.eager import KeyValue, attend_to, cross_attention_kv, transform
from ...pipeline.models.ops.image_prompt import ImagePrompt
from ...pipeline.models.ops.linear import linear
from ...pipeline.models.ops.window_memory import RowMemory

ATTENTION_PATCHES = (
    "attn1_patch",
    "attn1_output_patch",
    "attn2_patch",
    "attn2_output_patch",
    "middle_patch",
)
# Attention that users ask for by a flag or by their machine; PyTorch's gives the same up to
# rounding.
_USUAL_ATTENTION = ("attention_basic", "attention_pytorch", "attention_sub_quad")

_Attend = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]


def can_run(block: Any, features: Tensor, options: dict[str, Any]) -> bool:
    """Return whether a transformer is without patches and its weights can be used as they are."""
    return (
        not _is_patched(block, options)
        and comfy_attention.optimized_attention.__name__ in _USUAL_ATTENTION
        and not any(map(is_overridden, block.modules()))
        and all(_is_plain(layer, features) for layer in _weighted(block))
    )


def is_overridden(layer: Any) -> bool:
    """Return whether another pack has replaced a layer's `forward`, by an object patch."""
    return "forward" in vars(layer)


def _is_patched(block: Any, options: dict[str, Any]) -> bool:
    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    if options.get("optimized_attention_override") or any(map(patches.get, ATTENTION_PATCHES)):
        return True
    kind, index = options["block"]
    keys: list[tuple[Any, ...]] = [(kind, index)]
    keys += [(kind, index, layer) for layer in range(len(block.transformer_blocks))]
    return any(key in replaced.get(name, {}) for name in ("attn1", "attn2") for key in keys)


def _weighted(block: Any) -> list[Any]:
    return [layer for layer in block.modules() if getattr(layer, "weight", None) is not None]


def _is_plain(layer: Any, features: Tensor) -> bool:
    """Return whether a layer computes with its weight as it is, without casts or patches."""
    weight = layer.weight
    return (
        not getattr(layer, "comfy_cast_weights", False)
        and not getattr(layer, "weight_function", ())
        and not getattr(layer, "bias_function", ())
        and type(weight.data) is torch.Tensor
        and weight.dtype == features.dtype
        and weight.device == features.device
    )


def run_transformer(
    block: Any,
    features: Tensor,
    normed: Tensor,
    context: Tensor,
    *,
    images: Sequence[ImagePrompt],
    memory: RowMemory | None,
    number: int,
) -> Tensor:
    """Run a transformer.

    Args:
        block: ComfyUI's SpatialTransformer.
        features: [rows, channels, height, width].
        normed: The features after the block's norm.
        context: [prompts, tokens, channels]; consecutive rows share a prompt.
        images: Image prompts to attend to besides the text.
        memory: What the rows see of other windows; None without.
        number: The number of the first cross-attention; see `cross_attention_numbers`.
    """
    fast: Any = _fast(block, number)
    prompts = cross_attention_kv(fast, context, images, rows=len(features))
    tokens_at_once = default_chunk_tokens(features.device)
    return transform(fast, features, normed, prompts, tokens_at_once, memory=memory)


def cross_attention_numbers(unet: Any) -> dict[Any, int]:
    """Return the number of each transformer's first cross-attention in IP-Adapters.

    They count the input blocks, the output blocks, the middle block.
    """
    numbers, count = {}, 0
    blocks: list[Any] = [*unet.input_blocks, *unet.output_blocks, unet.middle_block]
    for block in blocks:
        for layer in block:
            if isinstance(layer, comfy_attention.SpatialTransformer):
                numbers[layer] = count
                count += len(layer.transformer_blocks)
    return numbers


def with_images(
    block: Any, options: dict[str, Any], images: Sequence[ImagePrompt], number: int
) -> dict[str, Any]:
    """Return transformer_options by which a transformer attends to image prompts as well.

    A replacement of its cross-attention by another pack is called first.

    Args:
        block: ComfyUI's SpatialTransformer.
        options: ComfyUI's transformer_options.
        images: The image prompts.
        number: The number of the first cross-attention; see `cross_attention_numbers`.
    """
    return _replacing(
        "attn2",
        block,
        options,
        lambda usual, index: _AttentionWithImages(usual, images, number + index),
    )


def with_memory(
    block: Any, options: dict[str, Any], memory: RowMemory, number: int
) -> dict[str, Any]:
    """Return transformer_options by which a transformer sees other windows.

    A self-attention that another pack has replaced, as guidance by perturbed attention does, sees
    the frames of its own window alone: replacements need not cope with more keys than queries.

    Args:
        block: ComfyUI's SpatialTransformer.
        options: ComfyUI's transformer_options.
        memory: The memory.
        number: The number of the first cross-attention; see `cross_attention_numbers`.
    """
    return _replacing(
        "attn1",
        block,
        options,
        lambda usual, index: (
            _AttentionWithMemory(memory, number + index) if usual is _attend else usual
        ),
    )


def _replacing(
    name: str, block: Any, options: dict[str, Any], replace: Callable[[_Attend, int], _Attend]
) -> dict[str, Any]:
    """Return transformer_options in which an attention of each layer is replaced."""
    replaced = options.get("patches_replace", {})
    attentions = dict(replaced.get(name, {}))
    for index in range(len(block.transformer_blocks)):
        key = (*options["block"], index)
        usual = attentions.get(key, attentions.get(options["block"], _attend))
        attentions[key] = replace(usual, index)
    return {**options, "patches_replace": {**replaced, name: attentions}}


def _attend(query: Tensor, key: Tensor, value: Tensor, extra: dict[str, Any]) -> Tensor:
    attended: Tensor = comfy_attention.optimized_attention(
        query,
        key,
        value,
        extra["n_heads"],
        attn_precision=extra["attn_precision"],
        transformer_options=extra,
    )
    return attended


@dataclass(frozen=True)
class _AttentionWithImages:
    """A replacement of a cross-attention, as ComfyUI calls it, that adds image prompts."""

    usual: _Attend
    images: Sequence[ImagePrompt]
    number: int

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, extra: dict[str, Any]) -> Tensor:
        attention = SimpleNamespace(heads=extra["n_heads"], index=self.number)
        shown = [
            KeyValue(*image.keys_and_values(attention), image.weights) for image in self.images
        ]
        return self.usual(query, key, value, extra) + attend_to(attention, query, shown)


@dataclass(frozen=True)
class _AttentionWithMemory:
    """A replacement of a self-attention, as ComfyUI calls it, that adds other windows."""

    memory: RowMemory
    number: int

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, extra: dict[str, Any]) -> Tensor:
        if len(query) != self.memory.rows:  # HyperTile has cut the frames into more rows
            return _attend(query, key, value, extra)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return _attend(query, key, value, extra)

        return self.memory.attended(self.number, query, key, value, attend)


class _Linear:
    """A linear layer, or a 1x1 convolution, on tokens."""

    def __init__(self, layer: Any) -> None:
        self.weight, self.bias = layer.weight.flatten(1), layer.bias

    def __call__(self, tokens: Tensor) -> Tensor:
        return linear(tokens, self.weight, self.bias)


def _fast(block: Any, number: int) -> SimpleNamespace:
    """Return a view of the transformer's layers for this pack's operations."""
    return SimpleNamespace(
        proj_in=_Linear(block.proj_in),
        proj_out=_Linear(block.proj_out),
        transformer_blocks=[
            _fast_layer(layer, number + index)
            for index, layer in enumerate(block.transformer_blocks)
        ],
    )


def _fast_layer(layer: Any, number: int) -> SimpleNamespace:
    gated, _, projection = layer.ff.net
    return SimpleNamespace(
        attn1=_fast_attention(layer.attn1),
        attn2=_fast_attention(layer.attn2, number),
        norm1=layer.norm1,
        norm2=layer.norm2,
        norm3=layer.norm3,
        ff=SimpleNamespace(
            net=[SimpleNamespace(proj=_Linear(gated.proj)), None, _Linear(projection)]
        ),
    )


def _fast_attention(attention: Any, number: int = 0) -> SimpleNamespace:
    parts = {name: _Linear(getattr(attention, name)) for name in ("to_q", "to_k", "to_v")}
    to_out = [_Linear(attention.to_out[0])]
    return SimpleNamespace(heads=attention.heads, index=number, to_out=to_out, **parts)
