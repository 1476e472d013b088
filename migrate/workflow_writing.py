"""Writes graphs back into the JSON that the frontend saved, with positions and groups kept."""

from __future__ import annotations

from typing import Any

from .graph import Graph, Node, NodeId, Output, Slot, Source
from .known import known_nodes, targets
from .workflow_format import INNER_INPUT, INNER_OUTPUT, as_link, dicts, is_node, subgraphs

# What a node of another pack says of where it comes from.
_ORIGIN = ("cnr_id", "aux_id", "ver", "ue_properties", "models")
OUR_REGISTRY_ID = "animatediff-v2v"
CONVERTED_FROM = "converted_from"
# Types of sockets that have another name once the nodes at their ends are converted.
RENAMED_TYPES = {
    "CONTEXT_OPTIONS": "ADV2V_CONTEXT_OPTIONS",
    "MOTION_LORA": "ADV2V_MOTION_LORA_STACK",
    "MOTION_LORA_STACK": "ADV2V_MOTION_LORA_STACK",
    "SLIDING_WINDOW_OPTS": "ADV2V_CONTEXT_OPTIONS",
    "VHS_AUDIO": "AUDIO",
}


def write(data: dict[str, Any], graphs: list[Graph]) -> None:
    """Write graphs that `read` returned back into the JSON that they were read from."""
    parts = subgraphs(data)
    for part, graph in zip([data, *parts], graphs, strict=True):
        _write_nodes(part, graph)
        _write_links(part, graph)
        _name_primitives(graph)
    by_id = {str(each.get("id")): graph for each, graph in zip(parts, graphs[1:], strict=True)}
    for graph in graphs:
        for node in graph.nodes.values():
            if node.type in by_id:
                _rename_promoted(node, by_id[node.type])


def _write_nodes(data: dict[str, Any], graph: Graph) -> None:
    """Replace converted nodes where they are in the list; new ones come last."""
    read = {id(each.raw): each for each in graph.nodes.values() if each.raw}
    in_file = {id(raw) for raw in data["nodes"]}
    added = [each for each in graph.nodes.values() if each.was and id(each.raw) not in in_file]
    kept = []
    for raw in data["nodes"]:
        if id(raw) in read:
            node = read[id(raw)]
            kept.append(_converted(node) if node.was else raw)
        elif not is_node(raw):
            kept.append(raw)
    data["nodes"] = kept + [_converted(each) for each in added]


def _converted(node: Node) -> dict[str, Any]:
    """Return the JSON of a node that has been converted or added."""
    before = node.raw.get("properties")
    properties = {
        key: value
        for key, value in (before.items() if isinstance(before, dict) else ())
        if key not in _ORIGIN
    }
    properties["Node name for S&R"] = node.type
    if node.was:
        properties[CONVERTED_FROM] = node.was
    if node.type.startswith("ADV2V_"):
        properties["cnr_id"] = OUR_REGISTRY_ID
    values = node.values or {}
    widgets = targets()[node.type].widgets
    raw = {key: value for key, value in node.raw.items() if key != "widgets_values_named"}
    node.raw = raw | {
        "id": node.id,
        "type": node.type,
        "mode": node.mode,
        "inputs": [_written_input(each) for each in node.inputs],
        "outputs": [{"name": each.name, "type": each.type, "links": None} for each in node.outputs],
        "properties": properties,
        "widgets_values": [values.get(name, default) for name, (_, default) in widgets.items()],
    }
    for slot, written in zip(node.inputs, node.raw["inputs"], strict=True):
        slot.raw = written
    for output, written in zip(node.outputs, node.raw["outputs"], strict=True):
        output.raw = written
    return node.raw


def _written_input(slot: Slot) -> dict[str, Any]:
    label = {"label": slot.raw["label"]} if isinstance(slot.raw.get("label"), str) else {}
    widget = {"widget": {"name": slot.name}} if slot.is_widget else {}
    return {"name": slot.name, "type": slot.type, "link": None, **label, **widget}


def _write_links(data: dict[str, Any], graph: Graph) -> None:
    """Write the links into the list, the inputs and the outputs; known ones keep their numbers."""
    before = {link[0]: raw for raw in _rows(data) if (link := as_link(raw)) is not None}
    last = max([0, *before, _counter(data)])
    rows: dict[int, Any] = {}
    leaving: dict[Source, list[int]] = {}
    for node in graph.nodes.values():
        for index, slot in enumerate(node.inputs):
            if slot.source is None or slot.source.node not in graph.nodes:
                slot.link_id = None
            elif slot.link_id is None or slot.link_id in rows:
                last += 1
                slot.link_id = last
            if slot.source is not None and slot.link_id is not None:
                ends = (*slot.source, node.id, index, _carried(graph, slot))
                rows[slot.link_id] = _row(data, before.get(slot.link_id), slot.link_id, ends)
                leaving.setdefault(slot.source, []).append(slot.link_id)
            _write_end(slot.raw, node.id, [slot.link_id] if slot.link_id is not None else [])
        # Nodes of other packs that stay keep their types.
        if node.type not in known_nodes():
            for slot in node.inputs:
                _rename_type(slot)
            for output in node.outputs:
                _rename_type(output)
    for node in graph.nodes.values():
        for index, output in enumerate(node.outputs):
            ids = leaving.get(Source(node.id, index), [])
            _write_start(output.raw, node.id, ids)
    data["links"] = list(rows.values())
    _write_counters(data, graph, last)
    _prune_reroutes(data, set(rows))


