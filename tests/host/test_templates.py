"""The templates open in ComfyUI, run, and give the right files."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest

from .api_format import to_api, with_values
from .comfy_server import PACK, PACK_NAME, message
from .conftest import FRAME_RATE, FRAMES, SAMPLE_RATE, SIZE

GRAPH = "Video to Video"
ONE_NODE = "Video to Video (one node)"
KEPT = FRAMES // 2


@pytest.fixture(scope="module", params=[GRAPH, ONE_NODE])
def template(request, object_info):
    """A template's name, workflow, and prompt for the tiny models."""
    path = PACK / "workflows" / f"{request.param}.json"
    workflow = json.loads(path.read_text(encoding="utf-8"))
    return request.param, workflow, small(to_api(workflow, object_info))


def small(prompt):
    """The same job with the models, the clip and the few steps of a test."""
    if any(node["class_type"] == "ADV2V_VideoToVideo" for node in prompt.values()):
        return with_values(
            prompt,
            "ADV2V_VideoToVideo",
            video="clip.mp4",
            base_model="checkpoint.safetensors",
            motion_module="motion_module.safetensors",
            num_inference_steps=3,
        )
    prompt = with_values(prompt, "ADV2V_LoadVideo", video="clip.mp4")
    prompt = with_values(
        prompt,
        "ADV2V_LoadModel",
        checkpoint="checkpoint.safetensors",
        motion_module="motion_module.safetensors",
    )
    return with_values(prompt, "ADV2V_Sampler", steps=2)


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
    assert sorted(offered) == sorted([GRAPH, ONE_NODE])
    for name in offered:
        address = f"/api/workflow_templates/{PACK_NAME}/{quote(name)}"
        assert server.get(f"{address}.json")["version"] == 0.4
        assert server.get(f"{address}.jpg")[:3] == b"\xff\xd8\xff"


def test_template_runs_and_is_cached(server, template):
    name, workflow, prompt = template
    entry = server.run(prompt, workflow)
    (path,) = server.files(entry)
    assert path.parent == server.folder / "output" / "video"
    metadata = check_file(path)
    assert json.loads(metadata["workflow"])["nodes"] == workflow["nodes"], name
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
            lora_1="style_lora.safetensors",
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
