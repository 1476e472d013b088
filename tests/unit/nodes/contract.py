"""The properties of nodes that shared graphs rely on, and the changes that would break graphs.

A saved graph holds node ids, links by the outputs' numbers and the inputs' names, and the values of
widgets by their position; a prompt for the API holds values by the inputs' names, and leaves out
what is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .declared import Input, Schema

# The options of an input that saved values rely on. The last two add a value of their own.
RELIED_ON = ("default", "min", "max", "options", "force_input", "control_after_generate", "upload")

# Widgets for which web/js/older_graphs.js completes graphs that were saved without them.
COMPLETED = {
    "ADV2V_VideoToVideo": [
        "width",
        "height",
        "frame_load_cap",
        "match_source",
        "restore_frames",
        "refine",
        "refine_denoise",
        "refine_upscale",
    ]
}

Contract = dict[str, dict[str, Any]]


def contract_of(schemas: dict[str, Schema]) -> Contract:
    """Describe nodes in plain values, as `node_contract.json` holds them."""
    return {
        node_id: {
            "inputs": [_input(each) for each in schema.ordered_inputs],
            "outputs": [[each.display_name, each.type] for each in schema.outputs],
        }
        for node_id, schema in sorted(schemas.items())
    }


def _input(declared: Input) -> dict[str, Any]:
    described = {"name": declared.name, "type": declared.type, "optional": declared.is_optional}
    for key in RELIED_ON:
        if key in declared.options:
            value = declared.options[key]
            described[key] = True if key == "upload" else value
    return described | {"widget": True} if declared.is_widget else described


def broken(released: Contract, now: Contract) -> list[str]:
    """Return sentences that say what a graph made with `released` would miss in `now`."""
    return [
        sentence
        for node_id, before in released.items()
        for sentence in (
            _broken_node(node_id, before, now[node_id])
            if node_id in now
            else [f"{node_id} is gone, and shared graphs name it: bring it back, as deprecated."]
        )
    ]


def _broken_node(node_id: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    inputs = {each["name"]: each for each in now["inputs"]}
    known = {each["name"] for each in before["inputs"]}
    for old in before["inputs"]:
        name = f"{node_id}.{old['name']}"
        if old["name"] not in inputs:
            yield f"{name} is gone, and shared graphs set it: bring the input back."
        else:
            yield from _broken_input(name, old, inputs[old["name"]])
    for name, new in inputs.items():
        if name not in known and not new["optional"]:
            yield (
                f"{node_id}.{name} is new and required, and shared prompts lack it: make it "
                "optional, with a default that changes nothing."
            )
    yield from _broken_positions(node_id, before, now)


def _broken_input(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old["type"] != new["type"]:
        yield f"{name} was {old['type']} and is {new['type']}: add another input instead."
        return
    if old["optional"] and not new["optional"]:
        yield f"{name} has become required, and shared prompts may lack it: make it optional."
    for key in ("default", "force_input", "control_after_generate", "upload"):
        if old.get(key) != new.get(key):
            yield f"{name}: {key} was {old.get(key)!r} and is {new.get(key)!r}: put it back."
    for key, narrower in (("min", float.__gt__), ("max", float.__lt__)):
        if key in old and narrower(float(new[key]), float(old[key])):
            yield f"{name}: {key} was {old[key]} and is {new[key]}: saved values may lie beyond."
    kept = [option for option in new.get("options", []) if option in old.get("options", [])]
    if kept != old.get("options", []):
        yield f"{name} no longer offers {old['options']} in this order: only add to them."


def _broken_positions(node_id: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    old, new = (
        [each["name"] for each in node["inputs"] if each.get("widget")] for node in (before, now)
    )
    if set(old) <= set(new) and old != new[: len(old)]:
        yield (
            f"{node_id} had its widgets in the order {old} and has {new}: saved graphs hold "
            "values by position, so new widgets go behind all others."
        )
    added = [name for name in new[len(old) :] if name not in COMPLETED.get(node_id, ())]
    if any(each.get("upload") for each in before["inputs"]) and added:
        yield (
            f"{node_id} has an upload button, and saved graphs hold its value behind all others: "
            f"the new widgets {added} would take it for theirs. Make them sockets, or "
            "put them on another node."
        )
    if now["outputs"][: len(before["outputs"])] != before["outputs"]:
        yield (
            f"{node_id} gave {before['outputs']} and gives {now['outputs']}: links hold outputs "
            "by number, so new ones go behind all others."
        )
