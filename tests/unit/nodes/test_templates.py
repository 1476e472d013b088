"""The templates are complete, name their files, and match the declared nodes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from .declared import ANY_FILE, schemas

PACK = Path(__file__).parents[3]
TEMPLATES = {path.stem: path for path in (PACK / "workflows").glob("*.json")}
NAMES = {
    "ControlNet",
    "LoRA Stack",
    "Long Video (context windows)",
    "Native nodes (MODEL, CLIP, VAE, VIDEO)",
    "Prompt Travel",
    "Style Image",
    "Turbo (few steps)",
    "Video to Video",
    "Video to Video (one node)",
}
CORE_NODES = {
    "CLIPTextEncode",
    "CLIPVisionLoader",
    "CheckpointLoaderSimple",
    "CreateVideo",
    "LoadImage",
    "LoadVideo",
    "LoraLoader",
    "MarkdownNote",
    "SaveVideo",
}
FOLDERS = {"checkpoints", "animatediff_models", "loras"}
FOLDERS |= {"controlnet", "ipadapter", "clip_vision"}
# Its own file name says nothing; ComfyUI's users know it by this name.
RENAMED = {"CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": "image_encoder/model.safetensors"}
# ComfyUI's own, which know Stable Diffusion's and CLIP's sizes alone.
NATIVE_LOADERS = {"CheckpointLoaderSimple", "CLIPVisionLoader"}
# In custom_nodes: an installation through ComfyUI puts no command on the path.
INSTALL = "python -m animatediff-v2v.cli demo --install-models .."
# The nodes' titles stand above their places.
TITLE_PIXELS = 30


def workflow(name):
    return json.loads(TEMPLATES[name].read_text(encoding="utf-8"))


def values_of(node):
    """The saved values of one of our nodes by the inputs' names.

    Optional inputs that the node has gained since are missing, unless it has an upload button: the
    button's value stands behind all others, and the next widget would take it for its own.
    """
    widgets = [each for each in schemas()[node["type"]].ordered_inputs if each.is_widget]
    uploads = sum("upload" in each.options for each in widgets)
    saved, values = list(node.get("widgets_values", ())), {}
    for each in widgets:
        if not saved and each.is_optional and not uploads:
            break
        values[each.name] = (each, saved.pop(0))
        if each.options.get("control_after_generate"):
            assert saved.pop(0) == "randomize"
    assert saved == ["image"] * uploads, f"{node['type']}: open the template and save it anew"
    return values


def fits(declared, value):
    """Return whether a widget can hold a value; a combo of files can hold any name."""
    options = declared.options
    if declared.type in ("INT", "FLOAT"):
        return options["min"] <= value <= options["max"]
    if declared.type == "COMBO":
        return ANY_FILE in options["options"] or value in options["options"]
    return isinstance(value, bool if declared.type == "BOOLEAN" else str)


def test_the_templates_are_those_that_are_promised():
    assert set(TEMPLATES) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_is_whole(name):
    graph = workflow(name)
    assert graph["version"] == 0.4
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert {node["type"] for node in nodes.values()} <= set(schemas()) | CORE_NODES
    assert max(nodes) == graph["last_node_id"]
    for number, source, output, target, entry, kind in graph["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][entry]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == kind


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_fits_the_nodes(name):
    for node in workflow(name)["nodes"]:
        if node["type"] in CORE_NODES:
            continue
        schema = schemas()[node["type"]]
        known = {each.name: each for each in schema.inputs}
        assert {each["name"] for each in node["inputs"]} - {"upload"} <= set(known)
        outputs = [(each["name"], each["type"]) for each in node["outputs"]]
        assert (
            outputs == [(each.display_name, each.type) for each in schema.outputs][: len(outputs)]
        )
        for declared, value in values_of(node).values():
            assert fits(declared, value), f"{node['type']}.{declared.name}: {value!r}"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_says_where_its_models_are(name):
    nodes = workflow(name)["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    models = [model for node in nodes for model in node["properties"].get("models", ())]
    assert (
        {"checkpoints", "animatediff_models"} <= {each["directory"] for each in models} <= FOLDERS
    )
    values = {str(value) for node in nodes for value in node.get("widgets_values", ())}
    for model in models:
        assert model["url"].startswith("https://huggingface.co/")
        assert model["url"].endswith(f"/{RENAMED.get(model['name'], model['name'])}")
        assert model["name"] in values
        assert f"({model['url']})" in note and f"`models/{model['directory']}`" in note
    takes_native = any(node["type"] in NATIVE_LOADERS for node in nodes)
    assert (f"`{INSTALL} --native` (2 GB)" if takes_native else f"`{INSTALL}`") in note
    assert f"# {name}\n" in note


def test_the_line_in_the_notes_runs_as_written(tmp_path):
    folder = tmp_path / "custom_nodes"
    folder.mkdir()
    (tmp_path / "models").mkdir()
    (folder / "animatediff-v2v").symlink_to(PACK, target_is_directory=True)
    program, *rest = INSTALL.split()
    assert program == "python"
    run = subprocess.run(
        [sys.executable, *rest], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "models" / "checkpoints" / "miniature.safetensors").is_file()
    assert (tmp_path / "input" / "miniature_clip.mp4").is_file()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_is_laid_out(name):
    """Nothing overlaps, and each node is entirely inside a group or outside all groups."""
    graph = workflow(name)
    boxes = [box(node["pos"], node["size"]) for node in graph["nodes"]]
    for one, other in itertools.combinations(boxes, 2):
        assert not overlap(one, other)
    for group in graph["groups"]:
        x, y, width, height = group["bounding"]
        outer = (x, y, x + width, y + height)
        for inner in boxes:
            inside = outer[0] <= inner[0] and inner[2] <= outer[2]
            inside &= outer[1] <= inner[1] and inner[3] <= outer[3]
            assert inside or not overlap(outer, inner), group["title"]


def box(position, size):
    x, y = position
    return x, y - TITLE_PIXELS, x + size[0], y + size[1]


def overlap(one, other):
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_has_a_thumbnail(name):
    path = TEMPLATES[name].with_suffix(".jpg")
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 400 and picture.height >= 250
