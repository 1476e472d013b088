"""Keyframes and FreeInit in a running ComfyUI."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from ..unit.files import miniatures as mini
from .test_apply_motion_graph import ksampler
from .test_behaviour import failure, graph, load_model, load_video, refusal, sampler
from .test_guidance import KEPT, difference, pictures


@pytest.fixture(scope="module")
def models(server):
    """The miniature's motion module in v3's shape, and drawn SparseCtrl models that fit it."""
    folder = server.folder / "models"
    motion = load_file(folder / "animatediff_models" / "motion_module.safetensors")
    v3 = {name: tensor for name, tensor in motion.items() if not name.startswith("mid_block")}
    save_file(v3, folder / "animatediff_models" / "v3.safetensors")
    for name, takes_latents in (("sparse_rgb", True), ("sparse_scribble", False)):
        module = mini.sparsectrl_module(
            (64, 96, 96), attends=(True,) * 3, cross=32, takes_latents=takes_latents
        )
        save_file(mini.state(module), folder / "controlnet" / f"{name}.safetensors")


def keyframes(**values):
    inputs = {
        "sparsectrl": "sparse_rgb.safetensors",
        "images": ["load", 0],
        "frames": "0, -1",
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
    }
    return {"class_type": "ADV2V_Keyframes", "inputs": inputs | values}


def keyed(motion_module="v3.safetensors", **values):
    return graph(
        model=load_model(motion_module=motion_module),
        sample=sampler(control=["keys", 0], denoise=1.0),
        keys=keyframes(**values),
    )


def applied(*, vae=True):
    """Return a graph of KSampler with keyframes behind Apply AnimateDiff, of 8 empty latents."""
    graph = ksampler(frames=8, steps=1, seed=1) | {"keys": keyframes(frames="0")}
    given = {"control": ["keys", 0], **({"vae": ["checkpoint", 2]} if vae else {})}
    graph["apply"]["inputs"] |= given
    return graph | {"load": load_video(frame_load_cap=1)}


@pytest.mark.parametrize(
    ("vae", "sentence"),
    [
        (False, "connect the checkpoint's VAE to vae of Apply AnimateDiff"),
        (True, "Keyframes need AnimateDiff's v3 motion module"),
    ],
)
def test_keyframes_that_cannot_act_behind_apply_animatediff(server, models, vae, sentence):
    assert sentence in failure(server, applied(vae=vae))


def free_init(**values):
    inputs = {"iterations": 2, "filter": "gaussian", "spatial_stop": 0.25, "temporal_stop": 0.25}
    return {"class_type": "ADV2V_FreeInit", "inputs": inputs | {"order": 4} | values}


def test_keyframes_change_the_clip(server, models):
    model = load_model(motion_module="v3.safetensors")
    plain = pictures(server, graph(model=model, sample=sampler(denoise=1.0)))
    whole = pictures(server, keyed())
    assert len(whole) == KEPT and difference(whole, plain) > 1
    assert difference(pictures(server, keyed(strength=0.0)), plain) == 0
    drawn = pictures(server, keyed(sparsectrl="sparse_scribble.safetensors", frames="3"))
    assert difference(drawn, plain) > 1 and difference(drawn, whole) > 1


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (lambda: keyed("motion_module.safetensors"), "Keyframes need AnimateDiff's v3 motion"),
        (lambda: keyed(frames="99"), "frames names frame 99, and there are 8 images"),
        (lambda: keyed(images=["one", 0], frames="99") | {"one": load_video(frame_load_cap=1)},
         "A keyframe is at frame 99, and the video has 8 frames"),
    ],
)  # fmt: skip
def test_keyframes_that_cannot_act_are_a_sentence(server, models, prompt, sentence):
    assert sentence in failure(server, prompt())


def test_a_controlnet_in_the_place_of_a_sparsectrl_is_refused(server, models):
    ((name, sentence),) = refusal(server, keyed(sparsectrl="controlnet.safetensors")).items()
    assert name == "sparsectrl" and "SparseCtrl" in sentence


def test_free_init_samples_in_rounds(server):
    plain = pictures(server, graph(sample=sampler(denoise=1.0)))
    sample = sampler(denoise=1.0, free_init=["rounds", 0])
    once = pictures(server, graph(sample=sample, rounds=free_init(iterations=1)))
    assert difference(once, plain) == 0
    twice = pictures(server, graph(sample=sample, rounds=free_init()))
    assert len(twice) == KEPT and difference(twice, plain) > 1
