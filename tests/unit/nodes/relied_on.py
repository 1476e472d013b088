"""The properties of ComfyUI's own nodes that the templates rely on.

A ComfyUI may give its nodes more inputs, outputs and choices, or make an input optional, and the
templates still open and run. They do not when something is gone, renamed or moved that they use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...host.api_format import DYNAMIC, NOTES, widget_values
from .object_info import LISTS_FILES, ObjectInfo

OWN = "ADV2V_"
UPLOAD_BUTTON = "IMAGEUPLOAD"
PLAIN = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


def assert_relied_on(graph: dict[str, Any], info: ObjectInfo) -> None:
    """Assert that ComfyUI's own nodes have the sockets, widgets and choices that a graph uses."""
    nodes = {
        node["id"]: node
        for node in graph["nodes"]
        if node["type"] not in NOTES and not node["type"].startswith(OWN)
    }
    for node in nodes.values():
        assert node["type"] in info, f"there is no {node['type']}"
        _assert_node(node, info[node["type"]])
    for _, source, slot, target, entry, kind in graph["links"]:
        if source in nodes:
            name = nodes[source]["type"]
            outputs = info[name]["output"]
            assert outputs[slot : slot + 1] == [kind], f"{name}: output {slot} is not {kind}"
        if target in nodes:
            name, wanted = nodes[target]["type"], nodes[target]["inputs"][entry]["name"]
            found = dict(_inputs(info[name])).get(wanted, ["none"])[0]
            assert kind in str(found).split(","), f"{name}.{wanted}: {found} is not {kind}"


def _assert_node(node: dict[str, Any], info: dict[str, Any]) -> None:
    kind, inputs = node["type"], dict(_inputs(info))
    values = widget_values(node, info)
    linked = {entry["name"] for entry in node["inputs"] if entry["link"] is not None}
    missing = set(info["input"].get("required", {})) - set(values) - linked
    assert not missing, f"{kind}: the templates do not give {sorted(missing)}"
    for name, value in values.items():
        assert _holds(name, inputs, value), f"{kind}.{name} does not take {value!r}"
    widgets = [
        entry["widget"]["name"]
        for entry in node["inputs"]
        if "widget" in entry and entry["type"] != UPLOAD_BUTTON
    ]
    saved = list(node["widgets_values"])
    for index, name in enumerate(widgets):
        # The button that changes a seed after each run has a value, and no input of its own.
        _, *options = inputs.get(name, [""])
        if options and options[0].get("control_after_generate"):
            del saved[index + 1]
    # A widget within another one's choice has that one's name before its own.
    for name, value in zip(widgets, saved, strict=False):
        taken = [values[each] for each in values if f".{each}".endswith(f".{name}")]
        assert taken == [value], f"{kind}.{name} takes {taken}, not {value!r}"
    if not any(output["links"] for output in node["outputs"]):
        assert info["output_node"], f"{kind} does not run at a graph's end"


def _inputs(info: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for section in ("required", "optional"):
        yield from info["input"].get(section, {}).items()


def _holds(name: str, inputs: dict[str, list[Any]], value: Any) -> bool:
    """Return whether a widget can hold a value; one within a choice was checked with the choice."""
    if name not in inputs or name in LISTS_FILES:
        return True
    kind, *more = inputs[name]
    options = more[0] if more else {}
    if kind == DYNAMIC:
        return value in [each["key"] for each in options["options"]]
    if kind == "COMBO" or isinstance(kind, list):
        return value in (kind if isinstance(kind, list) else options["options"])
    if not isinstance(value, PLAIN[kind]):
        return False
    return options.get("min", value) <= value <= options.get("max", value)
