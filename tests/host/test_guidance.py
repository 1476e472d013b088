"""ControlNets, IP-Adapters, unsampling and masks in a running ComfyUI."""

from __future__ import annotations

import av
import numpy as np
import pytest

from .comfy_server import message
from .conftest import SIZE
from .test_behaviour import encode_video, failure, graph, load_model, load_video, refusal, sampler

KEPT = 8


def control_frames(**values):
    inputs = {
        "images": ["load", 0],
        "preprocessor": "canny",
        "low_threshold": 100.0,
        "high_threshold": 200.0,
        "tile_factor": 8,
    }
    return {"class_type": "ADV2V_ControlFrames", "inputs": inputs | values}


def control_net(**values):
    inputs = {
        "control_net": "controlnet.safetensors",
        "images": ["edges", 0],
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
    }
    return {"class_type": "ADV2V_ControlNet", "inputs": inputs | values}


def ip_adapter(**values):
    inputs = {
        "ip_adapter": "miniature_style.safetensors",
        "clip_vision": ["vision", 0],
        "images": ["looks", 0],
        "weight": 1.0,
        "arrangement": "travel",
        "start": 0.0,
        "end": 1.0,
    }
    return {"class_type": "ADV2V_IPAdapter", "inputs": inputs | values}


def vision():
    inputs = {"clip_name": "miniature_vision.safetensors"}
    return {"class_type": "CLIPVisionLoader", "inputs": inputs}


def looks():
    """Two pictures, for a vision model of full size takes a second for each."""
    return load_video(frame_load_cap=2)


def solid_mask(value, width=SIZE[0], height=SIZE[1]):
    return {
        "class_type": "SolidMask",
        "inputs": {"value": value, "width": width, "height": height},
    }


def controlled(sample=None, **more):
    more = {"edges": control_frames(), "control": control_net(), **more}
    return graph(sample=sample or sampler(control=["control", 0], denoise=1.0), **more)


def styled(sample=None, **more):
    more = {"vision": vision(), "looks": looks(), "style": ip_adapter(), **more}
    return graph(sample=sample or sampler(style=["style", 0], denoise=1.0), **more)


def pictures(server, prompt):
    """The frames of the clip that a prompt writes, float [frames, height, width, 3]."""
    # A format that browsers cannot play comes with a preview file.
    path = max(server.files(server.run(prompt)), key=lambda path: path.suffix == ".mkv")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.float32)


def difference(first, second):
    return float(np.abs(first - second).mean())


@pytest.fixture(scope="module")
def plain(server):
    return pictures(server, graph(sample=sampler(denoise=1.0)))


def test_a_controlnet_changes_the_clip_and_strength_0_does_not(server, plain):
    whole = pictures(server, controlled())
    assert len(whole) == KEPT
    assert difference(whole, plain) > 1
    idle = pictures(server, controlled(control=control_net(strength=0.0)))
    assert difference(idle, plain) == 0


def test_controlnets_chain_with_masks_and_spans(server, plain):
    chained = pictures(
        server,
        controlled(
            half=solid_mask(0.5),
            before=control_net(strength=0.5, end=0.5),
            control=control_net(control=["before", 0], mask=["half", 0], start=0.1),
        ),
    )
    assert difference(chained, plain) > 1
    black = pictures(
        server, controlled(black=solid_mask(0.0), control=control_net(mask=["black", 0]))
    )
    assert difference(black, plain) == 0


def test_another_strength_reads_no_file_again(server):
    server.run(controlled(control=control_net(strength=0.7)))
    entry = server.run(controlled(control=control_net(strength=0.6)))
    cached = message(entry, "execution_cached")["nodes"]
    assert {"load", "model", "edges"} <= set(cached)


@pytest.mark.parametrize("preprocessor", ["canny", "luminance", "tile"])
def test_control_frames_are_as_many_as_frames(server, preprocessor):
    prompt = {
        "load": load_video(),
        "edges": control_frames(preprocessor=preprocessor),
        "encode": encode_video(["edges", 0]),
    }
    made = pictures(server, prompt)
    assert made.shape == (KEPT, SIZE[1], SIZE[0], 3)


