"""What can be said of the nodes without ComfyUI: their ids, help pages, templates."""

from __future__ import annotations

import ast
import json
import re
import struct
from pathlib import Path

import pytest

PACK = Path(__file__).parents[3]
TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
SOURCES = sorted((PACK / "nodes").glob("*.py"))
# Node ids stand in graphs that people share: none of these may ever go or change.
NODE_IDS = {
    "ADV2V_ContextOptions",
    "ADV2V_EncodeVideo",
    "ADV2V_LoadModel",
    "ADV2V_LoadVideo",
    "ADV2V_LoraStack",
    "ADV2V_ModelFromComfy",
    "ADV2V_MotionLoraStack",
    "ADV2V_PromptSchedule",
    "ADV2V_Sampler",
    "ADV2V_SelectFrames",
    "ADV2V_VideoToVideo",
}
CORE_NODES = {"MarkdownNote"}


def calls(name):
    """Every call of `something.name(...)` in the nodes."""
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


def test_node_ids_are_literal_and_never_change():
    assert sorted(node_ids()) == sorted(NODE_IDS)


def test_only_host_imports_comfyui_internals():
    for path in SOURCES:
        imports = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imports |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imports.add(node.module.split(".")[0])
        internals = imports & {"comfy", "folder_paths", "latent_preview", "execution", "server"}
        assert path.name == "host.py" or not internals, path


def test_inputs_and_outputs_have_tooltips():
    found = 0
    for name in ("Input", "Output"):
        for path, call in calls(name):
            assert any(keyword.arg == "tooltip" for keyword in call.keywords), (path, call.lineno)
            found += 1
    assert found > 40


@pytest.mark.parametrize("node_id", sorted(NODE_IDS))
def test_every_node_has_a_help_page(node_id):
    page = (PACK / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert re.match(r"# \w", page)
    assert "## Input" in page and "## Output" in page and "## Typical graph" in page


def test_no_help_page_is_left_over():
    assert {path.stem for path in (PACK / "web" / "docs").glob("*.md")} == NODE_IDS


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_whole(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert {node["type"] for node in nodes.values()} <= NODE_IDS | CORE_NODES
    assert max(nodes) == workflow["last_node_id"]
    for number, source, output, target, entry, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][entry]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == kind


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_says_where_its_models_are(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    models = [model for node in workflow["nodes"] for model in node["properties"].get("models", ())]
    assert {model["directory"] for model in models} == {"checkpoints", "animatediff_models"}
    values = {str(value) for node in workflow["nodes"] for value in node.get("widgets_values", ())}
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    for model in models:
        assert model["url"].startswith("https://") and model["url"].endswith(model["name"])
        assert model["name"] in values
        assert model["url"] in note["widgets_values"][0]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_has_a_thumbnail(path):
    data = path.with_suffix(".jpg").read_bytes()
    assert data[:3] == b"\xff\xd8\xff"
    frame = re.search(rb"\xff[\xc0\xc2]..\x08(....)", data, re.DOTALL)
    height, width = struct.unpack(">HH", frame[1])
    assert width >= 400 and height >= 250


def constant(path, name):
    """The value that a module of the nodes gives a name, without importing it."""
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
