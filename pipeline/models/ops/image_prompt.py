"""Images as prompts beside the text, in the UNet's cross-attention.

After tencent-ailab/IP-Adapter (Apache-2.0; arXiv 2308.06721), ip_adapter/attention_processor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor, nn


@dataclass(frozen=True)
class ImagePrompt:
    """What the UNet attends to beside the text in one pass."""

    layers: nn.ModuleList
    """Keys and values for image tokens of each cross-attention: `IpAdapter.layers`."""
    tokens: Tensor
    """[rows, tokens, text channels], on the UNet's device and in its dtype."""
    weights: Tensor
    """[rows, 1, 1], how much it counts in each row."""

    def keys_and_values(self, attention: Any) -> tuple[Tensor, Tensor]:
        """For one of the UNet's cross-attentions, [rows, tokens, channels] each."""
        layer: Any = self.layers[attention.index]
        return layer.to_k_ip(self.tokens), layer.to_v_ip(self.tokens)


def number_cross_attentions(unet: UNet2DConditionModel) -> None:
    """Tell each of the UNet's cross-attentions which of an IP-Adapter's layers is its own."""
    for index, attention in enumerate(cross_attentions(unet)):
        attention.index = index


def cross_attentions(unet: UNet2DConditionModel) -> Iterator[Any]:
    """Give the UNet's attentions to text: those going down, going up, and the middle one."""
    blocks = (*unet.down_blocks, *unet.up_blocks, unet.mid_block)
    for block in blocks:
        for transformer in getattr(block, "attentions", ()):
            for layer in transformer.transformer_blocks:
                yield layer.attn2
