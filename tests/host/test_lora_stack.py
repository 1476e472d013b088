"""LoRA Stack in a running ComfyUI: empty slots, order, and skipped entries."""

from __future__ import annotations

import json
import shutil

import pytest

from .test_behaviour import graph, load_model
from .test_templates import pictures

LORA = "style_lora.safetensors"
OTHER = "other_lora.safetensors"
NOTHING = {"model_strength_2": 0.0, "clip_strength_2": 0}


@pytest.fixture(scope="module", autouse=True)
def other_lora(server):
    folder = server.folder / "models" / "loras"
    shutil.copy(folder / LORA, folder / OTHER)


def lora_stack(**values):
    return {"class_type": "ADV2V_LoraStack", "inputs": values}


def entries(server, **stacks):
    """Return the output of the node `stack`, as ComfyUI's own preview writes it."""
    preview = {"class_type": "PreviewAny", "inputs": {"source": ["stack", 0]}}
    entry = server.run({**stacks, "preview": preview})
    (text,) = entry["outputs"]["preview"]["text"]
    return json.loads(text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"lora_5": LORA}, [[LORA, 1.0, 1.0]]),
        ({"lora_10": LORA, "clip_strength_10": 0.5}, [[LORA, 1.0, 0.5]]),
        ({"lora_1": "None", "model_strength_1": 0.5, "clip_strength_1": 0.5}, []),
        ({"lora_9": LORA, "lora_3": OTHER}, [[OTHER, 1.0, 1.0], [LORA, 1.0, 1.0]]),
        ({"lora_4": LORA, "lora_6": LORA}, [[LORA, 1.0, 1.0], [LORA, 1.0, 1.0]]),
        ({"lora_2": LORA} | NOTHING, []),
        ({"lora_1": OTHER, "lora_2": LORA} | NOTHING, [[OTHER, 1.0, 1.0]]),
        ({"lora_2": LORA, "model_strength_2": 0.0}, [[LORA, 0.0, 1.0]]),
        ({"lora_2": LORA, "model_strength_2": -1, "clip_strength_2": 0}, [[LORA, -1.0, 0.0]]),
    ],
    ids=lambda values: "-".join(map(str, values)) or "nothing",
)
def test_slots(server, values, expected):
    assert entries(server, stack=lora_stack(**values)) == expected


def test_stacks_chain_in_order(server):
    before = lora_stack(lora_8=LORA, model_strength_8=0.25)
    stack = lora_stack(lora_1=OTHER, lora_stack=["before", 0])
    assert entries(server, before=before, stack=stack) == [[LORA, 0.25, 1.0], [OTHER, 1.0, 1.0]]


def test_any_slot_changes_the_video_as_the_first_one_does(server):
    def video(**values):
        prompt = graph(model=load_model(lora_stack=["stack", 0]), stack=lora_stack(**values))
        return [frame.tobytes() for frame in pictures(server.files(server.run(prompt))[0])]

    plain, styled = video(), video(lora_1=LORA)
    assert plain != styled
    assert video(lora_5=LORA) == styled
    assert video(lora_2=LORA, **NOTHING) == plain


def test_slots_are_optional_and_keep_their_places(object_info):
    info = object_info["ADV2V_LoraStack"]
    slots = [
        f"{name}_{number}"
        for number in range(1, 11)
        for name in ("lora", "model_strength", "clip_strength")
    ]
    assert info["input_order"] == {"required": [], "optional": [*slots, "lora_stack"]}
    for name in slots:
        assert info["input"]["optional"][name][1]["default"] in ("None", 1.0)


def test_script_is_served_once(server):
    scripts = [each for each in server.get("/extensions") if each.endswith("lora_slots.js")]
    assert scripts == ["/extensions/animatediff-v2v/js/lora_slots.js"]
    assert b"registerExtension" in server.get(scripts[0])
