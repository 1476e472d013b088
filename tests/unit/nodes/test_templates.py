"""The templates are whole, and fit the nodes as they are declared."""

import json
import re
import struct
from pathlib import Path

import pytest

from .declared import schemas

PACK = Path(__file__).parents[3]
TEMPLATES = sorted((PACK / "workflows").glob("*.json"))
CORE_NODES = {"MarkdownNote"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_whole(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert {node["type"] for node in nodes.values()} <= set(schemas()) | CORE_NODES
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
