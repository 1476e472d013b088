"""Checks of the nodes' source code that need no ComfyUI."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

PACK = Path(__file__).parents[3]
SOURCES = sorted((PACK / "nodes").rglob("*.py"))
CONTRACT = json.loads((PACK / "tests" / "unit" / "node_contract.json").read_text(encoding="utf-8"))


def calls(name):
    """Yield every call of `something.name(...)` in the nodes."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == name:
                yield path, node


def node_ids():
    for path, call in calls("Schema"):
        value = next(keyword.value for keyword in call.keywords if keyword.arg == "node_id")
        # The registry's scanner reads them without running anything.
        assert isinstance(value, ast.Constant), path
        yield value.value


def test_node_ids_are_literal():
    assert sorted(node_ids()) == sorted(CONTRACT)


def test_only_host_imports_comfyui_internals():
    for path in SOURCES:
        imports = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imports.add(node.module.split(".")[0])
        internals = imports & {"comfy", "folder_paths", "latent_preview", "execution", "server"}
        assert path.parent.name == "host" or not internals, path


def constant(path, name):
    """Return the value of a constant in a module of the nodes, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")


def test_lora_slots_are_those_that_the_script_and_the_help_page_know():
    """The order within a slot is that of the values in saved graphs."""
    source = PACK / "nodes" / "lora_stack.py"
    script = (PACK / "web" / "js" / "lora_slots.js").read_text(encoding="utf-8")
    page = (PACK / "web" / "docs" / "ADV2V_LoraStack.md").read_text(encoding="utf-8")
    assert f'EMPTY = "{constant(source, "NO_LORA")}"' in script
    assert f"... `lora_{constant(source, 'LORA_SLOTS')}`" in page
    (pattern,) = re.findall(r"WIDGET = /(.*)/;", script)
    names = [
        ast.unparse(call.args[0])[2:-1].replace("{number}", "10")
        for path, call in calls("Input")
        if path == source and isinstance(call.args[0], ast.JoinedStr)
    ]
    assert names == ["lora_10", "model_strength_10", "clip_strength_10"]
    assert all(re.match(pattern, name)[2] == "10" for name in names)
