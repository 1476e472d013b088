"""A wrong input is refused before the graph runs: one error, on its own widget."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import shutil
import sys

import pytest
from animatediff_v2v.demo.install import DEMO_FOLDER
from animatediff_v2v.pipeline import AnimateDiffV2VError

from .declared import ANY_FILE, PACKAGE, schemas, without_comfyui

NODES = {schema.node_id: schema for schema in schemas().values()}
FILE_WIDGETS = [
    (node_id, each.name)
    for node_id, schema in NODES.items()
    for each in schema.inputs
    if ANY_FILE in each.options.get("options", ())
]
MINIATURE = {
    "checkpoint": "checkpoints/miniature.safetensors",
    "motion module": "animatediff_models/miniature_motion.safetensors",
    "LoRA": "loras/miniature_outlined.safetensors",
    "ControlNet": "controlnet/miniature_canny.safetensors",
    "IP-Adapter": "ipadapter/miniature_style.safetensors",
}
KINDS = {
    "checkpoint": "checkpoint",
    "base_model": "checkpoint",
    "motion_module": "motion module",
    "vae": "VAE",
    "control_net": "ControlNet",
    "sparsectrl": "SparseCtrl",
    "ip_adapter": "IP-Adapter",
    "motion_lora": "motion LoRA",
} | {f"lora_{number}": "LoRA" for number in range(1, 11)}


class Server:
    """What ComfyUI does with `validate_inputs` of the nodes of a graph."""

    def __init__(self, folder):
        extension = importlib.import_module(f"{PACKAGE}.extension").AnimateDiffV2VExtension()
        nodes = asyncio.run(extension.get_node_list())
        self.nodes = {node.define_schema().node_id: node for node in nodes}
        self.folder, self.prompt, self.node_id = folder, {}, None
        host = sys.modules[f"{PACKAGE}.host"]
        host.submitted_prompt = lambda: self.prompt
        host.current_node_id = lambda: self.node_id
        host.model_path = lambda _folder, name: self.path(name)
        host.input_path = self.path

    def path(self, name):
        if not (self.folder / name).is_file():
            raise AnimateDiffV2VError(f"{name!r} is not installed")
        return self.folder / name

    def errors(self, prompt):
        """The errors of each node, as pairs of input and sentence."""
        self.prompt = prompt
        found = {}
        for self.node_id, each in prompt.items():
            node = self.nodes[each["class_type"]]
            assert node.mro()[1].validate_inputs.__func__, "ComfyUI asks the base class too"
            named = inspect.getfullargspec(node.validate_inputs).args[1:]
            given = {name: value for name, value in each["inputs"].items() if name in named}
            said = node.validate_inputs.__func__(node, **given)
            found[self.node_id] = [] if said is True else [(name, said) for name in given]
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for kind, path in MINIATURE.items():
        shutil.copy(DEMO_FOLDER / "models" / path, folder / kind)
    shutil.copy(DEMO_FOLDER / "clip.mp4", folder / "clip")
    (folder / "page").write_text("<!DOCTYPE html><html></html>")
    with without_comfyui():
        yield Server(folder)


def usual(node_id):
    """Files that suit a node's widgets, and the defaults of its other inputs."""
    inputs = {each.name: each.options.get("default") for each in NODES[node_id].inputs}
    for name, kind in KINDS.items():
        if name in inputs and inputs[name] is None and kind in MINIATURE:
            inputs[name] = kind
    inputs |= {"video": "clip"} if (node_id, "video") in FILE_WIDGETS else {}
    return {name: value for name, value in inputs.items() if value is not None}


def errors(server, node_id, **inputs):
    node = {"class_type": node_id, "inputs": usual(node_id) | inputs}
    return server.errors({"7": node})["7"]


@pytest.mark.parametrize("node_id", NODES)
def test_a_node_with_suitable_inputs_has_no_error(server, node_id):
    if hasattr(server.nodes[node_id], "find_problem"):
        motion = {"motion_lora": None} if node_id == "ADV2V_MotionLoraStack" else {}
        assert errors(server, node_id, **motion) == []


@pytest.mark.parametrize(("node_id", "name"), FILE_WIDGETS)
def test_a_missing_file_is_one_error_on_its_widget(server, node_id, name):
    assert errors(server, node_id, **{name: "gone"}) == [(name, "'gone' is not installed")]


