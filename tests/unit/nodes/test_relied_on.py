"""Templates rely on ComfyUI's own nodes as far as they use them, and no further."""

import json
import re
from copy import deepcopy

import pytest

from .object_info import core_nodes
from .relied_on import assert_relied_on
from .test_templates import CORE_NODES as USED
from .test_templates import WITH_COMFYUIS_NETWORKS, templates_for, workflow

SNAPSHOTS = core_nodes()
NEWEST = list(SNAPSHOTS)[-1]
NO_CHOICES = {"required": {}}


def combo(*choices):
    return ["COMBO", {"options": list(choices)}]


def dynamic(choices, **options):
    described = [{"key": key, "inputs": inputs} for key, inputs in choices.items()]
    return ["COMFY_DYNAMICCOMBO_V3", {"options": described, **options}]


CODEC = dynamic({"auto": NO_CHOICES, "av1": NO_CHOICES})


def remove(info):
    del info["SaveVideo"]


def rename_an_input(info):
    put(info["CreateVideo"], "frames", info["CreateVideo"]["input"]["required"].pop("images"))
    info["CreateVideo"]["input_order"]["required"].remove("images")


def rename_a_widget(info):
    node = info["SaveVideo"]
    order = node["input_order"]["required"]
    order[order.index("format")] = "container"
    node["input"]["required"]["container"] = node["input"]["required"].pop("format")


def change_a_socket(info):
    put(info["LoraLoader"], "clip", ["TEXT_ENCODER", {}])


def move_an_output(info):
    info["CheckpointLoaderSimple"]["output"].reverse()


def drop_an_output(info):
    info["LoraLoader"]["output"].pop()


def drop_a_choice(info):
    put(info["SaveVideo"], "format", combo("mp4", "webm"))


def drop_a_choice_within_a_choice(info):
    inputs = {"required": {"codec": dynamic({"h264": NO_CHOICES})}}
    put(info["SaveVideo"], "format", dynamic({"auto": inputs}))
    put(info["SaveVideo"], "codec", [CODEC[0], {**CODEC[1], "hidden": True}], "optional")


def narrow_a_range(info):
    info["LoraLoader"]["input"]["required"]["strength_model"][1]["max"] = 0.5


def require_a_socket(info):
    put(info["SaveVideo"], "mask", ["MASK", {}])


def require_a_widget(info):
    put(info["LoraLoader"], "bypass", ["BOOLEAN", {"default": False}])


def reorder_widgets(info):
    order = info["LoraLoader"]["input_order"]["required"]
    order.insert(0, order.pop())


def stop_saving(info):
    info["SaveVideo"]["output_node"] = False


BREAKS = {
    remove: "there is no SaveVideo",
    rename_an_input: "CreateVideo: the templates do not give ['frames']",
    rename_a_widget: "SaveVideo.format takes [], not 'auto'",
    change_a_socket: "LoraLoader.clip: TEXT_ENCODER is not CLIP",
    move_an_output: "CheckpointLoaderSimple: output 0 is not MODEL",
    drop_an_output: "LoraLoader: output 1 is not CLIP",
    drop_a_choice: "SaveVideo.format does not take 'auto'",
    drop_a_choice_within_a_choice: "format.codec has no choice 'auto'",
    narrow_a_range: "LoraLoader.strength_model does not take 0.7",
    require_a_socket: "SaveVideo: the templates do not give ['mask']",
    require_a_widget: "LoraLoader: no value for bypass",
    reorder_widgets: "LoraLoader.strength_clip does not take 'add_detail.safetensors'",
    stop_saving: "SaveVideo does not run at a graph's end",
}


def add_an_optional_socket(info):
    put(info["SaveVideo"], "mask", ["MASK", {}], "optional")


def add_an_optional_widget(info):
    put(info["CreateVideo"], "bit_depth", ["INT", {"min": 8, "max": 10}], "optional")


def add_an_output(info):
    info["CreateVideo"]["output"].append("STRING")


def add_a_choice(info):
    put(info["SaveVideo"], "format", combo("auto", "mp4", "webm"))


def make_an_input_optional(info):
    put(info["SaveVideo"], "codec", CODEC, "optional")


def move_the_codec_into_the_format(info):
    """As a later commit of ComfyUI 0.33 does."""
    inputs = {"required": {"codec": CODEC}}
    put(info["SaveVideo"], "format", dynamic({"auto": inputs, "mkv": inputs}))
    put(info["SaveVideo"], "codec", [CODEC[0], {**CODEC[1], "hidden": True}], "optional")


HARMLESS = [add_an_optional_socket, add_an_optional_widget, add_an_output, add_a_choice]
HARMLESS += [make_an_input_optional, move_the_codec_into_the_format]


def put(node, name, entry, section="required"):
    """Declare an input, in place of one of the same name or as the last."""
    for other in set(node["input"]) - {section}:
        if node["input"][other].pop(name, None):
            node["input_order"][other].remove(name)
    if name not in node["input"].setdefault(section, {}):
        node["input_order"].setdefault(section, []).append(name)
    node["input"][section][name] = entry


def changed(change):
    info = deepcopy(SNAPSHOTS[NEWEST])
    change(info)
    assert json.dumps(info) != json.dumps(SNAPSHOTS[NEWEST])
    return info


def assert_all_relied_on(info):
    for name in sorted(templates_for(info)):
        assert_relied_on(workflow(name), info)


@pytest.mark.parametrize("version", SNAPSHOTS)
def test_all_versions_have_what_the_templates_use(version):
    used = {
        node["type"]
        for name in templates_for(SNAPSHOTS[version])
        for node in workflow(name)["nodes"]
    }
    assert set(SNAPSHOTS[version]) == used & USED - {"MarkdownNote"}
    assert templates_for(SNAPSHOTS[NEWEST]) >= WITH_COMFYUIS_NETWORKS
    assert_all_relied_on(SNAPSHOTS[version])


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_what_the_templates_do_not_use_may_change(change):
    assert_all_relied_on(changed(change))


@pytest.mark.parametrize(
    ("change", "told"), BREAKS.items(), ids=[change.__name__ for change in BREAKS]
)
def test_what_the_templates_use_may_not_change(change, told):
    with pytest.raises(AssertionError, match=re.escape(told)):
        assert_all_relied_on(changed(change))
