"""Self-attention to the first context window, which keeps the windows of a long video alike.

In each call of the model, the first window goes through the UNet first. The keys and values of its
frames are kept, in every self-attention, until the call ends; the frames of each other window
attend to those of the frame at the same place in the first one, besides their own. Passes with the
negative prompt do not. That is ContextRef of AnimateDiff-Evolved with its usual tuning, after the
reference of sd-webui-controlnet ("reference_attn").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .feature_bank import FeatureBank, LayerKey

KeysAndValues = tuple[Tensor, Tensor]
# Attends with queries to keys and values, [rows, tokens, channels] each.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class WindowMemory:
    """The keys and values of the first window's frames, during one call of the model."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[tuple[LayerKey, torch.device], KeysAndValues] = {}
        self._devices: dict[LayerKey, torch.device] = {}

    def keep(self, layer: LayerKey, frames: slice, count: int, tokens: KeysAndValues) -> None:
        """Keep copies of what some of the window's frames have in a layer.

        Args:
            layer: The layer.
            frames: Which of the window's frames they are.
            count: Frames of the window.
            tokens: Keys and values, [frames, tokens, channels].
        """
        device = tokens[0].device
        key = (layer, device)
        if key not in self._kept:
            room = [each.new_empty(count, *each.shape[1:]) for each in tokens]
            self._kept[key] = (room[0], room[1])
            self._devices[layer] = device
        for kept, each in zip(self._kept[key], tokens, strict=True):
            kept[frames] = each

    def joined(self, layer: LayerKey, frames: slice, own: KeysAndValues) -> KeysAndValues:
        """Return frames' own keys and values followed by those of the first window's frames.

        Those of a layer that did not run for the first window, on reused deep features, stay alone.
        """
        if layer not in self._devices:
            return own
        device = own[0].device
        if (layer, device) not in self._kept:
            key, value = self._kept[layer, self._devices[layer]]
            self._kept[layer, device] = (key.to(device), value.to(device))
        key, value = self._kept[layer, device]
        return torch.cat([own[0], key[frames]], dim=1), torch.cat([own[1], value[frames]], dim=1)


class _Rows(NamedTuple):
    """Consecutive rows of one pass."""

    prompt: int | None
    rows: slice
    frames: slice


@dataclass(frozen=True)
class RowMemory:
    """The memory, for the rows of passes that go through the UNet together."""

    memory: WindowMemory | FeatureBank
    prompts: Sequence[int | None]
    """The number of each pass's prompt: a pass sees what one with the same prompt kept. None for
    the negative prompt, which keeps and sees nothing."""
    num_frames: int
    """Rows of each pass."""
    is_kept: bool = False
    """True for passes of the first window, which a WindowMemory keeps."""
    start: int = 0
    """The index of the first row."""

    @property
    def rows(self) -> int:
        """Rows of all passes."""
        return len(self.prompts) * self.num_frames

    def of(self, rows: slice) -> RowMemory:
        """Return the memory for some of the rows."""
        return replace(self, start=self.start + (rows.start or 0))

    def attended(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, attend: Attend
    ) -> Tensor:
        """Return the attention of rows to themselves and to the memory.

        Args:
            layer: The number of the layer.
            query: The rows' queries, [rows, tokens, channels].
            key: Their keys, in the same shape.
            value: Their values.
            attend: Attends.
        """
        memory, passes = self.memory, list(self._passes(len(query)))
        if isinstance(memory, FeatureBank):
            attended = attend(query, key, value)
            return torch.cat(
                [
                    attended[rows]
                    if prompt is None
                    else memory.fused((layer, prompt), frames, self.num_frames, attended[rows])
                    for prompt, rows, frames in passes
                ]
            )
        if self.is_kept:
            for prompt, rows, frames in passes:
                if prompt is not None:
                    tokens = (key[rows], value[rows])
                    memory.keep((layer, prompt), frames, self.num_frames, tokens)
        if self.is_kept or all(prompt is None for prompt, _, _ in passes):
            return attend(query, key, value)
        results = []
        for prompt, rows, frames in passes:
            seen = (key[rows], value[rows])
            if prompt is not None:
                seen = memory.joined((layer, prompt), frames, seen)
            results.append(attend(query[rows], *seen))
        return results[0] if len(results) == 1 else torch.cat(results)

    def _passes(self, count: int) -> Iterator[_Rows]:
        """Yield `count` rows pass by pass.

        With 2 passes of 3 frames and start 2, 3 rows are frame 2 of pass 0, and 0 and 1 of 1.
        """
        done = 0
        while done < count:
            number, frame = divmod(self.start + done, self.num_frames)
            length = min(count - done, self.num_frames - frame)
            rows, frames = slice(done, done + length), slice(frame, frame + length)
            yield _Rows(self.prompts[number], rows, frames)
            done += length
