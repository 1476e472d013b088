"""Refusal of graphs that are not for AnimateDiff, or not for Stable Diffusion 1.5."""

from __future__ import annotations

import re

from .formats import Document
from .graph import Node
from .known import Known
from .rules.work import known_of, values_of

_LEFT = "The graph is left as it is"
ANIMATEDIFF_PACKS = ("animatediff_evolved", "artventurex")
# Names of motion modules for Stable Diffusion XL.
_FOR_XL = re.compile(r"hotshot|hsxl|sdxl|_xl\b|_xl_", re.IGNORECASE)
_MODULE_WIDGETS = ("model_name",)


def refusal(document: Document) -> str:
    """Return why a graph is left as it is; empty if it can be converted."""
    found = [
        (node, known)
        for graph in document.graphs
        for node in graph.nodes.values()
        if (known := known_of(node)) is not None
    ]
    theirs = [(node, known) for node, known in found if known.pack in ANIMATEDIFF_PACKS]
    if not theirs:
        return _no_animatediff(document)
    for node, known in theirs:
        if not node.is_active:
            continue
        if known.refused:
            return f"{_LEFT}: it uses {_named(node, known)}, and {known.refused}."
        if name := _xl_name(node, known):
            return (
                f"{_LEFT}: {_named(node, known)} has {name}, which is for "
                "Stable Diffusion XL, and this pack is for Stable Diffusion 1.5."
            )
    return ""


def _no_animatediff(document: Document) -> str:
    types = {node.type for graph in document.graphs for node in graph.nodes.values()}
    if any(each.startswith("ADV2V_") for each in types):
        return f"{_LEFT}: it uses this pack's nodes already."
    if any(each.startswith("workflow/") for each in types) and _in_groups(document):
        return (
            f"{_LEFT}: its AnimateDiff nodes are in group nodes; convert those to nodes in "
            "ComfyUI (right click, Convert to nodes), save it, and try again."
        )
    return f"{_LEFT}: it has no nodes of AnimateDiff."


def _in_groups(document: Document) -> bool:
    extra = document.json.get("extra")
    groups = extra.get("groupNodes") if isinstance(extra, dict) else None
    return "ADE_" in str(groups) or "AnimateDiff" in str(groups)


def _xl_name(node: Node, known: Known) -> str:
    values = values_of(node, known)
    for name in _MODULE_WIDGETS:
        value = values.get(name)
        if name in known.widgets and isinstance(value, str) and _FOR_XL.search(value):
            return value
    return ""


def _named(node: Node, known: Known) -> str:
    return f"{known.title} (node {node.id})"
