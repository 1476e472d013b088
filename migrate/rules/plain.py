"""Nodes whose conversion the table describes completely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..graph import Node, Slot, Source
from ..known import CONTROL, Known
from .work import Work, values_of


def convert(
    work: Work, node: Node, known: Known, explained: Mapping[str, str] | None = None
) -> None:
    """Turn a node into its counterpart, as its entry in the table says.

    Args:
        work: The graph.
        node: The node.
        known: Its entry.
        explained: Sentences that say what to use in place of inputs without a counterpart.
    """
    explained = explained or {}
    values = values_of(node, known)
    inputs: dict[str, Slot | Source | None] = {}
    for slot in node.inputs:
        if slot.source is None:
            continue
        if slot.name in known.inputs:
            inputs[known.inputs[slot.name]] = slot
        elif slot.name in known.widgets or {slot.name, f"{slot.name}?"} & set(known.sockets):
            usual = f"The input {slot.name} has no counterpart; its link ends."
            work.note(node, explained.get(slot.name, usual))
    for name, value in values.items():
        is_widget = known.widgets.get(name, CONTROL) != CONTROL
        if name not in known.inputs and is_widget and not _is_neutral(known, name, value):
            usual = f"{name} was {_shown(value)}; it has no counterpart here."
            work.note(node, explained.get(name, usual))
    for old, new in known.inputs.items():
        if new not in inputs and old != new:
            node.renamed[old] = new
    outputs = {int(old): new for old, new in known.output_map.items()}
    work.become(node, known.to, new_values(work, node, known, values), inputs, outputs)
    if known.says:
        work.note(node, known.says)


def new_values(work: Work, node: Node, known: Known, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that an entry gives its counterpart, and note those that are not here.

    Args:
        work: The graph.
        node: The node whose report gets the notes.
        known: The entry.
        values: The former values by name.
    """
    translated = {
        new: _translated(work, node, known, old, values[old])
        for old, new in known.inputs.items()
        if old in values
    }
    return {**known.set, **translated}


def _is_neutral(known: Known, name: str, value: Any) -> bool:
    neutral = known.neutral.get(name, [])
    return neutral == "any" or value in neutral


def _translated(work: Work, node: Node, known: Known, name: str, value: Any) -> Any:
    choices = known.choices.get(name)
    if choices is None:
        return value
    if str(value) in choices:
        return choices[str(value)]
    if "*" not in choices:
        return value
    instead = choices["*"]
    work.note(node, f"{name} was {_shown(value)}, which is not here; now it is {_shown(instead)}.")
    return instead


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def register_hook(work: Work, node: Node, known: Known) -> None:
    """Convert a LoRA hook, whose node passed MODEL and CLIP on."""
    for name, output in (("model", "MODEL"), ("clip", "CLIP")):
        slot = node.slot(name)
        for index, each in enumerate(node.outputs):
            if each.type == output:
                work.graph.move_consumers(Source(node.id, index), slot.source if slot else None)
        if slot is not None:
            work.graph.link(node, slot, None)
    convert(work, node, known)
