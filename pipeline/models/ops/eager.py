"""The layers of Stable Diffusion's UNet, run operation by operation.

The layers have the names of diffusers' modules, and the same arithmetic. Unlike there, keys
and values of a prompt are computed once for all frames that share it, and nothing is divided by one
or copied needlessly. Features may have channels first or last in memory. Layers that treat each row
separately can process a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .attention import attention_on, plain
from .casting import weight_in
from .frame_norm import group_norm
from .image_prompt import ImagePrompt
from .layer_changes import add_change, only_rows
from .linear import linear, project_together
from .window_memory import RowMemory


def resnet(block: Any, features: Tensor, embedding: Tensor | None, num_frames: int) -> Tensor:
    """Run a residual block.

    Args:
        block: A ResnetBlock.
        features: [batch * num_frames, channels, height, width].
        embedding: [1, channels], of the time step, after its activation; None for a block without
            one.
        num_frames: Frames of each video.
    """
    hidden = block.conv1(activated_norm(block.norm1, features, num_frames))
    if embedding is not None:
        hidden = hidden + block.time_emb_proj(embedding)[:, :, None, None]
    hidden = block.conv2(activated_norm(block.norm2, hidden, num_frames))
    shortcut = features if block.conv_shortcut is None else block.conv_shortcut(features)
    result: Tensor = hidden.add_(shortcut)
    return result


def activated_norm(norm: Any, features: Tensor, num_frames: int) -> Tensor:
    """Apply a group norm and SiLU."""
    return functional.silu(group_norm(norm, features, num_frames), inplace=True)


def upsampler(layer: Any, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge features to a height and width, and convolve them."""
    enlarged: Tensor = layer(features, size)
    return enlarged


class KeyValue(NamedTuple):
    """Keys and values that pixels attend to, [rows, tokens, channels]."""

    key: Tensor
    value: Tensor
    weights: Tensor | None = None
    """[rows, 1, 1]; None is 1."""

    def of(self, rows: slice) -> KeyValue:
        """Return the keys and values of some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return KeyValue(self.key[rows], self.value[rows], weights)

    def in_memory(self) -> KeyValue:
        """Return contiguous copies, in which no rows share memory."""
        return KeyValue(self.key.contiguous(), self.value.contiguous(), self.weights)


# For each layer of a transformer, the keys and values of its cross-attention.
CrossAttentionKV = list[list[KeyValue]]


def cross_attention_kv(
    block: Any, context: Tensor, images: Sequence[ImagePrompt], *, rows: int
) -> CrossAttentionKV:
    """Return the keys and values of prompts for each layer of a transformer.

    Args:
        block: A SpatialTransformer.
        context: [prompts, tokens, channels]. Consecutive rows share a prompt: with 2 prompts and 6
            rows, rows 0 to 2 have the first one.
        images: Image prompts to attend to besides the text.
        rows: Rows of the features.
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


def prompt_of_each_video(context: Tensor, num_frames: int) -> Tensor:
    """Return one prompt for each video if all its frames share it, so that keys are computed once.

    Args:
        context: [batch * num_frames, tokens, channels].
        num_frames: Frames of each video.
    """
    videos = context.reshape(-1, num_frames, *context.shape[1:])
    return (
        videos[:, 0].contiguous()
        if torch.equal(videos, videos[:, :1].expand_as(videos))
        else context
    )


def transformer(
    block: Any,
    features: Tensor,
    prompts: CrossAttentionKV,
    num_frames: int,
    tokens_at_once: int | None = None,
    *,
    memory: RowMemory | None = None,
) -> Tensor:
    """Run a spatial transformer: attention within each row, and to prompts.

    Args:
        block: A SpatialTransformer.
        features: [batch * num_frames, channels, height, width].
        prompts: The result of `cross_attention_kv`.
        num_frames: Frames of each video.
        tokens_at_once: Pixels to process at a time, but at least one row; None for all.
        memory: What the rows see of other windows; None without.
    """
    normed = group_norm(block.norm, features, num_frames)
    return transform(block, features, normed, prompts, tokens_at_once, memory=memory)


