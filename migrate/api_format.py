"""The format in which graphs are sent to ComfyUI's `/prompt`: values and links by name."""

from __future__ import annotations

from typing import Any, TypeGuard

from .graph import Graph, Node, Output, Slot, Source
from .known import CONTROL, UPLOAD, Known, Target, known_nodes, targets

_LINK_PARTS = 2


def is_prompt(data: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a value looks like a graph in this format."""
    return isinstance(data, dict) and any(
        isinstance(each, dict) and isinstance(each.get("class_type"), str) for each in data.values()
    )


def read(nodes: dict[str, Any]) -> Graph:
    """Read a graph; entries that are not nodes are kept as they are."""
    graph = Graph()
    for node_id, raw in nodes.items():
        if isinstance(raw, dict) and raw.get("class_type") and isinstance(raw["class_type"], str):
            graph.add(_node(node_id, raw))
        else:
            graph.add(Node(node_id, "", raw={"": raw}))
    return graph


def _node(node_id: str, raw: dict[str, Any]) -> Node:
    inputs = raw.get("inputs")
    given = inputs if isinstance(inputs, dict) else {}
    meta = raw.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    links = {name: _source(value) for name, value in given.items()}
    known = known_nodes().get(raw["class_type"]) or targets().get(raw["class_type"])
    types = _types(known)
    widgets = known.widgets if known else {}
    return Node(
        node_id,
        raw["class_type"],
        inputs=[
            Slot(name, types.get(name, "*"), source, is_widget=name in widgets)
            for name, source in links.items()
            if source is not None
        ],
        outputs=[Output(name, kind) for name, kind in _outputs(known)],
        values={name: value for name, value in given.items() if links[name] is None},
        title=title if isinstance(title, str) else "",
        raw=raw,
    )


def _types(known: Known | Target | None) -> dict[str, str]:
    return {name.rstrip("?"): kind for name, kind in known.sockets.items()} if known else {}


def _outputs(known: Known | Target | None) -> list[tuple[str, str]]:
    if known is None:
        return []
    return list(known.outputs.items()) if isinstance(known, Target) else list(known.outputs)


def _source(value: Any) -> Source | None:
    if not isinstance(value, list) or len(value) != _LINK_PARTS:
        return None
    node, output = value
    is_link = isinstance(node, str | int) and type(output) is int and output >= 0
    return Source(str(node), output) if is_link else None


def written(graph: Graph) -> dict[str, Any]:
    """Return the graph in this format."""
    return {str(node.id): _written(node) for node in graph.nodes.values()}


def _written(node: Node) -> Any:
    if not node.type:
        return node.raw[""]
    links = {each.name: list(each.source) for each in node.inputs if each.source is not None}
    if node.was:
        values = node.values or {}
        inputs: dict[str, Any] = {
            name: values.get(name, default)
            for name, (kind, default) in targets()[node.type].widgets.items()
            if kind not in (CONTROL, UPLOAD)
        }
        inputs |= links
    else:
        before = node.raw.get("inputs")
        given = before if isinstance(before, dict) else {}
        gone = {name for name, value in given.items() if _source(value)} - set(links)
        inputs = {name: value for name, value in given.items() if name not in gone} | links
    meta = node.raw.get("_meta")
    described = dict(meta) if isinstance(meta, dict) else {}
    if node.was:
        described["converted_from"] = node.was
    result = {**node.raw, "class_type": node.type, "inputs": inputs}
    return result | {"_meta": described} if described or "_meta" in node.raw else result
