"""A real ComfyUI sees the nodes as `tests/unit/node_contract.json` describes them."""

from __future__ import annotations

import json

from .comfy_server import PACK

CONTRACT = json.loads((PACK / "tests" / "unit" / "node_contract.json").read_text(encoding="utf-8"))
ANY_FILE = "<files>"


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