def test_an_ip_adapter_changes_the_clip(server, plain):
    whole = pictures(server, styled())
    assert difference(whole, plain) > 0.5
    faded = pictures(server, styled(style=ip_adapter(weights="0: 0\n99: 0")))
    assert difference(faded, plain) < 0.5
    assert difference(pictures(server, styled(style=ip_adapter(weight=0.0))), plain) == 0
    pair = pictures(
        server,
        styled(
            first=ip_adapter(arrangement="concat", end=0.5),
            style=ip_adapter(style=["first", 0], arrangement="per_window"),
        ),
    )
    assert difference(pair, whole) > 0.5


def test_controlnet_and_ip_adapter_with_a_few_step_preset(server):
    sample = sampler(control=["control", 0], style=["style", 0], preset="turbo", steps=25)
    sample["inputs"] |= {"guidance_scale": 7.0}
    both = controlled(sample, vision=vision(), looks=looks(), style=ip_adapter())
    assert len(pictures(server, both)) == KEPT


def test_a_mask_keeps_the_source(server):
    # Without loss, for H.264 makes much of a last bit.
    exact = {"encode": encode_video(["sample", 0], format="mkv-ffv1")}
    source = pictures(server, graph(sample=sampler(denoise=0.0), **exact))
    masked = sampler(denoise=1.0, source_mask=["black", 0])
    kept = graph(sample=masked, black=solid_mask(0.0), **exact)
    assert difference(pictures(server, kept), source) < 0.1
    blended = sampler(denoise=1.0, source_blend=1.0, source_blend_end=1.0)
    assert difference(pictures(server, graph(sample=blended, **exact)), source) < 0.1


def test_unsampling_begins_from_the_source(server):
    first = pictures(server, graph(sample=sampler(noise_type="unsample", seed=1)))
    again = pictures(server, graph(sample=sampler(noise_type="unsample", seed=2)))
    assert difference(first, again) == 0, "euler draws nothing on its way"
    told = sampler(noise_type="unsample", seed=1, source_prompt="a wall")
    assert difference(first, pictures(server, graph(sample=told))) > 0
    assert difference(first, pictures(server, graph(sample=sampler(seed=1)))) > 1


FAILURES = [
    (
        controlled(control=control_net(images=["one", 0]), one=load_video(frame_load_cap=3)),
        "has 3 control frames, and the video has 8 frames",
    ),
    (
        controlled(control=control_net(images=["wide", 0]), wide=load_video(width=96, height=32)),
        "are 96x32 pixels, another shape than the video's 96x64",
    ),
    (
        styled(vision={"class_type": "OtherClipVision", "inputs": {}}),
        "needs a CLIP vision model whose output has 768 channels, and this one's has 1024",
    ),
]


@pytest.mark.parametrize(("prompt", "sentence"), FAILURES)
def test_what_does_not_fit_gives_one_sentence(server, prompt, sentence):
    said = failure(server, prompt)
    assert sentence in said
    assert said.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("prompt", "name", "sentence"),
    [
        (controlled(control=control_net(start=0.8, end=0.2)), "end", "must be from 0.8 to 1"),
        (styled(style=ip_adapter(weights="much")), "weights", "Line 1 of the weight schedule"),
        (styled(style=ip_adapter(weight=9.0)), "weight", ""),
        (controlled(edges=control_frames(low_threshold=300.0)), "low_threshold", "not be above"),
    ],
)
def test_wrong_values_are_refused_before_running(server, prompt, name, sentence):
    assert sentence in " ".join(refusal(server, prompt).values())
    assert name in refusal(server, prompt)


def test_without_a_motion_module_and_unloaded_in_between(server):
    prompt = controlled(model=load_model(motion_module="None (each frame by itself)"))
    first = pictures(server, prompt)
    server.post("/free", {"unload_models": True, "free_memory": True})
    again = pictures(server, prompt)
    assert difference(first, again) == 0


def test_a_missing_vision_model_is_named(server):
    prompt = styled()
    del prompt["style"]["inputs"]["clip_vision"]
    assert "clip_vision" in refusal(server, prompt)
