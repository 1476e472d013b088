"""Images as prompts beside the text, in the UNet's cross-attention.

After tencent-ailab/IP-Adapter (Apache-2.0; arXiv 2308.06721), ip_adapter/attention_processor.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ImagePrompt:
    """What the UNet attends to beside the text in one pass."""

    layers: nn.ModuleList
    """Keys and values for image tokens of each cross-attention: `IpAdapter.layers`."""
    tokens: Tensor
    """[rows, tokens, text channels], on the UNet's device and in its dtype."""
    weights: Tensor
    """[rows, 1, 1], how much it counts in each row."""


@contextmanager
def attending_to(unet: UNet2DConditionModel, prompts: Sequence[ImagePrompt]) -> Iterator[None]:
    """Let the UNet's cross-attentions look at images too, as long as this lasts.

    Afterwards they are as they were: another job may have the same UNet.
    """
    if not prompts:
        yield
        return
    attentions = list(cross_attentions(unet))
    before = [attention.processor for attention in attentions]
    try:
        for index, attention in enumerate(attentions):
            attention.processor = _ImageAttention(index, prompts)
        yield
    finally:
        for attention, processor in zip(attentions, before, strict=True):
            attention.processor = processor


class _ImageAttention:
    """Attention to text, plus that to images with keys and values of their own."""

    def __init__(self, index: int, prompts: Sequence[ImagePrompt]) -> None:
        self._index, self._prompts = index, prompts

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None = None,
    ) -> Tensor:
        query = attention.to_q(hidden_states)
        text = encoder_hidden_states
        heads = attention.heads
        result = attend(query, attention.to_k(text), attention.to_v(text), heads=heads)
        for prompt in self._prompts:
            layer: Any = prompt.layers[self._index]
            key, value = layer.to_k_ip(prompt.tokens), layer.to_v_ip(prompt.tokens)
            result = result + attend(query, key, value, heads=heads) * prompt.weights
        projected: Tensor = attention.to_out[0](result)
        return projected


def cross_attentions(unet: UNet2DConditionModel) -> Iterator[Any]:
    """Give the UNet's attentions to text: those going down, going up, and the middle one."""
    blocks = (*unet.down_blocks, *unet.up_blocks, unet.mid_block)
    for block in blocks:
        for transformer in getattr(block, "attentions", ()):
            for layer in transformer.transformer_blocks:
                yield layer.attn2


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Softmax attention of [rows, tokens, channels], the channels being heads side by side."""

    def by_head(tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)

    attended: Tensor = functional.scaled_dot_product_attention(
        by_head(query), by_head(key), by_head(value)
    )
    return attended.transpose(1, 2).flatten(-2)
