"""Converts graphs made for other packs into graphs for this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from . import formats
from .graph import Node, NodeId
from .known import Known, known_nodes, packs, targets
from .report import Entry, Report
from .rules import batches, motion, plain, prompts, samplers, videos, windows
from .rules.work import STAYS_WITH_USER, Work, known_of
from .suitability import refusal

Rule = Callable[[Work, Node, Known], None]

# The functions that the table names. Those of nodes that others are folded into come first.
RULES: dict[str, Rule] = {
    "context_extras": windows.extras,
    "evolved": motion.evolved,
    "loader": motion.loader,
    "their_sampler": samplers.their_sampler,
    "control": samplers.control,
    "control_loader": samplers.control_loader,
    "load_video": videos.load_video,
    "their_load_video": videos.load_video,
    "combine": videos.combine,
    "prompts": prompts.schedule,
    "split": batches.split,
    "merge": batches.merge,
    "register_hook": plain.register_hook,
    "context_options": windows.context_options,
}
# Nodes that only serve others: dropped when nothing uses them any more.
PART = "part"


class Converted(NamedTuple):
    """A converted graph and the report. `graph` is None if it was left as it is."""

    graph: dict[str, Any] | None
    report: Report


def convert(data: Any) -> Converted:
    """Convert a graph, given as the JSON that ComfyUI saves in either of its formats.

    The JSON itself is not changed.

    Raises:
        AnimateDiffV2VError: the JSON is not a graph.
    """
    document = formats.read(data)
    reason = refusal(document)
    if reason:
        return Converted(None, Report(reason=reason))
    taken = {key for graph in document.graphs for key in graph.nodes}
    works = [Work(graph, taken) for graph in document.graphs]
    for work in works:
        _convert_graph(work)
    entries = [entry for work in works for entry in work.entries.values()]
    report = Report(True, "", entries, _needed(entries))
    return Converted(formats.written(document), report)


def _convert_graph(work: Work) -> None:
    found = [
        (node, known) for node in work.graph.nodes.values() if (known := known_of(node)) is not None
    ]
    order = list(RULES)
    found.sort(key=lambda each: order.index(each[1].rule) if each[1].rule in order else len(order))
    for node, known in found:
        if work.graph.nodes.get(node.id) is not node or node.was:
            continue  # another node has taken it in, or a rule for another has converted it
        if known.rule in RULES:
            RULES[known.rule](work, node, known)
        elif known.to and known.rule != PART:
            if _changes_type(known) and work.serves_kept(node):
                work.keep(node, STAYS_WITH_USER)
            else:
                plain.convert(work, node, known)
        elif known.stays:
            work.keep(node, known.stays)
    rest = [each for each in found if work.graph.nodes.get(each[0].id) is each[0]]
    _drop_rest(work, [(node, known) for node, known in rest if known.none or known.rule == PART])


def _drop_rest(work: Work, rest: list[tuple[Node, Known]]) -> None:
    """Drop parts and nodes without counterpart, consumers before what they consume."""
    waiting = {node.id: (node, known) for node, known in rest}
    feeds = {
        key: {maker for maker in _makers(node) if maker in waiting and maker != key}
        for key, (node, _) in waiting.items()
    }
    consumers = Counter(maker for makers in feeds.values() for maker in makers)
    free = [key for key in waiting if not consumers[key]]
    # Nodes in a circle come last.
    for key in _consumers_first(free, feeds, consumers) + list(waiting):
        if key in waiting:
            _drop(work, *waiting.pop(key))


def _makers(node: Node) -> set[NodeId]:
    return {slot.source.node for slot in node.inputs if slot.source is not None}


def _consumers_first(
    free: list[NodeId], feeds: dict[NodeId, set[NodeId]], consumers: Counter[NodeId]
) -> list[NodeId]:
    for key in free:  # grows
        for maker in feeds[key]:
            consumers[maker] -= 1
            if not consumers[maker]:
                free.append(maker)
    return free


def _drop(work: Work, node: Node, known: Known) -> None:
    if work.serves_kept(node):
        work.keep(node, STAYS_WITH_USER)
    elif known.to:
        work.absorb(node)
    else:
        instead = f"; the nearest thing is {known.instead}" if known.instead else ""
        work.drop(node, f"{known.none}{instead}")


def _changes_type(known: Known) -> bool:
    """Return whether an output has another type afterwards, which nodes that stay do not take."""
    after = list(targets()[known.to].outputs.values())
    return any(after[new] != known.outputs[int(old)][1] for old, new in known.output_map.items())


def _needed(entries: list[Entry]) -> list[str]:
    known, tables = known_nodes(), packs()
    kept = [each.type for each in entries if each.outcome == "kept" and each.type in known]
    return [tables[name]["title"] for name in dict.fromkeys(known[each].pack for each in kept)]
