"""The layers of UNet and VAE on a GPU with Triton: few kernels between the matrix products.

Features have channels last in memory, so that they are the tokens of transformers: no transposes.
Biases of matrix products and convolutions are deferred to the next kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..motion_module import HEADS, MotionModule
from ..motion_module import attend_over_frames as plain_attend_over_frames
from ..pass_strengths import of_pixels
from .casting import weight_in
from .eager import CrossAttentionKV, KeyValue, attend_to, in_parts
from .eager import upsampler as plain_upsampler
from .fp8_product import multiply_in_fp8
from .frame_norm import FrameSpanningGroupNorm
from .interface import Ops
from .layer_changes import add_change, has_changes, only_rows
from .linear import project_side_by_side
from .triton_kernels import (
    MOST_FRAMES,
    add_and_norm,
    add_with_bias,
    attend_over_frames,
    gate,
    group_norm,
    upsample_kernel,
)
from .window_memory import RowMemory

Run = TypeVar("Run", bound=Callable[..., Tensor])


def _on_its_device(run: Run) -> Run:
    """Make the features' device current during an operation: Triton launches kernels there."""

    @wraps(run)
    def guarded(layer: Any, features: Tensor, *others: Any, **named: Any) -> Tensor:
        with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]
            return run(layer, features, *others, **named)

    return cast("Run", guarded)


@_on_its_device
def resnet(block: Any, features: Tensor, embedding: Tensor | None, num_frames: int) -> Tensor:
    """Run a residual block; see eager.resnet."""
    tokens, size = _tokens(features), features.shape[2:]
    hidden = _normed(block.norm1, tokens, num_frames, silu=True)
    hidden = _convolved(block.conv1, hidden, size)
    shift = block.conv1.bias
    if embedding is not None:
        embedded = block.time_emb_proj(embedding)
        if len(embedded) == 1:
            shift = shift + embedded[0]
        else:  # with a LoRA whose strength varies from row to row
            hidden = hidden + embedded[:, None]
    hidden = _normed(block.norm2, hidden, num_frames, shift=shift, silu=True)
    hidden = _convolved(block.conv2, hidden, size)
    shortcut, bias = tokens, block.conv2.bias
    if block.conv_shortcut is not None:
        shortcut, bias = _product(block.conv_shortcut, tokens), bias + block.conv_shortcut.bias
    return _features(add_with_bias(hidden, shortcut, bias), size)


@_on_its_device
def activated_norm(norm: Any, features: Tensor, num_frames: int) -> Tensor:
    """Apply a group norm and SiLU."""
    return _features(_normed(norm, _tokens(features), num_frames, silu=True), features.shape[2:])


