"""The templates open in ComfyUI, run, and give the right files."""

from __future__ import annotations

import importlib
import json
import re
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from ..unit.nodes.test_templates import WITH_COMFYUIS_NETWORKS
from .api_format import to_api, with_values
from .comfy_server import PACK, PACK_NAME, message
from .conftest import FRAME_RATE, FRAMES, SAMPLE_RATE, SIZE

TEMPLATES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
RUN = [name for name in TEMPLATES if name not in WITH_COMFYUIS_NETWORKS]
GRAPH = "03 Video to Video"
# Half of the frames are kept, but where all are restored.
EVERY_NTH = {"13 Every Frame Back": 1}
LORA = "style_lora.safetensors"
# The miniature, the clip and the few steps of a test.
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
    "ADV2V_Batch": {
        "clips": "clip.mp4",
        "output_folder": "video",
        "base_model": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
        "num_inference_steps": 3,
    },
    "ADV2V_ContextOptions": {"length": 6, "overlap": 2},
    "ADV2V_Sampler": {"steps": 2},
    "ADV2V_ControlNet": {"control_net": "controlnet.safetensors"},
    "ADV2V_Keyframes": {"sparsectrl": "sparsectrl.safetensors"},
    "ADV2V_IPAdapter": {"ip_adapter": "miniature_style.safetensors"},
    "LoadImage": {"image": "picture.png"},
    "LoadVideo": {"file": "clip.mp4"},
    "CLIPVisionLoader": {"clip_name": "miniature_vision.safetensors"},
    "CheckpointLoaderSimple": {"ckpt_name": "miniature_native.safetensors"},
    "LoraLoader": {"lora_name": "miniature_outlined_native.safetensors"},
    "ADV2V_ModelFromComfy": {"motion_module": "miniature_motion_native.safetensors"},
    "ADV2V_ApplyMotion": {"motion_module": "miniature_motion_native.safetensors"},
    "KSampler": {"steps": 2},
}
# The denoise, guidance and clip with which the miniature shows what it can.
AS_SHOWN = {
    "ADV2V_LoadVideo": {"video": "miniature_clip.mp4", "select_every_nth_frame": 8},
    "LoadVideo": {"file": "miniature_clip.mp4"},
    "ADV2V_SelectFrames": {"select_every_nth_frame": 8},
    "ADV2V_Sampler": {
        "steps": 8,
        "denoise": 0.5,
        "guidance_scale": 5.0,
        "scheduler": "karras",
        "seed": 1,
    },
    "ADV2V_LoraStack": {"lora_1": "None", "lora_2": "None"},
}
SOURCE = ("red", "blue")


@pytest.fixture(scope="module", params=RUN)
def template(request, object_info):
    """The name of a template, its workflow, and its prompt for the miniature."""
    path = PACK / "workflows" / f"{request.param}.json"
    workflow = json.loads(path.read_text(encoding="utf-8"))
    return request.param, workflow, small(to_api(workflow, object_info))


