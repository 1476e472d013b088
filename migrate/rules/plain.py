"""Nodes whose conversion the table describes completely."""

from __future__ import annotations

from typing import Any

from ..graph import Node, Slot, Source
from ..known import CONTROL, Known
from .work import Work, values_of


def convert(work: Work, node: Node, known: Known) -> None:
    """Turn a node into its counterpart, as its entry in the table says."""
    values = values_of(node, known)
    inputs: dict[str, Slot | Source | None] = {}
    new_values: dict[str, Any] = dict(known.set)
    for slot in node.inputs:
        if slot.source is None:
            continue
        if slot.name in known.inputs:
            inputs[known.inputs[slot.name]] = slot
        elif slot.name in known.sockets | known.widgets | {f"{slot.name}?": ""}:
            work.note(node, f"The input {slot.name} has no counterpart; its link ends.")
    for name, value in values.items():
        if name in known.inputs:
            new_values[known.inputs[name]] = _translated(work, node, known, name, value)
        elif known.widgets.get(name, CONTROL) != CONTROL and not _is_neutral(known, name, value):
            work.note(node, f"{name} was {_shown(value)}; it has no counterpart here.")
    for old, new in known.inputs.items():
        if new not in inputs and old != new:
            node.renamed[old] = new
    outputs = {int(old): new for old, new in known.output_map.items()}
    work.become(node, known.to, new_values, inputs, outputs)
    if known.says:
        work.note(node, known.says)


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
