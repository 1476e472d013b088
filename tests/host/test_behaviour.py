"""Behaviour of the nodes in a running ComfyUI that the templates do not show."""

from __future__ import annotations

import json
import time

import av
import numpy as np
import pytest
from animatediff_v2v.migrate.files import read_graph

from .comfy_server import PACK, PACK_NAME, message
from .conftest import FRAMES, write_clip

CONTRACT = PACK / "tests" / "unit" / "node_contract.json"
NODES = set(json.loads(CONTRACT.read_text(encoding="utf-8")))


def load_video(**values):
    inputs = {
        "video": "clip.mp4",
        "select_every_nth_frame": 2,
        "skip_first_frames": 0,
        "frame_load_cap": 0,
        "force_rate": 0.0,
        "width": 0,
        "height": 0,
    }
    return {"class_type": "ADV2V_LoadVideo", "inputs": inputs | values}


def encode_video(images, **values):
    inputs = {
        "images": images,
        "fps": 8.0,
        "filename_prefix": "test",
        "format": "mp4-h264",
        "crf": -1,
        "pingpong": False,
        "loop_count": 0,
        "save_output": False,
    }
    return {"class_type": "ADV2V_EncodeVideo", "inputs": inputs | values}


def load_model(**values):
    inputs = {
        "checkpoint": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
        "vae": "from checkpoint",
    }
    return {"class_type": "ADV2V_LoadModel", "inputs": inputs | values}


def sampler(**values):
    inputs = {
        "model": ["model", 0],
        "images": ["load", 0],
        "positive": "a wave",
        "negative": "",
        "steps": 2,
        "guidance_scale": 2.0,
        "sampler": "euler",
        "scheduler": "normal",
        "denoise": 0.5,
        "seed": 3,
    }
    return {"class_type": "ADV2V_Sampler", "inputs": inputs | values}


def graph(*, load=None, model=None, sample=None, **more):
    return {
        "load": load or load_video(),
        "model": model or load_model(),
        "sample": sample or sampler(),
        "encode": encode_video(["sample", 0]),
        **more,
    }


def one_node(**values):
    inputs = {
        "video": "clip.mp4",
        "prompt": "a wave",
        "negative_prompt": "",
        "num_inference_steps": 2,
        "guidance_scale": 7.0,
        "base_model": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
        "select_every_nth_frame": 2,
        "seed": 1,
    }
    return {"job": {"class_type": "ADV2V_VideoToVideo", "inputs": inputs | values}}


GUIDES = {
    "windows": {
        "class_type": "ADV2V_ContextOptions",
        "inputs": {
            "length": 6,
            "overlap": 2,
            "stride": 1,
            "schedule": "standard_static",
            "fuse": "pyramid",
            "closed_loop": False,
        },
    },
    "control": {
        "class_type": "ADV2V_ControlNet",
        "inputs": {
            "control_net": "controlnet.safetensors",
            "images": ["load", 0],
            "strength": 1.0,
            "start": 0.0,
            "end": 1.0,
        },
    },
    "vision": {
        "class_type": "CLIPVisionLoader",
        "inputs": {"clip_name": "miniature_vision.safetensors"},
    },
    "picture": {"class_type": "LoadImage", "inputs": {"image": "picture.png"}},
    "style": {
        "class_type": "ADV2V_IPAdapter",
        "inputs": {
            "clip_vision": ["vision", 0],
            "images": ["picture", 0],
            "ip_adapter": "miniature_style.safetensors",
            "weight": 1.0,
            "arrangement": "average",
            "start": 0.0,
            "end": 1.0,
        },
    },
}


