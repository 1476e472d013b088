"""Strength Curve in a running ComfyUI: at the sampler, the model, LoRAs, and KSampler's model."""

from __future__ import annotations

import pytest

from .test_behaviour import failure, graph, load_model, refusal, sampler
from .test_guidance import KEPT, difference, pictures
from .test_lora_stack import LORA, lora_stack

LAST = KEPT - 1
RISING = f"0: 0, {LAST}: 1"


def curve(text, **values):
    inputs = {"curve": text, "start": 0.0, "end": 1.0}
    return {"class_type": "ADV2V_StrengthCurve", "inputs": inputs | values}


def curved(text=RISING, *, to="denoise", **more):
    return graph(sample=sampler(**{to: ["curve", 0]}), curve=curve(text), **more)


def styled(strength, **more):
    stack = lora_stack(lora_1=LORA, model_strength_1=strength, clip_strength_1=0.0)
    return graph(model=load_model(lora_stack=["stack", 0]), stack=stack, **more)


def test_frames_move_away_from_the_source(server):
    found = pictures(server, curved())
    still, whole = (pictures(server, graph(sample=sampler(denoise=d))) for d in (0.0, 1.0))
    assert difference(found[:1], still[:1]) < 1
    assert difference(found[LAST:], still[LAST:]) > 1
    assert len(found) == len(whole) == KEPT


@pytest.mark.parametrize(("to", "number"), [("denoise", 0.5), ("guidance_scale", 2.0)])
def test_a_level_curve_is_the_number(server, to, number):
    assert (
        difference(pictures(server, curved(f"0: {number}", to=to)), pictures(server, graph())) < 1
    )


def test_a_lora_fades_in(server):
    found = pictures(server, styled(["curve", 0], curve=curve(RISING)))
    plain, full = pictures(server, graph()), pictures(server, styled(1.0))
    assert difference(full, plain) > 0.5
    assert difference(found[LAST:], plain[LAST:]) > difference(found[:1], plain[:1])


def test_the_motion_scale_changes(server):
    model = load_model(motion_scale=["curve", 0])
    found = pictures(server, graph(model=model, curve=curve("0: 1, -1: 4")))
    assert difference(found, pictures(server, graph())) > 0


def test_what_is_no_curve_is_marked_in_the_node(server):
    ((name, sentence),) = refusal(server, curved("8: 1, 4: 0")).items()
    assert name == "curve" and "frame 4 comes after frame 8" in sentence


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (curved("0: 0, 99: 1"), "frame 99 is beyond the video, whose 8 frames are counted from 0"),
        (curved("0: 0, 4: 2"), "denoise is 2 at frame 4; it must be from 0 to 1."),
    ],
)
def test_what_does_not_fit_the_video_is_a_sentence(server, prompt, sentence):
    assert sentence in failure(server, prompt)
