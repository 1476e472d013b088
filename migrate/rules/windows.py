"""Context extras of AnimateDiff-Evolved, as the memory of Context Options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..graph import Node, Source
from ..known import Known, known_nodes
from . import plain
from .trace import maker
from .work import Work, given, known_of, values_of

CONTEXT = "ADV2V_ContextOptions"
_MEMORIES = {
    "ADE_ContextExtras_ContextRef": "ContextRef",
    "ADE_ContextExtras_NaiveReuse": "NaiveReuse",
}
_ENDS = {"ContextRef": 0.25, "NaiveReuse": 0.15}
# Inputs of the extras that nothing here corresponds to.
_WITHOUT_COUNTERPART = {
    "strength_multival": "strengths",
    "contextref_mode": "modes other than the first window",
    "contextref_tune": "tuning",
    "contextref_kf": "keyframes",
    "naivereuse_kf": "keyframes",
}
_FIRST = "ADE_ContextExtras_ContextRef_ModeFirst"


def extras(work: Work, node: Node, _known: Known) -> None:
    """Convert Set Context Extras: its last extra becomes the memory of the windows."""
    slot = node.slot("context_opts")
    found = maker(work.graph, slot)
    options = found[0] if found else None
    known = known_of(options) if options else None
    chain = list(_chain(work, node))
    if options is None or known is None or known.to != CONTEXT or not chain:
        work.drop(node, "no Context Options and no context extras that were converted belong to it")
        return
    plain.convert(work, options, known)
    options.values = {**(options.values or {}), **_memory(work, options, chain[0])}
    for extra in chain[1:]:
        work.note(options, f"It has one memory; {_MEMORIES[extra.type]} is left out.")
    work.graph.move_consumers(Source(node.id, 0), slot.source if slot else None)
    for each in (node, *chain):
        work.use(each, by=options)
        if not work.graph.has_consumers(each):
            work.absorb(each)


def _chain(work: Work, node: Node) -> Iterator[Node]:
    """Yield the extras of a node, the last one first."""
    name = "context_extras"
    while (found := maker(work.graph, node.slot(name))) and found[0].type in _MEMORIES:
        node, name = found[0], "prev_extras"
        yield node


def _memory(work: Work, options: Node, extra: Node) -> dict[str, Any]:
    """Return the values of an extra, and report what has no counterpart."""
    memory = _MEMORIES[extra.type]
    values = values_of(extra, known_nodes()[extra.type])
    for name, what in _WITHOUT_COUNTERPART.items():
        made = maker(work.graph, extra.slot(name))
        if made and made[0].type != _FIRST:
            work.note(options, f"Dropped from {memory}: {what}.")
    for name, usual in (("start_percent", 0.0), ("weighted_mean", 0.95)):
        value = given(extra, values, name, usual)
        if value != usual:
            work.note(options, f"{name} of {memory} was {value}; here it is always {usual:g}.")
    end = given(extra, values, "end_percent", _ENDS[memory])
    return {"memory": memory, "memory_end": end}