def test_the_one_node_does_what_the_graph_does(server):
    """Size, frame cap, ControlNet, style and windows are those of the nodes for each step."""
    size = {"width": 64, "height": 64, "frame_load_cap": 7}
    links = {
        name: [node, 0]
        for node, name in (("windows", "context_options"), ("control",) * 2, ("style",) * 2)
    }
    steps = {"prompt": "a wave", "num_inference_steps": 2, "guidance_scale": 2.0, "denoise": 0.5}
    load = load_video(**size)
    one = {"load": load, **GUIDES, **one_node(**steps, seed=3, negative_prompt="", **size, **links)}
    many = graph(load=load, sample=sampler(**links), **GUIDES)
    made = [
        frames_of(server.files(server.run(prompt))[0])
        for prompt in (one, many, one_node(**steps, seed=3, negative_prompt="", **size))
    ]
    assert made[0].shape == (7, 64, 64, 3)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def lora_stack(name):
    inputs = {"lora_1": "style_lora.safetensors", "lora_2": name}
    return {"class_type": "ADV2V_LoraStack", "inputs": inputs}


def motion_lora():
    inputs = {"motion_lora": "gone.safetensors", "strength": 1.0}
    return {"class_type": "ADV2V_MotionLoraStack", "inputs": inputs}


def guided(**files):
    """A graph with a ControlNet or an IP-Adapter of another file."""
    names = {"control": "control_net", "style": "ip_adapter"}
    ((node, file),) = files.items()
    changed = {**GUIDES[node], "inputs": {**GUIDES[node]["inputs"], names[node]: file}}
    return graph(sample=sampler(**{node: [node, 0]}), **(GUIDES | {node: changed}))


def refusal(server, prompt):
    """Return the one sentence with which a prompt is refused before it runs, by its input."""
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 400, answer
    ((error,),) = (node["errors"] for node in answer["node_errors"].values())
    return {error["extra_info"]["input_name"]: error["details"]}


def failure(server, prompt):
    """Return the sentence with which a prompt fails while it runs."""
    entry = server.wait(server.queue(prompt))
    assert entry["status"]["status_str"] == "error"
    return message(entry, "execution_error")["exception_message"]


def streams(path):
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        return container.streams.video[0].codec_context.name, frames, len(container.streams.audio)


def test_pack_loads_without_complaint(server, object_info):
    assert {name for name in object_info if name.startswith("ADV2V_")} == NODES
    assert "comfy_entrypoint" not in server.log()
    # Nodes of ComfyUI's own may miss something that this pack does not need.
    failed = [line for line in server.log().splitlines() if "IMPORT FAILED" in line]
    assert not [line for line in failed if PACK_NAME in line], failed


def test_every_input_and_output_is_explained(object_info):
    for name in NODES:
        info = object_info[name]
        assert info["description"] and info["search_aliases"], name
        assert all(info["output_tooltips"]), name
        for section in info["input"].values():
            for key, entry in section.items():
                if section is not info["input"].get("hidden"):
                    assert entry[1]["tooltip"], f"{name}.{key}"


def test_silent_clip_passes_through(server):
    prompt = {
        "load": load_video(video="silent.mp4", select_every_nth_frame=1),
        "encode": encode_video(["load", 0], audio=["load", 1], fps=["load", 2]),
    }
    (path,) = server.files(server.run(prompt))
    assert path.is_relative_to(server.folder / "temp")
    assert streams(path) == ("h264", FRAMES, 0)


@pytest.mark.parametrize(
    ("format", "codec", "sounds"),
    [("webm-vp9", "vp9", 1), ("gif", "gif", 0), ("mkv-ffv1", "ffv1", 1)],
)
def test_formats(server, format, codec, sounds):
    prompt = {
        "load": load_video(frame_load_cap=4),
        "encode": encode_video(
            ["load", 0], audio=["load", 1], format=format, pingpong=True, save_output=True
        ),
    }
    entry = server.run(prompt)
    path = server.files(entry)[-1]
    assert path.is_relative_to(server.folder / "output")
    assert streams(path) == (codec, 6, sounds)
    if codec == "gif":
        assert read_graph(path.with_suffix(".png"))["load"]["class_type"] == "ADV2V_LoadVideo"
    if codec == "ffv1":
        assert streams(server.files(entry)[0]) == ("h264", 6, 1)


