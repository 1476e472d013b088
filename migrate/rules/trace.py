"""Follows links to the node that makes a value, past nodes that only pass it on."""

from __future__ import annotations

from ..graph import BYPASSED, MUTED, Graph, Node, Slot, Source

REROUTE = "Reroute"
# KJNodes' pair, by which a value is named in one place and taken in another.
SET, GET = "SetNode", "GetNode"


def maker(graph: Graph, slot: Slot | None) -> tuple[Node, Source] | None:
    """Return the node and output that an input's value comes from; None if there is none.

    Reroutes, bypassed nodes and named values are followed; a muted node gives no value.
    """
    source = slot.source if slot else None
    seen: set[Source] = set()
    while source is not None and source not in seen:
        seen.add(source)
        node = graph.nodes.get(source.node)
        if node is None or node.mode == MUTED:
            return None
        if node.type == REROUTE:
            source = node.inputs[0].source if node.inputs else None
        elif node.type == GET:
            source = _named(graph, node)
        elif node.mode == BYPASSED:
            source = passed_on(node, source.output)
        else:
            return node, source
    return None


def passed_on(node: Node, output: int) -> Source | None:
    """Return what a node gives at an output while it is bypassed: an input of the same type.

    As in the frontend, the input at the output's own position comes first.
    """
    if output >= len(node.outputs):
        return None
    kind = node.outputs[output].type
    ordered = [*node.inputs[output : output + 1], *node.inputs]
    return next((each.source for each in ordered if each.type == kind and each.source), None)


def _named(graph: Graph, getter: Node) -> Source | None:
    if not graph.named_values:
        setters = [each for each in graph.nodes.values() if each.type == SET and each.inputs]
        graph.named_values = {_name(each): each.inputs[0] for each in setters}
    slot = graph.named_values.get(_name(getter))
    return slot.source if slot else None


def _name(node: Node) -> str:
    values = node.raw.get("widgets_values")
    first = values[0] if isinstance(values, list) and values else ""
    return first if isinstance(first, str) else ""
