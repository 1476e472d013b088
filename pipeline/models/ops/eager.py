"""How features go through the layers of Stable Diffusion's UNet.

The layers are diffusers' modules, under its key names; the arithmetic is theirs. What differs is
what happens around it: keys and values of a prompt are made once for all frames that have it, and
nothing is divided by one or copied without need. The features may lie in memory as they like,
channels first or last. A layer that works on each row alone may be given a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .casting import weight_in
from .frame_norm import group_norm
from .image_prompt import ImagePrompt
from .linear import linear, project_together


def resnet(block: Any, features: Tensor, embedding: Tensor | None, num_frames: int) -> Tensor:
    """A residual block.

    features: [clips * num_frames, channels, height, width].
    embedding: [1, channels], of the time step, after its activation; None for a block without one.
    """
    hidden = block.conv1(activated_norm(block.norm1, features, num_frames))
    if embedding is not None:
        hidden = hidden + block.time_emb_proj(embedding)[:, :, None, None]
    hidden = block.conv2(activated_norm(block.norm2, hidden, num_frames))
    shortcut = features if block.conv_shortcut is None else block.conv_shortcut(features)
    result: Tensor = hidden.add_(shortcut)
    return result


def activated_norm(norm: Any, features: Tensor, num_frames: int) -> Tensor:
    """A group norm and SiLU."""
    return functional.silu(group_norm(norm, features, num_frames), inplace=True)


def upsampler(layer: Any, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge features to a height and width, and convolve them."""
    enlarged: Tensor = layer(features, size)
    return enlarged


class KeyValue(NamedTuple):
    """Something that pixels attend to: keys and values, [rows, tokens, channels]."""

    key: Tensor
    value: Tensor
    weights: Tensor | None = None
    """[rows, 1, 1]; None is 1."""

    def of(self, rows: slice) -> KeyValue:
        """The same for some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return KeyValue(self.key[rows], self.value[rows], weights)

    def in_memory(self) -> KeyValue:
        """The same with memory for every row."""
        return KeyValue(self.key.contiguous(), self.value.contiguous(), self.weights)


# What each layer of a transformer attends to beside the pixels.
CrossAttentionKV = list[list[KeyValue]]


def cross_attention_kv(
    block: Any, context: Tensor, images: Sequence[ImagePrompt], *, rows: int
) -> CrossAttentionKV:
    """Keys and values of prompts for a transformer over `rows` rows.

    context: [prompts, tokens, channels]; as many rows one after another share a prompt as there
    are rows to a prompt.
    images: what it attends to beside the text.
    """

    def each_row(tokens: Tensor) -> Tensor:
        prompts, length, channels = tokens.shape
        spread = tokens.unsqueeze(1).expand(prompts, rows // prompts, length, channels)
        return spread.reshape(rows, length, channels)

    def sources(attention: Any) -> list[KeyValue]:
        text = KeyValue(each_row(attention.to_k(context)), each_row(attention.to_v(context)))
        shown = [KeyValue(*image.keys_and_values(attention), image.weights) for image in images]
        return [text, *shown]

    return [sources(layer.attn2) for layer in block.transformer_blocks]


def transformer(
    block: Any,
    features: Tensor,
    prompts: CrossAttentionKV,
    num_frames: int,
    tokens_at_once: int | None = None,
) -> Tensor:
    """A transformer over the pixels of each row, which also attends to prompts.

    features: [clips * num_frames, channels, height, width].
    prompts: of `cross_attention_kv`.
    tokens_at_once: how many pixels it works on at a time, at least one row; None for all.
    """
    rows, channels, height, width = features.shape
    normed = group_norm(block.norm, features, num_frames)

    def change(part: slice) -> Tensor:
        tokens = normed[part].permute(0, 2, 3, 1).reshape(-1, height * width, channels)
        tokens = _pointwise(block.proj_in, tokens)
        for layer, sources in zip(block.transformer_blocks, prompts, strict=True):
            # One after another, so that nothing of a step outlives it.
            tokens = tokens + _self_attention(layer, tokens)
            tokens = tokens + _cross_attention(layer, tokens, [each.of(part) for each in sources])
            tokens = tokens + _feed_forward(layer, tokens)
        tokens = _pointwise(block.proj_out, tokens).view(-1, height, width, channels)
        return features[part] + tokens.permute(0, 3, 1, 2)

    rows_at_once = None if tokens_at_once is None else max(1, tokens_at_once // (height * width))
    return in_parts(change, rows, rows_at_once, dim=0)


def in_parts(
    run: Callable[[slice], Tensor], length: int, at_once: int | None, *, dim: int
) -> Tensor:
    """Join `run(part)` along `dim` for parts of 0..length; None makes one of all."""
    if at_once is None or at_once >= length:
        return run(slice(None))
    starts = range(0, length, at_once)
    return torch.cat([run(slice(start, start + at_once)) for start in starts], dim=dim)


def _self_attention(layer: Any, tokens: Tensor) -> Tensor:
    result: Tensor = layer.attn1.to_out[0](_attended_itself(layer.attn1, layer.norm1(tokens)))
    return result


def _attended_itself(attention: Any, tokens: Tensor) -> Tensor:
    query, key, value = project_together(tokens, attention.to_q, attention.to_k, attention.to_v)
    return attend_to(attention, query, [KeyValue(key, value)])


def _cross_attention(layer: Any, tokens: Tensor, sources: Sequence[KeyValue]) -> Tensor:
    attention = layer.attn2
    attended = attend_to(attention, attention.to_q(layer.norm2(tokens)), sources)
    result: Tensor = attention.to_out[0](attended)
    return result


def _feed_forward(layer: Any, tokens: Tensor) -> Tensor:
    gated, projection = layer.ff.net[0].proj, layer.ff.net[2]
    result: Tensor = projection(gate(gated(layer.norm3(tokens))))
    return result


def gate(doubled: Tensor) -> Tensor:
    """One half of [..., 2 * channels] through the other (GEGLU, arXiv 2002.05202)."""
    hidden, gating = doubled.chunk(2, dim=-1)
    return functional.gelu(gating).mul_(hidden)


def attend_to(attention: Any, query: Tensor, sources: Sequence[KeyValue]) -> Tensor:
    """What queries [rows, pixels, channels] find in all sources together, before `to_out`."""
    result: Tensor | None = None
    for source in sources:
        attended = attend(query, source.key, source.value, heads=attention.heads)
        if source.weights is not None:
            attended = attended * source.weights
        result = attended if result is None else result + attended
    assert result is not None
    return result


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Softmax attention of [rows, tokens, channels], the channels being heads side by side."""

    def by_head(tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:-1], heads, -1).transpose(1, 2)

    attended: Tensor = functional.scaled_dot_product_attention(
        by_head(query), by_head(key), by_head(value)
    )
    return attended.transpose(1, 2).flatten(-2)


def _pointwise(conv: Any, tokens: Tensor) -> Tensor:
    """A convolution of one pixel's width, as the linear layer that it is."""
    return linear(tokens, weight_in(conv, tokens.dtype).flatten(1), conv.bias)
