"""What a ComfyUI says of its nodes (`/object_info`), for those who check graphs without one.

This pack's half is made of what the nodes declare, which `tests/host` compares with what a real
ComfyUI says. ComfyUI's own nodes are kept in `core_nodes.json`, for each version that was asked;
another commit of a version may have others, see `relied_on.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contract import contract_of
from .declared import ANY_FILE, schemas

CORE_NODES = Path(__file__).parents[1] / "core_nodes.json"
# Fields that do not affect a graph's validity.
PROSE = {"tooltip", "description"}
# The parts of a node that graphs rely on.
KEPT = ("name", "input", "input_order", "output", "output_name", "output_is_list", "output_node")
# ComfyUI's own combos that list files.
LISTS_FILES = {"bg_removal_name", "ckpt_name", "clip_name", "file", "image", "lora_name"}
LISTS_FILES |= {"model_name"}
OPTIONS = {"force_input": "forceInput", "upload": "video_upload"}

ObjectInfo = dict[str, dict[str, Any]]


def core_nodes() -> dict[str, ObjectInfo]:
    """Return ComfyUI's own nodes by its version."""
    return json.loads(CORE_NODES.read_text(encoding="utf-8"))


def pack_nodes() -> ObjectInfo:
    """Return this pack's nodes, as ComfyUI describes them."""
    declared = schemas()
    return {
        name: {"name": name, **_described(node), "output_node": declared[name].is_output_node}
        for name, node in contract_of(declared).items()
    }


def _described(node: dict[str, Any]) -> dict[str, Any]:
    sections = {
        section: {each["name"]: _input(each) for each in node["inputs"] if each["optional"] is flag}
        for section, flag in (("required", False), ("optional", True))
    }
    inputs = {name: entries for name, entries in sections.items() if entries or name == "required"}
    names, types = zip(*node["outputs"], strict=True) if node["outputs"] else ((), ())
    return {
        "input": inputs,
        "input_order": {section: list(entries) for section, entries in inputs.items()},
        "output": list(types),
        "output_name": list(names),
        "output_is_list": [False] * len(types),
    }


def _input(declared: dict[str, Any]) -> list[Any]:
    beside = {"name", "type", "optional", "widget"}
    options = {OPTIONS.get(key, key): declared[key] for key in declared if key not in beside}
    return [declared["type"], options]


def essentials(info: dict[str, Any]) -> dict[str, Any]:
    """Reduce one of ComfyUI's nodes to its form in `core_nodes.json`: no prose, no files."""
    kept = _without_prose({key: info[key] for key in KEPT})
    for part in ("input", "input_order"):
        kept[part].pop("hidden", None)
    for name, entry in _entries(kept):
        if name in LISTS_FILES:
            _choices(entry)[:] = [ANY_FILE]
    return kept


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_prose(each) for key, each in value.items() if key not in PROSE}
    return [_without_prose(each) for each in value] if isinstance(value, list) else value


def with_files(nodes: ObjectInfo, files: list[str]) -> ObjectInfo:
    """Return the nodes as on a machine that has these files in every folder."""
    nodes = json.loads(json.dumps(nodes))
    for info in nodes.values():
        for _, entry in _entries(info):
            choices = _choices(entry)
            if ANY_FILE in choices:
                place = choices.index(ANY_FILE)
                choices[place : place + 1] = files
    return nodes


def _entries(info: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for section in info["input"].values():
        yield from section.items()


def _choices(entry: list[Any]) -> list[Any]:
    """Return a combo's choices, which can be in two places."""
    kind, *options = entry
    return kind if isinstance(kind, list) else (options or [{}])[0].get("options", [])