def _rows(data: dict[str, Any]) -> list[Any]:
    listed = data.get("links")
    return listed if isinstance(listed, list) else []


def _write_end(raw: dict[str, Any], node: NodeId, ids: list[int]) -> None:
    if node == INNER_OUTPUT:
        raw["linkIds"] = ids
    elif ids or "link" in raw:
        raw["link"] = ids[0] if ids else None


def _write_start(raw: dict[str, Any], node: NodeId, ids: list[int]) -> None:
    if node == INNER_INPUT:
        raw["linkIds"] = ids
    elif ids or raw.get("links"):
        raw["links"] = ids


def _carried(graph: Graph, slot: Slot) -> str:
    """Return the type of what a link carries: that of the output, if it says."""
    origin = graph.nodes[slot.source.node] if slot.source else None
    outputs = origin.outputs if origin else []
    index = slot.source.output if slot.source else 0
    kind = outputs[index].type if index < len(outputs) else slot.type
    return RENAMED_TYPES.get(kind, kind)


def _row(data: dict[str, Any], before: Any, number: int, ends: tuple[Any, ...]) -> Any:
    """Return a link as the list holds it; `ends` are origin, output, target, input and type."""
    rows = _rows(data)
    is_object = isinstance(before, dict) or (before is None and isinstance((rows or [0])[0], dict))
    if not is_object:
        return [number, *ends]
    keys = ("origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {**(before or {}), "id": number, **dict(zip(keys, ends, strict=True))}


def _rename_type(end: Slot | Output) -> None:
    if end.type in RENAMED_TYPES:
        end.type = RENAMED_TYPES[end.type]
        if "type" in end.raw:
            end.raw["type"] = end.type


def _counter(data: dict[str, Any]) -> int:
    state = data.get("state")
    inner = state.get("lastLinkId") if isinstance(state, dict) else None
    return max(each for each in (0, data.get("last_link_id"), inner) if type(each) is int)


def _write_counters(data: dict[str, Any], graph: Graph, last_link: int) -> None:
    """Raise the highest numbers that the JSON says it has given to nodes and links."""
    last_node = max([0, *(each for each in graph.nodes if isinstance(each, int))])
    state = data.get("state")
    for holder, node_key, link_key in (
        (data, "last_node_id", "last_link_id"),
        (state, "lastNodeId", "lastLinkId"),
    ):
        if isinstance(holder, dict):
            for key, value in ((node_key, last_node), (link_key, last_link)):
                if type(holder.get(key)) is int:
                    holder[key] = max(holder[key], value)


def _prune_reroutes(data: dict[str, Any], ids: set[int]) -> None:
    """Forget the bends of links that are gone."""
    extra = data.get("extra")
    places = [data, extra] if isinstance(extra, dict) else [data]
    for place in places:
        extensions = place.get("linkExtensions")
        if isinstance(extensions, list):
            place["linkExtensions"] = [
                each for each in extensions if isinstance(each, dict) and each.get("id") in ids
            ]
        for each in dicts(place.get("reroutes")):
            if isinstance(each.get("linkIds"), list):
                each["linkIds"] = [number for number in each["linkIds"] if number in ids]


def _name_primitives(graph: Graph) -> None:
    """Tell primitives the new name of the widget whose value they hold."""
    for node in graph.nodes.values():
        widget = node.outputs[0].raw.get("widget") if node.outputs else None
        if node.type != "PrimitiveNode" or not isinstance(widget, dict):
            continue
        for _, slot in graph.consumers(Source(node.id, 0))[:1]:
            if slot.is_widget and widget.get("name") != slot.name:
                node.outputs[0].raw["widget"] = {"name": slot.name}


def _rename_promoted(instance: Node, inner: Graph) -> None:
    """Rename the widgets of converted nodes that a subgraph's node shows as its own."""
    properties = instance.raw.get("properties")
    shown = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    by_name = {str(key): node for key, node in inner.nodes.items()}
    for pair in shown if isinstance(shown, list) else ():
        if isinstance(pair, list) and len(pair) > 1 and str(pair[0]) in by_name:
            renamed = by_name[str(pair[0])].renamed
            pair[1] = renamed.get(pair[1], pair[1]) if isinstance(pair[1], str) else pair[1]