def transform(
    block: Any,
    features: Tensor,
    normed: Tensor,
    prompts: CrossAttentionKV,
    tokens_at_once: int | None,
    *,
    memory: RowMemory | None = None,
) -> Tensor:
    """Run a spatial transformer after its norm; see `transformer`.

    Args:
        block: A SpatialTransformer, or layers under the same names.
        features: [rows, channels, height, width].
        normed: The features after the block's norm.
        prompts: The result of `cross_attention_kv`.
        tokens_at_once: Pixels to process at a time, but at least one row; None for all.
        memory: As for `transformer`.
    """
    rows, channels, height, width = features.shape

    def change(part: slice) -> Tensor:
        tokens = normed[part].permute(0, 2, 3, 1).reshape(-1, height * width, channels)
        with only_rows(block, part):
            tokens = _pointwise(block.proj_in, tokens)
            tokens = transform_tokens(
                block,
                tokens,
                [[each.of(part) for each in sources] for sources in prompts],
                memory and memory.of(part),
            )
            tokens = _pointwise(block.proj_out, tokens).view(-1, height, width, channels)
        return features[part] + tokens.permute(0, 3, 1, 2)

    rows_at_once = None if tokens_at_once is None else max(1, tokens_at_once // (height * width))
    return in_parts(change, rows, rows_at_once, dim=0)


def transform_tokens(
    block: Any, tokens: Tensor, prompts: CrossAttentionKV, memory: RowMemory | None = None
) -> Tensor:
    """Run the layers of a spatial transformer between its projections.

    Args:
        block: A SpatialTransformer, or layers under the same names.
        tokens: [rows, pixels, channels].
        prompts: The result of `cross_attention_kv` for these rows.
        memory: The memory for these rows.
    """
    for layer, sources in zip(block.transformer_blocks, prompts, strict=True):
        # Three statements, so that temporaries of each are freed before the next.
        tokens = tokens + _self_attention(layer, tokens, memory)
        tokens = tokens + _cross_attention(layer, tokens, sources)
        tokens = tokens + _feed_forward(layer, tokens)
    return tokens


def in_parts(
    run: Callable[[slice], Tensor], length: int, at_once: int | None, *, dim: int
) -> Tensor:
    """Join `run(part)` along `dim` for parts of 0..length; one part if `at_once` is None."""
    if at_once is None or at_once >= length:
        return run(slice(None))
    starts = range(0, length, at_once)
    return torch.cat([run(slice(start, start + at_once)) for start in starts], dim=dim)


def _self_attention(layer: Any, tokens: Tensor, memory: RowMemory | None) -> Tensor:
    result: Tensor = layer.attn1.to_out[0](_attended_itself(layer, layer.norm1(tokens), memory))
    return result


def _attended_itself(layer: Any, tokens: Tensor, memory: RowMemory | None) -> Tensor:
    own = layer.attn1
    query, key, value = project_together(tokens, own.to_q, own.to_k, own.to_v)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend_to(own, query, [KeyValue(key, value)])

    if memory is None:
        return attend(query, key, value)
    return memory.attended(layer.attn2.index, query, key, value, attend)


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
    """Multiply the first half of the channels by GELU of the other half.

    GEGLU, arXiv 2002.05202. doubled: [..., 2 * channels].
    """
    hidden, gating = doubled.chunk(2, dim=-1)
    return functional.gelu(gating).mul_(hidden)


def attend_to(attention: Any, query: Tensor, sources: Sequence[KeyValue]) -> Tensor:
    """Return the summed attention of queries to all sources, before `to_out`.

    Args:
        attention: The layer, for its number of heads.
        query: [rows, pixels, channels].
        sources: Keys and values, each with its weight in the sum.
    """
    result: Tensor | None = None
    for source in sources:
        attended = attend(query, source.key, source.value, heads=attention.heads)
        if source.weights is not None:
            attended = attended * source.weights
        result = attended if result is None else result + attended
    assert result is not None
    return result


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Return softmax attention over [rows, tokens, channels], head after head in the channels."""

    def by_head(tokens: Tensor) -> Tensor:
        return tokens.view(*tokens.shape[:-1], heads, -1).transpose(1, 2)

    kernel = plain if torch.compiler.is_compiling() else attention_on(query.device.type)
    attended = kernel(by_head(query), by_head(key), by_head(value))
    return attended.transpose(1, 2).flatten(-2)


def _pointwise(conv: Any, tokens: Tensor) -> Tensor:
    """Apply a 1x1 convolution to tokens as the linear layer that it is."""
    result = linear(tokens, weight_in(conv, tokens.dtype).flatten(1), conv.bias)
    return add_change(conv, tokens, result)