def test_a_sequence_of_pictures(server):
    prompt = {
        "load": load_video(frame_load_cap=4),
        "encode": encode_video(
            ["load", 0], format="png", filename_prefix="pictures/wave", save_output=True
        ),
    }
    (preview,) = server.files(server.run(prompt))
    assert streams(preview) == ("h264", 4, 0)
    pictures = sorted((server.folder / "output" / "pictures").rglob("*.png"))
    assert len(pictures) == 4


def test_a_hardware_encoder_falls_back_on_the_processor(server):
    prompt = {
        "load": load_video(frame_load_cap=4),
        "encode": encode_video(["load", 0], hardware_encoder=True),
    }
    (path,) = server.files(server.run(prompt))
    assert streams(path) == ("h264", 4, 0)


def test_windows_and_prompt_schedule(server):
    windows = {"length": 4, "overlap": 2, "stride": 1, "schedule": "standard_uniform"}
    windows |= {"fuse": "flat", "closed_loop": False}
    prompt = graph(
        sample=sampler(
            context_options=["windows", 0],
            positive_schedule=["schedule", 0],
            noise_type="FreeNoise",
            guidance_start=0.1,
        ),
        windows={"class_type": "ADV2V_ContextOptions", "inputs": windows},
        schedule={
            "class_type": "ADV2V_PromptSchedule",
            "inputs": {"schedule": "0: a wave\n7: a mountain"},
        },
    )
    (path,) = server.files(server.run(prompt))
    assert streams(path) == ("h264", FRAMES // 2, 0)


def test_stopping_leaves_nothing_and_harms_nothing(server):
    output = server.folder / "output"
    before = sorted(output.rglob("*"))
    with server.watched() as watcher:
        prompt_id = server.queue(one_node(num_inference_steps=1000, seed=2), client=watcher.client)
        watcher.until(lambda: watcher.pictures)  # It samples.
        server.post("/interrupt", {})
        entry = server.wait(prompt_id)
    assert message(entry, "execution_interrupted")["node_id"] == "job"
    assert [path for path in sorted(output.rglob("*")) if path not in before] in (
        [],
        [output / "video"],
    )
    server.run(one_node(seed=2))


def test_unloaded_models_come_back(server):
    server.run(graph())
    status, _ = server.post("/free", {"unload_models": True, "free_memory": True})
    assert status == 200
    time.sleep(1)
    server.run(graph(sample=sampler(seed=4)))


def test_changed_file_is_read_again(server):
    path = server.folder / "input" / "changing.mp4"
    write_clip(path)
    prompt = {
        "load": load_video(video="changing.mp4"),
        "encode": encode_video(["load", 0]),
    }
    server.run(prompt)
    again = server.run(prompt)
    assert "load" in message(again, "execution_cached")["nodes"]
    write_clip(path, phase=0.5)
    changed = server.run(prompt)
    assert "load" not in message(changed, "execution_cached")["nodes"]


@pytest.mark.parametrize(
    ("prompt", "name", "sentence"),
    [
        (graph(load=load_video(video="gone.mp4")), "video", "There is no video 'gone.mp4'"),
        (graph(load=load_video(skip_first_frames=99)), "skip_first_frames", "No frame of"),
        (graph(load=load_video(select_every_nth_frame=0)), "select_every_nth_frame", ""),
        (graph(sample=sampler(denoise=1.5)), "denoise", ""),
        (graph(sample=sampler(sampler="magic")), "sampler", "not in"),
        (one_node(video=""), "video", "choose a file to upload, or press Get the miniature"),
    ],
)
def test_wrong_values_are_refused_before_running(server, prompt, name, sentence):
    assert sentence in refusal(server, prompt)[name]


def windowed(**values):
    inputs = {"length": 8, "overlap": 2, "stride": 1, "schedule": "batched", "fuse": "flat"}
    inputs |= {"closed_loop": False} | values
    return graph(
        sample=sampler(context_options=["windows", 0]),
        windows={"class_type": "ADV2V_ContextOptions", "inputs": inputs},
    )


def test_impossible_windows_are_refused_before_running(server):
    prompt = windowed(length=8, overlap=8)
    assert "must be from 0 to 7" in refusal(server, prompt)["overlap"]


def test_windows_longer_than_the_motion_module_are_refused_before_running(server):
    prompt = windowed(length=33)
    said = refusal(server, prompt)["length"]
    assert (
        "33 frames are more than motion_module.safetensors supports at once: use 32 or less" in said
    )
    one = one_node(context_options=["windows", 0]) | {"windows": prompt["windows"]}
    assert refusal(server, one)["length"] == said
    _, answer = server.post("/prompt", {"prompt": prompt})
    assert list(answer["node_errors"]) == ["windows"]
    # The prompt before has not been remembered, and what has no motion module sees any length.
    still = load_model(motion_module="None (each frame by itself)")
    server.run(windowed(length=33) | {"model": still})
    server.run(windowed(length=32))


def test_frames_without_a_motion_module(server):
    prompt = graph(model=load_model(motion_module="None (each frame by itself)"))
    (path,) = server.files(server.run(prompt))
    assert streams(path) == ("h264", FRAMES // 2, 0)


@pytest.fixture(scope="module")
def mixed_up(server):
    """Put model files into each other's folders."""
    folder = server.folder / "models"
    motion = (folder / "animatediff_models" / "motion_module.safetensors").read_bytes()
    (folder / "checkpoints" / "wrong.safetensors").write_bytes(motion)
    (folder / "loras" / "wrong.safetensors").write_bytes(motion)
    checkpoint = (folder / "checkpoints" / "checkpoint.safetensors").read_bytes()
    for kind in ("animatediff_models", "controlnet", "ipadapter"):
        (folder / kind / "wrong.safetensors").write_bytes(checkpoint)
    (folder / "checkpoints" / "page.safetensors").write_text("<!DOCTYPE html><html></html>")


@pytest.mark.parametrize(
    ("prompt", "name", "sentence"),
    [
        (
            graph(model=load_model(checkpoint="wrong.safetensors")),
            "checkpoint",
            "motion module. Use it",
        ),
        (graph(model=load_model(checkpoint="page.safetensors")), "checkpoint", "is a web page"),
        (graph(model=load_model(checkpoint="gone.safetensors")), "checkpoint", "not installed"),
        (
            graph(model=load_model(motion_module="wrong.safetensors")),
            "motion_module",
            "motion module is needed",
        ),
        (graph(model=load_model(vae="wrong.safetensors")), "vae", "not installed"),
        (
            graph(model=load_model(lora_stack=["stack", 0]), stack=lora_stack("wrong.safetensors")),
            "lora_2",
            "a LoRA is needed",
        ),
        (guided(control="wrong.safetensors"), "control_net", "a ControlNet is needed"),
        (guided(style="wrong.safetensors"), "ip_adapter", "an IP-Adapter is needed"),
        (
            graph(model=load_model(motion_lora_stack=["moves", 0]), moves=motion_lora()),
            "motion_lora",
            "not installed",
        ),
        (one_node(base_model="wrong.safetensors"), "base_model", "motion module. Use it"),
        (one_node(motion_module="gone.safetensors"), "motion_module", "not installed"),
        (one_node(video="gone.mp4"), "video", "There is no video 'gone.mp4'"),
        (
            graph(sample=sampler(guidance_start=0.6, guidance_end=0.4)),
            "guidance_end",
            "guidance end is 0.4",
        ),
    ],
)
def test_wrong_files_are_refused_before_running(server, mixed_up, prompt, name, sentence):
    said = refusal(server, prompt)[name]
    assert sentence in said
    assert said.startswith(f"{name} - ")


def test_an_error_while_running_is_one_sentence_and_the_next_run_works(server, mixed_up):
    stack = {"__value__": [["wrong.safetensors", 1.0, 1.0]]}
    prompt = graph(model=load_model(lora_stack=stack))
    sentence = failure(server, prompt)
    assert "wrong.safetensors is an" in sentence and "where a LoRA is wanted" in sentence
    assert sentence.strip().count("\n") == 0
    server.run(graph(sample=sampler(seed=5)))
