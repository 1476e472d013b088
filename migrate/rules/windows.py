"""Context options of AnimateDiff-Evolved, their views and extras, as Context Options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..graph import Node, Source
from ..known import Known, known_nodes
from . import plain
from .trace import maker
from .work import STAYS_WITH_USER, Work, given, known_of, values_of

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
_VIEWS = "Views inside windows have no counterpart: the windows are as long as the views."
_IN_ALL_STEPS = (
    "The windows are the same in all steps; for other windows in some of them, use two KSampler "
    "(Advanced), each for its steps and with an Apply AnimateDiff of its own."
)
# What to use in place of inputs without a counterpart.
_EXPLAINED = {
    "prev_context": _IN_ALL_STEPS,
    "start_percent": _IN_ALL_STEPS,
    "guarantee_steps": _IN_ALL_STEPS,
    "use_on_equal_length": "A video as long as a window is one window; for a closed loop, use a "
    "length below the number of frames.",
    "view_opts": _VIEWS,
    "view_opts_req": _VIEWS,
}


def context_options(work: Work, node: Node, known: Known) -> None:
    """Convert context options, unless they serve other ones, which convert or drop them."""
    if _is_earlier(work, node):
        return
    if work.serves_kept(node):
        for each in (node, *_earlier(work, node)):
            work.keep(each, STAYS_WITH_USER)
        return
    _convert(work, node, known)


def _convert(work: Work, node: Node, known: Known) -> None:
    """Convert context options, with the length and overlap of their views if they have any."""
    earlier = _earlier(work, node)
    found = maker(work.graph, node.slot("view_opts") or node.slot("view_opts_req"))
    plain.convert(work, node, known, _EXPLAINED)
    for each in earlier:
        work.drop(each, f"it gave windows for some steps. {_IN_ALL_STEPS}"[:-1])
    view = known_of(found[0]) if found else None
    if found is None or view is None or view.to != CONTEXT:
        return
    values = plain.new_values(work, node, view, values_of(found[0], view))
    if known.inputs:  # the schedule and the rest are those of the windows
        values = {name: values[name] for name in ("length", "overlap") if name in values}
    node.values = {**(node.values or {}), **values}
    work.use(found[0], by=node)


def _is_earlier(work: Work, node: Node) -> bool:
    """Return whether a node's only use is to be the options before other ones."""
    consumers = work.graph.consumers(Source(node.id, 0))
    return bool(consumers) and all(
        slot.name == "prev_context" and (known := known_of(each)) is not None and known.to
        for each, slot in consumers
    )


def _earlier(work: Work, node: Node) -> list[Node]:
    """Return the options before a node's, the last ones first, that only it uses."""
    found: list[Node] = []
    while (slot := node.slot("prev_context")) and slot.source:
        before = work.graph.nodes.get(slot.source.node)
        if before is None or before in found or not _is_earlier(work, before):
            break
        found.append(before)
        node = before
    return found


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
    _convert(work, options, known)
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
