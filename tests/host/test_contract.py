"""A real ComfyUI sees the nodes as `tests/unit/node_contract.json` describes them.

ComfyUI's own nodes have everything that the templates use.
"""

from __future__ import annotations

import json
import os

from ..unit.nodes.declared import ANY_FILE
from ..unit.nodes.object_info import CORE_NODES, KEPT, core_nodes, essentials, pack_nodes
from ..unit.nodes.relied_on import assert_relied_on
from ..unit.nodes.test_templates import CORE_NODES as USED
from ..unit.nodes.test_templates import templates_for, workflow
from .comfy_server import PACK

CONTRACT = json.loads((PACK / "tests" / "unit" / "node_contract.json").read_text(encoding="utf-8"))


def seen(info, name):
    """An input's type and options as ComfyUI gives them; older ones put choices for the type."""
    kind, *options = (info["input"].get("required", {}) | info["input"].get("optional", {}))[name]
    options = options[0] if options else {}
    return ("COMBO", options | {"options": kind}) if isinstance(kind, list) else (kind, options)


def test_nodes_are_those_of_the_contract(object_info):
    assert {name for name in object_info if name.startswith("ADV2V_")} == set(CONTRACT)
    for node_id, node in CONTRACT.items():
        info = object_info[node_id]
        order = [info["input_order"].get(part, []) for part in ("required", "optional")]
        assert order == [
            [each["name"] for each in node["inputs"] if each["optional"] is is_optional]
            for is_optional in (False, True)
        ]
        outputs = zip(info["output_name"], info["output"], strict=True)
        assert [list(each) for each in outputs] == node["outputs"]
        for each in node["inputs"]:
            kind, options = seen(info, each["name"])
            assert kind == each["type"], f"{node_id}.{each['name']}"
            for key in {"default", "min", "max", "control_after_generate"} & set(each):
                assert options[key] == each[key], f"{node_id}.{each['name']}.{key}"
            assert bool(options.get("video_upload")) == bool(each.get("upload"))
            fixed = [option for option in each.get("options", []) if option != ANY_FILE]
            assert set(fixed) <= set(options.get("options", []))


def test_pack_nodes_are_described_as_by_comfyui(object_info):
    """The templates are checked against these descriptions where there is no ComfyUI."""
    for node_id, described in pack_nodes().items():
        real = essentials(object_info[node_id])
        for key in set(KEPT) - {"input"}:
            assert described[key] == real[key], f"{node_id}: {key}"
        for section, entries in described["input"].items():
            for name, (kind, options) in entries.items():
                found, said = real["input"][section][name]
                assert found == kind, f"{node_id}.{name}"
                assert {key: said.get(key) for key in options if key != "options"} == {
                    key: value for key, value in options.items() if key != "options"
                }, f"{node_id}.{name}"


def test_core_nodes_have_what_the_templates_rely_on(object_info, server):
    """`make golden` writes those of this ComfyUI into tests/unit/core_nodes.json."""
    if os.environ.get("WRITE_SNAPSHOTS"):
        version = server.get("/system_stats")["system"]["comfyui_version"]
        snapshots = core_nodes()
        used = sorted(USED & set(object_info))
        snapshots[version] = {name: essentials(object_info[name]) for name in used}
        CORE_NODES.write_text(json.dumps(snapshots, indent=1) + "\n", encoding="utf-8")
    for name in sorted(templates_for(object_info)):
        assert_relied_on(workflow(name), object_info)
