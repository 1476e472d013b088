"""Changes of layers by LoRAs whose strength varies from row to row, beside the weights.

With the change of a weight as the product of two small matrices, a layer returns, for each row,
``W x + strength * up (down x)``, where merging would return ``(W + strength * up down) x``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

# The two factors of a change, down and up; see LayerChanges.append.
LayerFactors = tuple[Tensor | None, Tensor]


class Rows(NamedTuple):
    """The strengths of LoRAs in the rows of a pass."""

    strengths: Tensor
    """[LoRAs, rows], on the network's device and in its dtype."""
    is_active: tuple[bool, ...]
    """For each LoRA, False if it is 0 in all rows."""

    @classmethod
    def of(cls, strengths: Tensor, like: Tensor) -> Rows:
        """Return strengths that are on the CPU, moved to the device and dtype of `like`."""
        is_active = tuple(bool(each.any()) for each in strengths)
        return cls(strengths.to(like.device, like.dtype), is_active)


class RowStrengths:
    """The strengths of LoRAs in the rows of the pass that a network runs, separate for each thread.

    The layers of a network share it.
    """

    def __init__(self) -> None:
        """Begin outside of any pass."""
        self._of_thread = threading.local()

    def __deepcopy__(self, _memo: dict[int, Any]) -> RowStrengths:
        """Return new ones: a copied network runs passes of its own."""
        return RowStrengths()

    @property
    def current(self) -> Rows:
        """Those of the running pass, or of the rows in work."""
        rows: Rows | None = getattr(self._of_thread, "rows", None)
        if rows is None:
            raise RuntimeError("A layer with a LoRA of varying strength runs outside of a pass.")
        return rows

    @contextmanager
    def using(self, rows: Rows) -> Iterator[None]:
        """Use these strengths while the context is open."""
        before = getattr(self._of_thread, "rows", None)
        self._of_thread.rows = rows
        try:
            yield
        finally:
            self._of_thread.rows = before


class LayerChanges(nn.Module):
    """The changes of one layer by some of a network's LoRAs."""

    def __init__(self, strengths: RowStrengths) -> None:
        """Begin without changes."""
        super().__init__()
        self.strengths = strengths
        self.loras: list[int] = []
        self.downs, self.ups = nn.ParameterList(), nn.ParameterList()

    def append(self, lora: int, down: Tensor | None, up: Tensor) -> None:
        """Add the change by a LoRA.

        Args:
            lora: Its index in the strengths.
            down: [rank, in] or [rank, in, height, width]; None where `up` is the whole change.
            up: [out, rank], or the shape of the weight.
        """
        self.loras.append(lora)
        factors = (up.new_empty(0) if down is None else down, up)
        for kept, factor in zip((self.downs, self.ups), factors, strict=True):
            kept.append(nn.Parameter(factor, requires_grad=False))

    def added(self, layer: nn.Module, input: Tensor, output: Tensor) -> Tensor:
        """Return a layer's output with the changes, which may be the same tensor.

        Args:
            layer: The layer.
            input: [rows or prompts, ..., channels], or [rows, channels, height, width]. Consecutive
                rows share a prompt.
            output: Of as many rows or prompts.
        """
        strengths, is_active = self.strengths.current
        if not any(is_active[lora] for lora in self.loras):
            return output
        repeats = strengths.shape[1] // len(output)
        if repeats > 1:
            output = output.repeat_interleave(repeats, dim=0)
        for lora, down, up in zip(self.loras, self.downs, self.ups, strict=True):
            if not is_active[lora]:
                continue
            change = _change(layer, input, down, up)
            if repeats > 1:
                change = change.repeat_interleave(repeats, dim=0)
            each_row = strengths[lora].view(-1, *[1] * (output.ndim - 1))
            output.addcmul_(change, each_row)
        return output


def _change(layer: Any, input: Tensor, down: Tensor, up: Tensor) -> Tensor:
    is_image = isinstance(layer, nn.Conv2d) and input.ndim == 4
    if not is_image:
        hidden = functional.linear(input, down.flatten(1)) if down.numel() else input
        return functional.linear(hidden, up.flatten(1))
    if not down.numel():
        return functional.conv2d(input, up, None, layer.stride, layer.padding)
    hidden = functional.conv2d(input, down, None, layer.stride, layer.padding)
    return functional.conv2d(hidden, up[:, :, None, None])


def attach(layer: nn.Module, changes: LayerChanges) -> None:
    """Let a layer return its output with changes when it is called.

    Operations that use its weight without calling it take `add_change`.
    """
    layer.layer_changes = changes
    layer.register_forward_hook(_add_after_call)


def _add_after_call(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return add_change(layer, inputs[0], output)


def has_changes(layer: nn.Module) -> bool:
    """Return whether LoRAs of varying strength change a layer."""
    return getattr(layer, "layer_changes", None) is not None


def add_change(layer: nn.Module, input: Tensor, output: Tensor) -> Tensor:
    """Return a layer's output with its changes; see LayerChanges.added."""
    changes: LayerChanges | None = getattr(layer, "layer_changes", None)
    return output if changes is None else changes.added(layer, input, output)


def copy_changes(source: nn.Module, target: nn.Module) -> None:
    """Attach the changes of a layer to the one that replaces it."""
    if has_changes(source):
        changes: Any = source.layer_changes
        attach(target, changes)


def only_rows(block: nn.Module, part: slice) -> AbstractContextManager[None]:
    """Return a context in which layers of a block run on some of a pass's rows."""
    strengths: RowStrengths | None = getattr(block, "row_strengths", None)
    if strengths is None:
        return nullcontext()
    rows = strengths.current
    return strengths.using(rows._replace(strengths=rows.strengths[:, part]))


def attach_all(
    network: nn.Module, loras: Sequence[Mapping[str, LayerFactors]], like: Tensor
) -> RowStrengths:
    """Attach LoRAs to the layers of a network, and return the strengths that they follow.

    Args:
        network: The network.
        loras: For each LoRA its factors by the names of layers; see LayerChanges.append.
        like: Factors are moved to its device and dtype.
    """
    strengths = RowStrengths()
    every: dict[str, LayerChanges] = {}
    for index, layers in enumerate(loras):
        for name, factors in layers.items():
            down, up = (None if each is None else each.to(like) for each in factors)
            assert up is not None
            every.setdefault(name, LayerChanges(strengths)).append(index, down, up)
    for name, changes in every.items():
        attach(network.get_submodule(name), changes)
    return strengths
