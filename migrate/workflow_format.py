"""The format that ComfyUI's frontend saves: nodes with positions, slots and widgets, and links.

Links are lists of six in version 0.4 and objects in version 1 and in subgraphs. A subgraph's
own inputs and outputs are ends of links with the node ids -10 and -20.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from .graph import Graph, Node, NodeId, Output, Slot, Source

INNER_INPUT, INNER_OUTPUT = -10, -20
_LINK_PARTS = 5


def subgraphs(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the definitions of subgraphs in a graph's JSON."""
    definitions = data.get("definitions")
    listed = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return [each for each in found if isinstance(each.get("nodes"), list)]


def read(data: dict[str, Any]) -> list[Graph]:
    """Read a graph and its subgraphs; entries that are not nodes or links are ignored."""
    graphs = [_read_graph(data, "")]
    for each in subgraphs(data):
        name = each.get("name")
        graphs.append(_read_graph(each, name if isinstance(name, str) and name else "Subgraph"))
    return graphs


def _read_graph(data: dict[str, Any], name: str) -> Graph:
    graph = Graph(name)
    links = {link[0]: link for link in _links(data)}
    if name:
        graph.add(Node(INNER_INPUT, "", outputs=_outputs(data.get("inputs"))))
        inputs = [_input(each, {}) for each in dicts(data.get("outputs"))]
        for link in links.values():
            if link[3] == INNER_OUTPUT and 0 <= link[4] < len(inputs):
                inputs[link[4]].source = Source(link[1], link[2])
                inputs[link[4]].link_id = link[0]
        graph.add(Node(INNER_OUTPUT, "", inputs=inputs))
    for raw in data["nodes"]:
        if is_node(raw) and raw["id"] not in graph.nodes:
            graph.add(_read_node(raw, links))
    return graph


def _read_node(raw: dict[str, Any], links: dict[int, Link]) -> Node:
    title, mode = raw.get("title"), raw.get("mode")
    return Node(
        raw["id"],
        raw["type"],
        inputs=[_input(each, links) for each in dicts(raw.get("inputs"))],
        outputs=_outputs(raw.get("outputs")),
        title=title if isinstance(title, str) else "",
        mode=mode if isinstance(mode, int) else 0,
        raw=raw,
    )


def _input(raw: dict[str, Any], links: dict[int, Link]) -> Slot:
    link = links.get(raw["link"]) if type(raw.get("link")) is int else None
    return Slot(
        str(raw.get("name", "")),
        _type(raw),
        Source(link[1], link[2]) if link else None,
        is_widget=isinstance(raw.get("widget"), dict),
        link_id=link[0] if link else None,
        raw=raw,
    )


def _outputs(raw: Any) -> list[Output]:
    return [Output(str(each.get("name", "")), _type(each), each) for each in dicts(raw)]


def _type(raw: dict[str, Any]) -> str:
    kind = raw.get("type")
    return kind if isinstance(kind, str) else "COMBO" if isinstance(kind, list) else "*"


# Its id, the node and output that it comes from, the node and input that it goes to.
Link = tuple[int, NodeId, int, NodeId, int]


def _links(data: dict[str, Any]) -> list[Link]:
    listed = data.get("links")
    rows = listed if isinstance(listed, list) else []
    found = [as_link(each) for each in rows]
    return [each for each in found if each is not None]


def as_link(raw: Any) -> Link | None:
    """Return a link of a graph's list; None for anything else."""
    if isinstance(raw, dict):
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
        parts = [raw.get(key) for key in keys]
    else:
        parts = raw[:_LINK_PARTS] if isinstance(raw, list) else []
    if len(parts) != _LINK_PARTS:
        return None
    origin, target = parts[1], parts[3]
    if not (_is_id(origin) and _is_id(target)):
        return None
    numbers = [each for each in (parts[0], parts[2], parts[4]) if type(each) is int and each >= 0]
    if len(numbers) != len(("id", "origin_slot", "target_slot")):
        return None
    number, output, slot = numbers
    return number, origin, output, target, slot


def is_node(raw: Any) -> bool:
    """Return whether an entry of a graph's list is a node."""
    return isinstance(raw, dict) and _is_id(raw.get("id")) and isinstance(raw.get("type"), str)


def _is_id(value: Any) -> TypeGuard[NodeId]:
    return isinstance(value, str) or type(value) is int


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; nothing for other values."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
