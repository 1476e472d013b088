"""The range of each widget is exactly the range that the library accepts."""

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ContextOptions,
    FrameSelection,
    Guidance,
    LoraEntry,
    ModelFiles,
    Request,
    SamplingSettings,
    SpeedOptions,
)
from animatediff_v2v.pipeline.keyframe_files import KeyframeFiles
from animatediff_v2v.pipeline.ranges import CRF, FRAME_RATE, SOME_FRAMES, STEPS, STYLE_WEIGHT
from animatediff_v2v.pipeline.request import ControlFile
from animatediff_v2v.pipeline.sampling import FreeInit, SourceBlend, Span
from animatediff_v2v.pipeline.video import FORMATS, ControlFrameOptions, VideoWriter, exact_rate

from .declared import schemas

FILE = Path("file.safetensors")


def settings(**values):
    return SamplingSettings(**{"seed": 0} | values)


def request(**values):
    return Request(input=FILE, output=FILE, prompt="", sampling=settings(), **values)


def writer(folder, **values):
    options = {"width": 8, "height": 8, "frame_rate": Fraction(8)} | values
    return VideoWriter(folder / "clip.mp4", **options)


def crf(value):
    """-1 in the widget leaves the choice to the format; the largest is one format's."""
    highest = max(form.highest_crf for form in FORMATS.values())
    assert highest == CRF.high
    form = next(form for form in FORMATS.values() if form.highest_crf == highest)
    form.checked_crf(None if value == CRF.low else value)


def frame_rate(value):
    FRAME_RATE.check("fps", value)
    exact_rate(value)


# Input -> the part of the library that takes its value.
TAKERS = {
    "select_every_nth_frame": lambda value: FrameSelection(select_every_nth_frame=value),
    "skip_first_frames": lambda value: FrameSelection(skip_first_frames=value),
    "frame_load_cap": lambda value: FrameSelection(frame_load_cap=value),
    "force_rate": lambda value: FrameSelection(force_rate=value),
    "start_time": lambda value: FrameSelection(start_time_seconds=value),
    "duration": lambda value: FrameSelection(duration_seconds=value),
    "width": lambda value: request(width=value),
    "height": lambda value: request(height=value),
    "steps": lambda value: settings(steps=value),
    "num_inference_steps": lambda value: settings(steps=value),
    "guidance_scale": lambda value: Guidance(scale=value),
    "guidance_start": lambda value: SpeedOptions(guidance_start=value),
    "guidance_end": lambda value: Guidance(end=value),
    "guidance_rescale": lambda value: Guidance(rescale=value),
    "guidance_parallel": lambda value: Guidance(parallel=value),
    "denoise": lambda value: settings(denoise=value),
    "seed": lambda value: settings(seed=value),
    "source_blend": lambda value: SourceBlend(strength=value),
    "refine": lambda value: request(refine=value),
    "refine_denoise": lambda value: request(refine_denoise=value),
    "match_source": lambda value: request(match_source=value),
    "ADV2V_MatchSource.strength": lambda value: request(match_source=value),
    "source_blend_end": lambda value: SourceBlend(end=value),
    "length": lambda value: ContextOptions(length=value, overlap=0),
    "overlap": lambda value: ContextOptions(length=128, overlap=value),
    "stride": lambda value: ContextOptions(stride=value),
    "memory_end": lambda value: ContextOptions(memory_end=value),
    "deep_cache_interval": lambda value: SpeedOptions(deep_cache_interval=value),
    "motion_scale": lambda value: ModelFiles(checkpoint=FILE, motion_scale=value),
    "clip_skip": lambda value: ModelFiles(checkpoint=FILE, clip_skip=value),
    "model_strength": lambda value: LoraEntry(FILE, model_strength=value),
    "clip_strength": lambda value: LoraEntry(FILE, clip_strength=value),
    "ADV2V_MotionLoraStack.strength": lambda value: LoraEntry(FILE, value),
    "ADV2V_ControlNet.strength": lambda value: ControlFile(network=FILE, strength=value),
    "ADV2V_Keyframes.strength": lambda value: KeyframeFiles(
        network=FILE, pictures=[FILE], frames=[0], strength=value
    ),
    "iterations": lambda value: FreeInit(iterations=value),
    "spatial_stop": lambda value: FreeInit(spatial_stop=value),
    "temporal_stop": lambda value: FreeInit(temporal_stop=value),
    "order": lambda value: FreeInit(order=value),
    "motion_effect": lambda value: ModelFiles(checkpoint=FILE, motion_effect=value),
    "weight": lambda value: STYLE_WEIGHT.check("weight", value),
    "start": lambda value: Span(start=value),
    "end": lambda value: Span(end=value),
    "low_threshold": lambda value: ControlFrameOptions(low_threshold=value, high_threshold=2040),
    "high_threshold": lambda value: ControlFrameOptions(high_threshold=value, low_threshold=0),
    "tile_factor": lambda value: ControlFrameOptions(tile_factor=value),
    "frames": lambda value: SOME_FRAMES.check("frames", value),
    "fps": frame_rate,
    "crf": crf,
}  # fmt: skip


def numbers():
    return [
        pytest.param(schema.node_id, each, id=f"{schema.node_id}.{each.name}")
        for schema in schemas().values()
        for each in schema.inputs
        if each.type in ("INT", "FLOAT")
    ]


def taker_of(node_id, name):
    bare = re.sub(r"_\d+$", "", name)  # slots of a stack
    return TAKERS.get(f"{node_id}.{bare}") or TAKERS[bare]


@pytest.fixture
def taken(tmp_path):
    """Return a function that says whether the library accepts a value of a node's input."""

    def ask(node_id, name, value):
        try:
            if name == "loop_count":
                writer(tmp_path, loop_count=value)
            else:
                taker_of(node_id, name)(value)
        except AnimateDiffV2VError as error:
            assert "it must be from" in str(error) or "give " in str(error), error
            return False
        return True

    return ask


# Sliders end at usual values; graphs and the API may give more.
WIDER = {"steps": STEPS.high, "num_inference_steps": STEPS.high}


@pytest.mark.parametrize(("node_id", "declared"), numbers())
def test_a_widget_and_the_library_have_one_range(node_id, declared, taken):
    low, high = declared.options["min"], declared.options["max"]
    step = 1 if declared.type == "INT" else 0.001
    assert taken(node_id, declared.name, low) and taken(node_id, declared.name, high)
    assert not taken(node_id, declared.name, low - step - (declared.name == "crf"))
    if declared.name in WIDER:
        assert high < WIDER[declared.name]
        high = WIDER[declared.name]
        assert taken(node_id, declared.name, high)
    assert not taken(node_id, declared.name, high + step)


@pytest.mark.parametrize(
    ("node_id", "declared"), [each for each in numbers() if each.values[1].type == "FLOAT"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_no_number_is_taken_that_is_none(node_id, declared, value, taken):
    assert not taken(node_id, declared.name, value)


def test_ranges_in_the_texts_of_sentences():
    with pytest.raises(AnimateDiffV2VError) as caught:
        settings(seed=2**64)
    assert str(caught.value) == (
        "seed is 18446744073709551616; it must be from 0 to 18446744073709551615."
    )
    with pytest.raises(AnimateDiffV2VError, match=r"seed is 2\^33219 or more; it must be from 0"):
        settings(seed=10**10_000)
    with pytest.raises(AnimateDiffV2VError, match="guidance_scale is 1000000000; it must"):
        Guidance(scale=1e9)
