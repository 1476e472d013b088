"""KSampler behind Apply AnimateDiff in a running ComfyUI: previews, warnings, Cancel."""

from __future__ import annotations

import io

from PIL import Image

from .comfy_server import message
from .test_patches import model_with
from .test_strength_curve import curve

FEW = (
    "4 frames are too few for a motion module, which was trained on 16: the picture can be blurred "
)
FEW += "or grey. Give the sampler a larger batch of latents."
STEADY = "motion_scale is '0%: 1.5, 20%: 1', but 1 in all steps, because sampling begins at "


def ksampler(*, frames, steps, seed, denoise=1.0):
    """Return a graph that makes a video from text with ComfyUI's own nodes."""
    texts = {
        name: {"class_type": "CLIPTextEncode", "inputs": {"text": name, "clip": ["checkpoint", 1]}}
        for name in ("positive", "negative")
    }
    sampling = {"seed": seed, "steps": steps, "cfg": 2.0, "denoise": denoise}
    sampling |= {"sampler_name": "euler", "scheduler": "normal"}
    return {
        "checkpoint": model_with()["checkpoint"],
        "apply": {
            "class_type": "ADV2V_ApplyMotion",
            "inputs": {
                "model": ["checkpoint", 0],
                "motion_module": "miniature_motion_native.safetensors",
            },
        },
        **texts,
        "empty": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 96, "height": 64, "batch_size": frames},
        },
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["apply", 0],
                "latent_image": ["empty", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                **sampling,
            },
        },
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["sample", 0]}},
    }


def run(server, prompt):
    """Run a prompt; return its watcher and what it added to the log."""
    before = len(server.log())
    with server.watched() as watcher:
        server.run(prompt, client=watcher.client)
        watcher.until(lambda: watcher.of("execution_success"))
    return watcher, server.log()[before:]


def test_previews_are_comfyui_s_own(server):
    watcher, _ = run(server, ksampler(frames=8, steps=3, seed=1))
    told, data = watcher.pictures[0]
    assert told["node_id"] == "sample"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size[0] > picture.size[1]
    assert watcher.texts.get("sample") is None


def test_few_frames_are_named_once_in_each_run(server):
    for seed in (2, 3):
        watcher, log = run(server, ksampler(frames=4, steps=2, seed=seed))
        assert watcher.texts["sample"] == FEW
        assert log.count(FEW) == 1


def test_a_curve_that_only_changes_before_the_first_step_is_named(server):
    prompt = ksampler(frames=4, steps=2, seed=6, denoise=0.5)
    prompt["curve"] = curve("0%: 1.5, 20%: 1")
    prompt["apply"]["inputs"]["motion_scale"] = ["curve", 0]
    watcher, log = run(server, prompt)
    assert watcher.texts["sample"].startswith(f"{FEW}\n\n{STEADY}")
    assert log.count(STEADY) == 1


def test_cancelling_leaves_comfyui_usable(server):
    before = len(server.log())
    with server.watched() as watcher:
        prompt_id = server.queue(ksampler(frames=16, steps=1000, seed=4), client=watcher.client)
        watcher.until(lambda: watcher.pictures)
        server.post("/interrupt", {})
        entry = server.wait(prompt_id)
    assert message(entry, "execution_interrupted")["node_id"] == "sample"
    assert "Traceback" not in server.log()[before:]
    run(server, ksampler(frames=8, steps=1, seed=5))
