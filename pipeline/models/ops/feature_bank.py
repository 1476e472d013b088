"""A bank of features from past context windows, which keeps the windows of a long video alike.

In each call of the model, the windows go through the UNet one after another. For each frame of a
window, each self-attention keeps as many tokens as the frame has. Every token of a later window is
drawn towards the nearest one that was kept for the frame at the same place in its window. After a
window, its tokens are merged with those kept, so that their number stays the same. Passes with the
negative prompt neither keep nor see any.

These are the feature fusion and the dynamic merging of StreamV2V's feature bank (Liang et al. 2024,
arXiv 2405.15757); the merging of tokens is that of ToMe (Bolya et al. 2022, arXiv 2210.09461).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# The number of a layer, and that of a prompt.
LayerKey = tuple[int, int]
# How far a token is drawn towards the nearest one in the bank.
WEIGHT = 0.9


class FeatureBank:
    """What self-attentions returned for past windows, during one call of the model."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[LayerKey, Tensor] = {}
        self._new: dict[LayerKey, Tensor] = {}

    def fused(self, layer: LayerKey, frames: slice, count: int, tokens: Tensor) -> Tensor:
        """Draw tokens towards the nearest ones in the bank, and keep the result for later windows.

        The first window's tokens are returned as they are, and so are those of a layer that did not
        run before, on reused deep features. The same frames can be given again if a pass is
        repeated.

        Args:
            layer: The layer.
            frames: Which of the window's frames they are.
            count: Frames of the window.
            tokens: What the layer's self-attention returned, [frames, tokens, channels].
        """
        kept = self._kept.get(layer)
        if kept is not None:
            # The last window can be longer than those before, which kept fewer frames.
            seen = kept[frames].to(tokens.device)
            near = [_drawn(one, each) for one, each in zip(tokens, seen, strict=False)]
            tokens = torch.cat([torch.stack(near), tokens[len(near) :]]) if near else tokens
        if layer not in self._new or self._new[layer].device != tokens.device:
            self._new[layer] = tokens.new_empty(count, *tokens.shape[1:])
        self._new[layer][frames] = tokens
        return tokens

    def end_window(self) -> None:
        """Merge the tokens of the window that has gone through the UNet into the bank."""
        for layer, new in self._new.items():
            if layer not in self._kept:
                self._kept[layer] = new
                continue
            kept = self._kept[layer].to(new.device)
            both = min(len(kept), len(new))
            for frame in range(both):
                kept[frame] = merged(kept[frame], new[frame])
            self._kept[layer] = torch.cat([kept, new[both:]]) if both < len(new) else kept
        self._new.clear()


def _drawn(tokens: Tensor, kept: Tensor) -> Tensor:
    """Draw the tokens of a frame, [tokens, channels], towards the nearest of those kept."""
    nearest = _similarity(tokens, kept).argmax(dim=1)
    return torch.lerp(tokens, kept[nearest], WEIGHT)


def merged(kept: Tensor, new: Tensor) -> Tensor:
    """Merge the tokens of two frames into as many as one has.

    Every second token of both, in their order, is averaged into the nearest one of the others.

    Args:
        kept: [tokens, channels].
        new: In the same shape.
    """
    both = torch.cat([kept, new])
    moved, result = both[::2], both[1::2].float()
    nearest = _similarity(moved, both[1::2]).argmax(dim=1)
    sums = result.index_add(0, nearest, moved.float())
    ones = sums.new_ones(len(nearest), 1)
    counts = sums.new_ones(len(result), 1).index_add(0, nearest, ones)
    return (sums / counts).to(kept.dtype)


def _similarity(tokens: Tensor, others: Tensor) -> Tensor:
    """Return the cosine similarity of each token with each of the others."""
    return functional.normalize(tokens, dim=-1) @ functional.normalize(others, dim=-1).T