@pytest.mark.parametrize(("node_id", "name"), FILE_WIDGETS)
def test_a_file_of_another_kind_is_one_error_on_its_widget(server, node_id, name):
    if name == "video":
        wrong, sentence = "page", "page"
    else:
        kind = KINDS[name]
        wrong = "motion module" if kind != "motion module" else "ControlNet"
        sentence = f"{wrong} cannot be used here, a{'n' * (kind[0] == 'I')} {kind} is needed. This"
    ((blamed, said),) = errors(server, node_id, **{name: wrong})
    assert blamed == name and sentence in said


@pytest.mark.parametrize(
    ("node_id", "inputs", "name", "sentence"),
    [
        ("ADV2V_LoadVideo", {"skip_first_frames": 999}, "skip_first_frames", "No frame of"),
        ("ADV2V_LoadVideo", {"start_time": "99"}, "start_time", "No frame of"),
        ("ADV2V_LoadVideo", {"force_rate": 1e9}, "force_rate", "force_rate is"),
        ("ADV2V_ControlNet", {"start": 0.5, "end": 0.2}, "end", "end is 0.2"),
        ("ADV2V_Keyframes", {"start": 0.5, "end": 0.2}, "end", "end is 0.2"),
        ("ADV2V_Keyframes", {"frames": "0, first"}, "frames", "frames is 'first'; it must be"),
        ("ADV2V_IPAdapter", {"start": 0.5, "end": 0.2}, "end", "end is 0.2"),
        ("ADV2V_IPAdapter", {"weights": "soon"}, "weights", "soon"),
        (
            "ADV2V_ControlFrames",
            {"low_threshold": 300, "high_threshold": 200},
            "low_threshold",
            "must not be above",
        ),
        ("ADV2V_ContextOptions", {"length": 8, "overlap": 8}, "overlap", "must be from 0 to 7"),
        ("ADV2V_ContextOptions", {"length": 0}, "length", "must be from"),
        ("ADV2V_Sampler", {"guidance_start": 0.6, "guidance_end": 0.4}, "guidance_end", "is 0.4"),
        ("ADV2V_Sampler", {"steps": 1001}, "steps", "from 1 to 1000"),
        ("ADV2V_Sampler", {"steps": 0}, "steps", "from 1 to 1000"),
        ("ADV2V_VideoToVideo", {"num_inference_steps": "0"}, "num_inference_steps", "from 1 to"),
        ("ADV2V_Speed", {"guidance_start": 0.6, "guidance_end": 0.4}, "guidance_end", "is 0.4"),
        ("ADV2V_EncodeVideo", {"format": "gif", "crf": 20}, "crf", "-1 takes the format's"),
        ("ADV2V_EncodeVideo", {"crf": 60}, "crf", "-1 takes the format's"),
        ("ADV2V_PromptSchedule", {"schedule": "spring"}, "schedule", "spring"),
        ("ADV2V_PromptSchedule", {"pre_text": "(a:1000)"}, "pre_text", "1000"),
        ("ADV2V_PromptSchedule", {"app_text": "(a:1000)"}, "app_text", "1000"),
    ],
)
def test_a_wrong_value_is_one_error_on_its_widget(server, node_id, inputs, name, sentence):
    ((blamed, said),) = errors(server, node_id, **inputs)
    assert blamed == name and sentence in said


@pytest.mark.parametrize(
    ("node_id", "name"),
    [("ADV2V_Sampler", "steps"), ("ADV2V_VideoToVideo", "num_inference_steps")],
)
def test_more_steps_than_the_slider_has_are_accepted(server, node_id, name):
    """ComfyUI compares values with the widget's range unless `validate_inputs` names them."""
    widget = next(each for each in NODES[node_id].inputs if each.name == name)
    assert widget.options["max"] == 150
    assert errors(server, node_id, **{name: 1000}) == []
    assert name in inspect.getfullargspec(server.nodes[node_id].validate_inputs).args


def test_a_lora_without_strength_is_not_checked(server):
    idle = {"lora_2": "gone", "model_strength_2": 0, "clip_strength_2": 0.0}
    assert errors(server, "ADV2V_LoraStack", **idle) == []


@pytest.mark.parametrize("value", [["4", 0], {"__value__": ["4", 0]}, {}])
def test_a_value_that_is_not_known_yet_is_not_checked(server, value):
    assert errors(server, "ADV2V_LoadModel", checkpoint=value) == []


def test_only_the_node_that_is_wrong_has_an_error(server):
    right, wrong = (
        {"class_type": "ADV2V_LoadModel", "inputs": usual("ADV2V_LoadModel") | {"vae": vae}}
        for vae in ("from checkpoint", "page")
    )
    found = server.errors({"1": right, "2": wrong, "3": right})
    assert [name for name, _ in found.pop("2")] == ["vae"]
    assert found == {"1": [], "3": []}
