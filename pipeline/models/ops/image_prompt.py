"""Images as prompts besides the text, in the UNet's cross-attention.

Follows tencent-ailab/IP-Adapter (Apache-2.0, arXiv 2308.06721), ip_adapter/attention_processor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class ImagePrompt:
    """Image tokens that the UNet attends to besides the text in one pass."""

    layers: nn.ModuleList
    """Keys and values for image tokens of each cross-attention: `IpAdapter.layers`."""
    tokens: Tensor
    """[rows, tokens, text channels], on the UNet's device and in its dtype."""
    weights: Tensor
    """[rows, 1, 1], its weight in each row."""

    def keys_and_values(self, attention: Any) -> tuple[Tensor, Tensor]:
        """Return keys and values [rows, tokens, channels] for one of the cross-attentions."""
        layer: Any = self.layers[attention.index]
        return layer.to_k_ip(self.tokens), layer.to_v_ip(self.tokens)


def number_cross_attentions(unet: Any) -> None:
    """Set `index` of each of the UNet's cross-attentions to that of its layer in IP-Adapters."""
    for index, attention in enumerate(cross_attentions(unet)):
        attention.index = index


def cross_attentions(unet: Any) -> Iterator[Any]:
    """Yield the UNet's cross-attentions in the order of IP-Adapters: down, up, middle."""
    blocks = (*unet.down_blocks, *unet.up_blocks, unet.mid_block)
    for block in blocks:
        for transformer in getattr(block, "attentions", None) or ():
            for layer in transformer.transformer_blocks:
                yield layer.attn2