def small(prompt):
    """Return a smaller version of the job."""
    for kind, values in SMALL.items():
        if any(node["class_type"] == kind for node in prompt.values()):
            prompt = with_values(prompt, kind, **values)
    if any(node["class_type"] == "ADV2V_Keyframes" for node in prompt.values()):
        prompt = with_values(prompt, "LoadImage", image="frame.png")
    for node in prompt.values():
        slots = [name for name in node["inputs"] if re.fullmatch(r"lora_\d+", name)]
        for name in slots:
            if node["inputs"][name] != "None":
                node["inputs"][name] = LORA
    return prompt


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_file(path, nth):
    """Check for every nth of the clip's frames in the same time, at its size, with its sound."""
    with av.open(str(path)) as container:
        video, (audio,) = container.streams.video[0], container.streams.audio
        assert video.codec_context.name == "h264"
        assert video.average_rate * nth == FRAME_RATE
        assert (video.width, video.height) == SIZE
        assert audio.rate == SAMPLE_RATE
        samples = sum(frame.samples for frame in container.decode(audio=0))
        metadata = dict(container.metadata)
    assert abs(samples / SAMPLE_RATE - FRAMES / FRAME_RATE) < 0.05
    assert len(pictures(path)) == FRAMES // nth
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
    metadata = check_file(path, EVERY_NTH.get(name, 2))
    assert json.loads(metadata["workflow"])["nodes"] == workflow["nodes"], name
    if "SaveVideo" not in {node["class_type"] for node in prompt.values()}:  # it adds to it
        assert json.loads(metadata["prompt"]) == prompt

    files = sorted(path.parent.iterdir())
    again = server.run(prompt, workflow)
    # A folder may have changed, so the batch looks at it again, and skips what is done.
    cached = {key for key, node in prompt.items() if node["class_type"] != "ADV2V_Batch"}
    assert set(message(again, "execution_cached")["nodes"]) == cached
    assert sorted(path.parent.iterdir()) == files


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - WITH_COMFYUIS_NETWORKS))
def test_template_runs_on_the_miniature(server, object_info, name):
    """With what the button "Get the miniature" sets, except for the number of steps."""
    workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_api(workflow, object_info)
    for key, values in workflow["extra"]["animatediff_v2v_miniature"]["values"].items():
        prompt[key]["inputs"] |= values
    for node in prompt.values():
        node["inputs"] |= {key: 2 for key in node["inputs"] if key.endswith("steps")}
    paths = server.files(server.run(prompt, workflow))
    assert len(paths) == (3 if name == "12 Batch of Videos" else 1)
    for path in paths:
        assert len(pictures(path)) in (8, 16, 24, 32)


@pytest.fixture
def opened(object_info):
    """Open a template as a prompt for the miniature and its own clip."""

    def prompt(name):
        workflow = json.loads((PACK / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        made = small(to_api(workflow, object_info))
        for kind, values in AS_SHOWN.items():
            if any(node["class_type"] == kind for node in made.values()):
                made = with_values(made, kind, **values)
        return made

    return prompt


def colours(frames):
    """Return the colour names of object and background in each frame."""
    seen = [measures().look(frame.astype(np.float32) / 255) for frame in frames]
    name = measures().colour_name
    return {(name(frame.object_colour), name(frame.background_colour)) for frame in seen}


@cache
def measures():
    sys.path.insert(0, str(PACK / "demo"))
    try:
        return importlib.import_module("training.measures")
    finally:
        sys.path.remove(str(PACK / "demo"))


PROMPT = "a green circle on a purple background"


def test_native_nodes_show_what_the_packs_own_loader_shows(server, opened):
    own = with_values(opened(GRAPH), "ADV2V_Sampler", positive=PROMPT, negative="")
    native = opened("10 Native nodes")
    native = with_values(native, "LoraLoader", strength_model=0.0, strength_clip=0.0)
    texts = [key for key, node in native.items() if node["class_type"] == "CLIPTextEncode"]
    (sampler,) = (node for node in native.values() if node["class_type"] == "ADV2V_Sampler")
    for key in texts:
        is_positive = sampler["inputs"]["positive_conditioning"] == [key, 0]
        native[key]["inputs"]["text"] = PROMPT if is_positive else ""
    first, second = (
        np.array(pictures(server.files(server.run(prompt))[0]), np.float32)
        for prompt in (own, native)
    )
    assert first.shape == second.shape
    assert colours(first) == colours(second) == {("green", "purple")}
    assert np.abs(first - second).mean() < 4


def test_a_style_image_gives_its_colours(server, opened):
    frames = pictures(server.folder / "input" / "miniature_clip.mp4")
    assert colours(frames[::6]) == {SOURCE}
    picture = Image.new("RGB", (256, 256), "#9a38bd")
    ImageDraw.Draw(picture).ellipse((60, 70, 190, 200), fill="#2ea845")
    picture.save(server.folder / "input" / "green_on_purple.png")
    prompt = with_values(opened("08 Style Image"), "LoadImage", image="green_on_purple.png")
    prompt = with_values(prompt, "ADV2V_IPAdapter", weight=1.0)
    prompt = with_values(prompt, "ADV2V_Sampler", positive="", negative="")
    made = pictures(server.files(server.run(prompt))[0])
    assert colours(made) == {("green", "purple")}


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
