"""The templates open in ComfyUI, run, and give the right files."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from .api_format import to_api, with_values
from .comfy_server import PACK, PACK_NAME, message
from .conftest import FRAME_RATE, FRAMES, SAMPLE_RATE, SIZE

TEMPLATES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
GRAPH = "Video to Video"
KEPT = FRAMES // 2
LORA = "style_lora.safetensors"
# The models, the clip and the few steps of a test.
SMALL = {
    "ADV2V_LoadVideo": {"video": "clip.mp4"},
    "ADV2V_LoadModel": {
        "checkpoint": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
    },
    "ADV2V_VideoToVideo": {
        "video": "clip.mp4",
        "base_model": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
        "num_inference_steps": 3,
    },
    "ADV2V_ContextOptions": {"length": 6, "overlap": 2},
    "ADV2V_Sampler": {"steps": 2},
    "ADV2V_ControlNet": {"control_net": "controlnet.safetensors"},
    "ADV2V_IPAdapter": {"ip_adapter": "ip_adapter.safetensors"},
    "LoadImage": {"image": "picture.png"},
    "LoadVideo": {"file": "clip.mp4"},
    "CheckpointLoaderSimple": {"ckpt_name": "native.safetensors"},
    "LoraLoader": {"lora_name": "native.safetensors"},
    "ADV2V_ModelFromComfy": {"motion_module": "native.safetensors"},
}


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request, object_info):
    """A template's name, workflow, and prompt for the tiny models."""
    path = PACK / "workflows" / f"{request.param}.json"
    workflow = json.loads(path.read_text(encoding="utf-8"))
    if any(node["type"] == "CheckpointLoaderSimple" for node in workflow["nodes"]):
        request.getfixturevalue("native_weights")
    return request.param, workflow, small(to_api(workflow, object_info))


def small(prompt):
    """The same job in small."""
    for kind, values in SMALL.items():
        if any(node["class_type"] == kind for node in prompt.values()):
            prompt = with_values(prompt, kind, **values)
    for node in prompt.values():
        if node["class_type"] == "CLIPVisionLoader":  # its models have no small size
            node |= {"class_type": "TinyClipVision", "inputs": {"channels": 24}}
        slots = [name for name in node["inputs"] if re.fullmatch(r"lora_\d+", name)]
        for name in slots:
            if node["inputs"][name] != "None":
                node["inputs"][name] = LORA
    return prompt


@pytest.fixture(scope="module")
def native_weights(server, random_weights):
    """Files that ComfyUI's own loader takes for Stable Diffusion 1.5, with a UNet of one level."""
    unet = random_weights.UNET | {
        "block_out_channels": (320,),
        "cross_attention_dim": 768,
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    vae = random_weights.VAE | {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
    }
    text_encoder = random_weights.TEXT_ENCODER | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
    }
    torch.manual_seed(0)
    files = {
        "checkpoints": random_weights.checkpoint(unet, vae, text_encoder),
        "animatediff_models": random_weights.motion_module(unet),
        "loras": random_weights.lora(unet),
    }
    for folder, tensors in files.items():
        save_file(tensors, server.folder / "models" / folder / "native.safetensors")


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_file(path):
    """Half of the clip's frames in its time, at its size, with its sound."""
    with av.open(str(path)) as container:
        video, (audio,) = container.streams.video[0], container.streams.audio
        assert video.codec_context.name == "h264"
        assert video.average_rate * 2 == FRAME_RATE
        assert (video.width, video.height) == SIZE
        assert audio.rate == SAMPLE_RATE
        samples = sum(frame.samples for frame in container.decode(audio=0))
        metadata = dict(container.metadata)
    assert abs(samples / SAMPLE_RATE - FRAMES / FRAME_RATE) < 0.05
    assert len(pictures(path)) == KEPT
    return metadata


def test_templates_are_offered_with_their_thumbnails(server):
    offered = server.get("/workflow_templates")[PACK_NAME]
    assert sorted(offered) == TEMPLATES
    for name in offered:
        address = f"/api/workflow_templates/{PACK_NAME}/{quote(name)}"
        assert server.get(f"{address}.json")["version"] == 0.4
        assert server.get(f"{address}.jpg")[:3] == b"\xff\xd8\xff"


def test_template_runs_and_is_cached(server, template):
    name, workflow, prompt = template
    with server.watched() as watcher:
        entry = server.run(prompt, workflow, client=watcher.client)
        watcher.until(lambda: watcher.of("execution_success"))
    for node_id in prompt:
        shares = watcher.shares(node_id)
        assert all(before <= after for before, after in pairwise(shares)), node_id
        assert not shares or shares[-1] == 1, node_id
    assert watcher.pictures
    (path,) = server.files(entry)
    assert path.parent == server.folder / "output" / "video"
    metadata = check_file(path)
    assert json.loads(metadata["workflow"])["nodes"] == workflow["nodes"], name
    if "SaveVideo" not in {node["class_type"] for node in prompt.values()}:  # it adds to it
        assert json.loads(metadata["prompt"]) == prompt

    files = sorted(path.parent.iterdir())
    again = server.run(prompt, workflow)
    assert set(message(again, "execution_cached")["nodes"]) == set(prompt)
    assert sorted(path.parent.iterdir()) == files


def test_lora_changes_the_result(server, object_info):
    workflow = json.loads((PACK / "workflows" / f"{GRAPH}.json").read_text(encoding="utf-8"))
    prompt = small(to_api(workflow, object_info))
    plain = server.run(with_values(prompt, "ADV2V_Sampler", seed=1))
    styled = server.run(
        with_values(
            with_values(prompt, "ADV2V_Sampler", seed=1),
            "ADV2V_LoraStack",
            lora_1=LORA,
        )
    )
    # The clip is not read again for another LoRA.
    (load_video,) = (key for key, each in prompt.items() if each["class_type"] == "ADV2V_LoadVideo")
    assert load_video in message(styled, "execution_cached")["nodes"]
    before, after = (pictures(server.files(entry)[0]) for entry in (plain, styled))
    assert np.abs(np.subtract(before, after, dtype=np.float32)).mean() > 1


def test_help_is_served(server, object_info):
    for name in object_info:
        if name.startswith("ADV2V_"):
            page = server.get(f"/extensions/{PACK_NAME}/docs/{name}.md")
            assert page.startswith(b"# ") or page.startswith(b"#\x20"), name
    assert Path(PACK / "web").is_dir()
