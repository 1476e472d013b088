"""The templates are complete, name their files, and match the declared nodes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from animatediff_v2v.demo.install import CLIP_NAME, KEYFRAME_NAME, PICTURE_NAME, TABLE_NAME
from PIL import Image

from .declared import ANY_FILE, schemas

PACK = Path(__file__).parents[3]
TEMPLATES = {path.stem: path for path in (PACK / "workflows").glob("*.json")}
# By their use: the most useful first. ComfyUI lists them by name.
NAMES = {
    "01 Try it now",
    "02 Video to Video (one node)",
    "03 Video to Video",
    "04 Turbo (few steps)",
    "05 Prompt Travel",
    "06 Long Video",
    "07 ControlNet",
    "08 Style Image",
    "09 LoRA Stack",
    "10 Native nodes",
    "11 Apply AnimateDiff (KSampler)",
    "12 Batch of Videos",
    "13 Every Frame Back",
    "14 SAM3 Mask",
    "15 Depth and Pose",
    "16 Background Removal",
    "17 Slow Motion",
    "18 Long Memory",
    "19 Keyframes",
}
# They need networks that have no miniature, and nodes that ComfyUI has gained by 0.33.
WITH_COMFYUIS_NETWORKS = {name for name in NAMES if "14" <= name[:2] <= "17"}
TRY_IT_NOW = "01 Try it now"
CORE_NODES = {
    "CLIPTextEncode",
    "CLIPVisionLoader",
    "CheckpointLoaderSimple",
    "CreateVideo",
    "DA3Inference",
    "DA3Render",
    "FrameInterpolate",
    "FrameInterpolationModelLoader",
    "KSampler",
    "LoadBackgroundRemovalModel",
    "LoadDA3Model",
    "LoadImage",
    "LoadVideo",
    "LoraLoader",
    "MarkdownNote",
    "RemoveBackground",
    "SAM3_TrackToMask",
    "SAM3_VideoTrack",
    "SDPoseDrawKeypoints",
    "SDPoseKeypointExtractor",
    "SaveVideo",
    "VAEDecode",
    "VAEEncode",
}
FOLDERS = {"checkpoints", "animatediff_models", "loras"}
FOLDERS |= {"controlnet", "ipadapter", "clip_vision"}
FOLDERS |= {"background_removal", "frame_interpolation", "geometry_estimation"}
# Its own file name says nothing; ComfyUI's users know it by this name.
RENAMED = {"CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": "image_encoder/model.safetensors"}
# ComfyUI's own, which know Stable Diffusion's and CLIP's sizes alone.
NATIVE_LOADERS = {"CheckpointLoaderSimple", "CLIPVisionLoader"}
# In custom_nodes: an installation through ComfyUI puts no command on the path.
INSTALL = "python -m animatediff-v2v.cli demo --install-models .."
V2V = "ADV2V_VideoToVideo"
# A script of the page makes it a button; elsewhere it leads to the README.
GET = "[Get the miniature](https://github.com/animatediff-v2v/animatediff-v2v#get-the-miniature)"


def workflow(name):
    return json.loads(TEMPLATES[name].read_text(encoding="utf-8"))


def templates_for(info):
    """Return the names of the templates for a ComfyUI with these nodes of its own."""
    return NAMES if "RemoveBackground" in info else NAMES - WITH_COMFYUIS_NETWORKS


def values_of(node, after_generate="randomize"):
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
            assert saved.pop(0) == after_generate
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
        # A first result that can be compared with its description.
        after_generate = "fixed" if name == TRY_IT_NOW else "randomize"
        for declared, value in values_of(node, after_generate).values():
            assert fits(declared, value), f"{node['type']}.{declared.name}: {value!r}"


def note_of(name):
    nodes = workflow(name)["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    # By this the page knows notes of this pack, which it shows at reading size.
    assert "(https://github.com/animatediff-v2v/" in note
    assert note.startswith(f"# {name[3:]}\n")
    return note


@pytest.mark.parametrize("name", sorted(NAMES - {TRY_IT_NOW}))
def test_template_says_where_its_models_are(name):
    nodes, note = workflow(name)["nodes"], note_of(name)
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
    if name in WITH_COMFYUIS_NETWORKS:
        assert "It needs ComfyUI 0.33 or newer." in note and GET not in note
    else:
        assert f"No files yet? {GET}" in note


@pytest.mark.parametrize("name", sorted(NAMES - WITH_COMFYUIS_NETWORKS))
def test_the_miniature_suits_the_template(name):
    """The button "Get the miniature" sets files that it brings, and values that the nodes take."""
    graph, note = workflow(name), note_of(name)
    plan = graph["extra"]["animatediff_v2v_miniature"]
    nodes = {str(node["id"]): node for node in graph["nodes"]}
    native = any(node["type"] in NATIVE_LOADERS for node in nodes.values())
    assert plan.get("native", False) == native
    assert GET in note and ("2 GB" if native else "30 MB") in note
    brought = {path.name for path in (PACK / "demo" / "models").rglob("*.safetensors")}
    brought |= {f"{name.removesuffix('.safetensors')}_native.safetensors" for name in brought}
    for key, values in plan["values"].items():
        inputs = {each["name"] for each in nodes[key]["inputs"] if "widget" in each}
        assert set(values) <= inputs
        for widget, value in values.items():
            if str(value).startswith("miniature"):
                assert value in brought | {CLIP_NAME, PICTURE_NAME, KEYFRAME_NAME, TABLE_NAME}
            elif nodes[key]["type"] not in CORE_NODES:
                known = {each.name: each for each in schemas()[nodes[key]["type"]].inputs}
                assert fits(known[widget], value), f"{widget}: {value!r}"
        # Its clip has the size that the miniature knows.
        assert "frame_load_cap" not in inputs or (values["width"], values["height"]) == (0, 0)
    # No file of a template is left for the user to find.
    for node in nodes.values():
        for model in node["properties"].get("models", ()):
            assert model["name"] not in plan["values"][str(node["id"])].values()
            assert plan["values"][str(node["id"])]


def test_try_it_now_names_files_that_its_button_brings():
    """Every file is of the miniature, and no value asks for a download."""
    assert f"1. {GET}" in note_of(TRY_IT_NOW)
    (node,) = (each for each in workflow(TRY_IT_NOW)["nodes"] if each["type"] == V2V)
    assert "models" not in node["properties"]
    values = {name: value for name, (_, value) in values_of(node, "fixed").items()}
    brought = {path.name for path in (PACK / "demo" / "models").rglob("*.safetensors")}
    assert {values["base_model"], values["motion_module"]} <= brought
    assert values["video"] == CLIP_NAME
    # What demo/README.md recommends for the miniature.
    recommended = {"num_inference_steps": 8, "denoise": 0.5, "guidance_scale": 5.0}
    assert {name: values[name] for name in recommended} == recommended
    assert (values["scheduler"], values["negative_prompt"]) == ("karras", "")


def test_the_line_in_the_readme_runs_as_written(tmp_path):
    folder = tmp_path / "custom_nodes"
    folder.mkdir()
    (tmp_path / "models").mkdir()
    (folder / "animatediff-v2v").symlink_to(PACK, target_is_directory=True)
    assert f"`{INSTALL}`" in (PACK / "README.md").read_text(encoding="utf-8")
    program, *rest = INSTALL.split()
    assert program == "python"
    run = subprocess.run(
        [sys.executable, *rest], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "models" / "checkpoints" / "miniature.safetensors").is_file()
    assert (tmp_path / "input" / "miniature_clip.mp4").is_file()


# Of scripts of the page: the frames that are taken, the time that it takes.
STRIP, FORECAST = "selection", "forecast"
# With those that the advice of web/js/advice.js names.
FRAMES = ("select_every_nth_frame", "frame_load_cap", "width", "height")


def form(load, *settings):
    """Return the fields of App mode, each a node and a widget."""
    return [(load, "video"), (load, STRIP), *settings, *((load, name) for name in FRAMES)]


ONE_NODE_FORM = (
    form(V2V, *((V2V, name) for name in ("prompt", "base_model", "motion_module", "denoise"))),
    [V2V],
)
FORMS = {
    TRY_IT_NOW: ONE_NODE_FORM,
    "02 Video to Video (one node)": ONE_NODE_FORM,
    "04 Turbo (few steps)": (
        form(
            "ADV2V_LoadVideo",
            ("ADV2V_Sampler", FORECAST),
            ("ADV2V_Sampler", "positive"),
            ("ADV2V_LoadModel", "checkpoint"),
            ("ADV2V_LoadModel", "motion_module"),
            ("ADV2V_LoraStack", "lora_1"),
            ("ADV2V_Sampler", "denoise"),
        ),
        ["ADV2V_EncodeVideo"],
    ),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_form_of_app_mode_has_widgets_that_are_there(name):
    graph = workflow(name)
    kinds = {node["id"]: node["type"] for node in graph["nodes"]}
    form = graph["extra"].get("linearData", {"inputs": [], "outputs": []})
    fields = [(kinds[node], widget) for node, widget, _ in form["inputs"]]
    outputs = [kinds[node] for node in form["outputs"]]
    assert (fields, outputs) == FORMS.get(name, ([], []))
    for kind, widget in (field for field in fields if field[1] not in (STRIP, FORECAST)):
        (declared,) = (each for each in schemas()[kind].inputs if each.name == widget)
        assert declared.is_widget
    # The page has room for one line.
    assert all(len(more["description"]) <= 25 for _, _, more in form["inputs"])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_template_has_a_thumbnail(name):
    path = TEMPLATES[name].with_suffix(".jpg")
    assert path.stat().st_size < 150_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 400 and picture.height >= 250