@_on_its_device
def upsampler(layer: Any, features: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge features and convolve them, in one step if they are doubled, as usual.

    The kernel for that step is computed each time: keeping it would take twice the weight's memory.
    """
    if size != (2 * features.shape[2], 2 * features.shape[3]) or has_changes(layer.conv):
        return plain_upsampler(layer, features, size)
    conv = layer.conv
    kernel = upsample_kernel(weight_in(conv, features.dtype))
    features = features.contiguous(memory_format=torch.channels_last)
    return functional.conv_transpose2d(features, kernel, conv.bias, stride=2, padding=1)


@_on_its_device
def transformer(
    block: Any,
    features: Tensor,
    prompts: CrossAttentionKV,
    num_frames: int,
    tokens_at_once: int | None = None,
    *,
    memory: RowMemory | None = None,
) -> Tensor:
    """Run a spatial transformer; see eager.transformer."""
    tokens, size = _tokens(features), features.shape[2:]
    changes = _product(block.proj_in, _normed(block.norm, tokens, num_frames))

    def changed(part: slice) -> Tensor:
        pending: DeferredResidual = None, changes[part], block.proj_in.bias
        with only_rows(block, part):
            for layer, sources in zip(block.transformer_blocks, prompts, strict=True):
                pending = _transformed(
                    layer, pending, [each.of(part) for each in sources], memory and memory.of(part)
                )
            change = _product(block.proj_out, _settled(pending))
        return add_with_bias(tokens[part], change, block.proj_out.bias)

    rows, pixels, _ = tokens.shape
    rows_at_once = None if tokens_at_once is None else max(1, tokens_at_once // pixels)
    return _features(in_parts(changed, rows, rows_at_once, dim=0), size)


# A residual stream with a deferred addition: tokens (None before the first block), and the change
# and the bias that the next kernel adds to them.
DeferredResidual = tuple[Tensor | None, Tensor, Tensor]


def _settled(pending: DeferredResidual) -> Tensor:
    tokens, change, bias = pending
    assert tokens is not None
    return add_with_bias(tokens, change, bias)


def _transformed(
    layer: Any,
    pending: DeferredResidual,
    sources: Sequence[KeyValue],
    memory: RowMemory | None,
) -> DeferredResidual:
    tokens, normed = add_and_norm(*pending, layer.norm1)
    own = layer.attn1
    query, key, value = project_side_by_side(normed, own.to_q, own.to_k, own.to_v).chunk(3, dim=-1)
    change = _product(own.to_out[0], _attended_itself(layer, query, key, value, memory))
    del query, key, value
    tokens, normed = add_and_norm(tokens, change, own.to_out[0].bias, layer.norm2)
    cross = layer.attn2
    change = _product(cross.to_out[0], attend_to(cross, _product(cross.to_q, normed), sources))
    tokens, normed = add_and_norm(tokens, change, cross.to_out[0].bias, layer.norm3)
    change = _product(layer.ff.net[0].proj, normed)
    del normed  # the tensor before gating is the largest of all
    change = gate(change, layer.ff.net[0].proj.bias)
    return tokens, _product(layer.ff.net[2], change), layer.ff.net[2].bias


def _attended_itself(
    layer: Any, query: Tensor, key: Tensor, value: Tensor, memory: RowMemory | None
) -> Tensor:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend_to(layer.attn1, query, [KeyValue(key, value)])

    if memory is None:
        return attend(query, key, value)
    return memory.attended(layer.attn2.index, query, key, value, attend)


@_on_its_device
def motion(
    module: MotionModule, features: Tensor, num_frames: int, tokens_at_once: int | None = None
) -> Tensor:
    """Run a motion module; see motion_module.MotionModule."""
    layer = module.temporal_transformer
    scales = None if layer.key_scales is None else layer.key_scales.at(features)
    tokens, size = _tokens(features), features.shape[2:]
    changes = _product(layer.proj_in, _normed(layer.norm, tokens, num_frames))

    def moved(part: slice) -> Tensor:
        pending: DeferredResidual = None, changes[:, part].contiguous(), layer.proj_in.bias
        for block in layer.transformer_blocks:
            pending = _temporal(block, pending, num_frames, of_pixels(scales, part))
        change = _product(layer.proj_out, _settled(pending))
        return add_with_bias(tokens[:, part].contiguous(), change, layer.proj_out.bias)

    rows, pixels, _ = tokens.shape
    pixels_at_once = None if tokens_at_once is None else max(1, tokens_at_once // rows)
    return _features(in_parts(moved, pixels, pixels_at_once, dim=1), size)


def _temporal(
    block: Any, pending: DeferredResidual, num_frames: int, scales: Tensor | None
) -> DeferredResidual:
    tokens, change, bias = pending
    for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
        table = attention.pos_encoder.pe[0, :num_frames]
        tokens, normed = add_and_norm(tokens, change, bias, norm, table=table)
        joined = project_side_by_side(normed, attention.to_q, attention.to_k, attention.to_v)
        if scales is not None:
            _, key, _ = joined.chunk(3, dim=-1)
            key.mul_(scales.unsqueeze(-1))
        attended = _attended_over_frames(joined, num_frames, attention.key_scale)
        change, bias = _product(attention.to_out[0], attended), attention.to_out[0].bias
        del joined, attended
    tokens, normed = add_and_norm(tokens, change, bias, block.ff_norm)
    change = _product(block.ff.net[0].proj, normed)
    del normed
    change = gate(change, block.ff.net[0].proj.bias)
    return tokens, _product(block.ff.net[2], change), block.ff.net[2].bias


def _attended_over_frames(joined: Tensor, num_frames: int, key_scale: float) -> Tensor:
    """Attend over frames with the Triton kernel, or with PyTorch for windows beyond its size."""
    if num_frames <= MOST_FRAMES:
        return attend_over_frames(joined, num_frames, heads=HEADS, key_scale=key_scale)
    rows, pixels, channels = joined.shape
    videos = joined.view(rows // num_frames, num_frames, pixels, channels).transpose(1, 2)
    query, key, value = (each.contiguous() for each in videos.chunk(3, dim=-1))
    attended = plain_attend_over_frames(query, key * key_scale, value)
    return attended.transpose(1, 2).reshape(rows, pixels, channels // 3)


def _tokens(features: Tensor) -> Tensor:
    """Return [rows, channels, height, width] as [rows, pixels, channels], contiguous."""
    features = features.contiguous(memory_format=torch.channels_last)
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _features(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Return [rows, pixels, channels] as [rows, channels, height, width], channels last."""
    rows, _, channels = tokens.shape
    return tokens.view(rows, *size, channels).permute(0, 3, 1, 2)


def _normed(norm: Any, tokens: Tensor, num_frames: int, **options: Any) -> Tensor:
    if not isinstance(norm, FrameSpanningGroupNorm):
        return group_norm(tokens, norm, **options)
    rows, pixels, channels = tokens.shape
    videos = tokens.view(rows // num_frames, num_frames * pixels, channels)
    return group_norm(videos, norm, **options).view(tokens.shape)


def _convolved(conv: Any, tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Convolve tokens without adding the bias."""
    features = _features(tokens, size)
    weight = weight_in(conv, tokens.dtype)
    result = functional.conv2d(features, weight, None, conv.stride, conv.padding)
    return _tokens(add_change(conv, features, result))


def _product(layer: Any, tokens: Tensor) -> Tensor:
    """Apply a linear layer or a 1x1 convolution without adding the bias."""
    if getattr(layer, "multiplies_in_fp8", False):
        result = multiply_in_fp8(tokens, layer.weight, layer.scale, None)
    else:
        result = functional.linear(tokens, weight_in(layer, tokens.dtype).flatten(1))
    return add_change(layer, tokens, result)


FUSED_OPS = Ops(
    resnet, transformer, motion, activated_norm, upsampler, memory_format=torch.channels_last
)


def try_out(device: torch.device, dtype: torch.dtype) -> None:
    """Run a kernel with a matrix product and one without.

    Raises:
        Exception: whatever Triton raises where it does not work.
    """
    tokens = torch.zeros(16, 1, 96, device=device, dtype=dtype)
    with torch.cuda.device(device):
        gate(tokens, tokens[0, 0])
        attend_over_frames(tokens, 16, heads=1, key_scale=1.0)
        torch.cuda.synchronize()
