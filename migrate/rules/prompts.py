"""Prompt schedules of FizzNodes and AnimateDiff-Evolved, as Prompt Travel."""

from __future__ import annotations

import re
from typing import Any

from ..graph import Node, Slot, Source
from ..known import Known
from .work import Work, values_of

# What our schedules refuse: negative prompts in the text, and expressions.
_REFUSED = re.compile(r"--neg|`[^`]*`")
_TEXTS = ("text", "prompts", "pre_text", "app_text", "prepend_text", "append_text")
_LATENTS = "LATENT"


def schedule(work: Work, node: Node, known: Known) -> None:
    """Convert a schedule, unless its text uses what only the other pack calculates."""
    values = values_of(node, known)
    texts = [value for name in _TEXTS if isinstance(value := values.get(name), str)]
    if any(_REFUSED.search(text) for text in texts):
        work.keep(node, "its text has --neg or an expression, which Prompt Travel does not take")
        return
    replaced = node.slot("values_replace")
    if replaced is not None and replaced.source:
        work.keep(node, "its text has values that other nodes calculate")
        return
    if values.get("tensor_interp", "lerp") != "lerp":
        work.note(node, "tensor_interp was slerp; prompts are blended in a straight line here.")
    latents = node.slot("num_latents") or node.slot("latent")
    for index, output in enumerate(node.outputs):
        if output.type == _LATENTS:
            source = latents.source if latents else None
            work.graph.move_consumers(Source(node.id, index), source)
    _negative(work, node)
    inputs: dict[str, Slot | Source | None] = {
        new: node.slot(old) for old, new in known.inputs.items()
    }
    new: dict[str, Any] = {new: values[old] for old, new in known.inputs.items() if old in values}
    if new.get("frames") == 0:
        work.note(node, "max_length was 0, the last keyframe; set frames to the number of latents.")
        new["frames"] = 16
    work.become(node, known.to, new, inputs, {0: 0})


def _negative(work: Work, node: Node) -> None:
    """Give those that took the empty negative prompt a text encoder with no text."""
    for index, output in enumerate(node.outputs[1:], start=1):
        negative = Source(node.id, index)
        if output.type == "CONDITIONING" and work.graph.consumers(negative):
            clip = node.slot("clip")
            links: dict[str, Slot | Source | None] = {"clip": clip.source if clip else None}
            why = "the schedule gave an empty negative prompt"
            added = work.add(node, "CLIPTextEncode", {}, links, why)
            work.graph.move_consumers(negative, Source(added.id, 0))
