"""comfy-cli, which many use to run graphs, finds nothing wrong with the templates."""

import json
import os
import subprocess
import sys

import pytest

from .object_info import core_nodes, pack_nodes, with_files
from .test_templates import NAMES, templates_for, workflow

CORE_NODES = core_nodes()
OLDEST, *_, NEWEST = CORE_NODES
# What the templates' nodes load that is no model: ComfyUI comes with the picture.
INPUT_FILES = ["example.png"]


def validate(tmp_path, graph, core, files):
    """Return the report of `comfy workflow validate` on a graph, without a server."""
    info = with_files(pack_nodes() | core, files)
    for name, content in (("graph.json", graph), ("object_info.json", info)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "comfy_cli", "--json", "workflow", "validate"]
    command += ["--workflow", "graph.json", "--input", "object_info.json"]
    # It keeps files in the home folder, and would send usage data to its makers.
    home = {name: str(tmp_path) for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA")}
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **home, "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.stdout, run.stderr
    return json.loads(run.stdout)["data"]


def models(graph):
    return [
        model["name"] for node in graph["nodes"] for model in node["properties"].get("models", ())
    ]


def cases():
    """All templates in the newest ComfyUI, and in the oldest those that hold nodes of its own."""
    for name in sorted(NAMES):
        yield name, NEWEST
    for name in sorted(templates_for(CORE_NODES[OLDEST])):
        if {node["type"] for node in workflow(name)["nodes"]} & set(CORE_NODES[OLDEST]):
            yield name, OLDEST


@pytest.mark.parametrize(("name", "version"), list(cases()))
def test_template_is_valid(name, version, tmp_path):
    graph = workflow(name)
    told = validate(tmp_path, graph, CORE_NODES[version], [*models(graph), *INPUT_FILES])
    assert told["valid"] and not told["warnings"], told["errors"] + told["warnings"]
    notes = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    assert told["converted_node_count"] == len(graph["nodes"]) - len(notes)


def test_a_missing_model_and_a_wrong_value_are_told(tmp_path):
    graph = workflow("03 Video to Video")
    (sampler,) = (node for node in graph["nodes"] if node["type"] == "ADV2V_Sampler")
    sampler["widgets_values"][sampler["widgets_values"].index("euler")] = "magic"
    (model, *others) = models(graph)
    told = validate(tmp_path, graph, CORE_NODES[NEWEST], others)
    assert not told["valid"]
    said = " ".join(error["message"] for error in told["errors"])
    assert model in said and "magic" in said, said
