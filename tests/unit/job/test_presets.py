"""Presets: the settings that they change and keep, and their warnings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ContextOptions,
    Guidance,
    SamplingSettings,
    SpeedOptions,
)
from animatediff_v2v.pipeline.presets import (
    PRESETS,
    Defaults,
    few_frames,
    mismatches,
    preset_defaults,
    repeated_window,
    with_preset,
)

QUALITY, TURBO = PRESETS["quality"], PRESETS["turbo"]


def test_turbo_is_the_founding_endpoint():
    assert (TURBO.steps, TURBO.guidance_scale) == (8, 2.2)


@pytest.mark.parametrize("preset", PRESETS)
def test_untouched_fields_take_the_presets_values(preset):
    assert with_preset(preset, QUALITY) == PRESETS[preset]


def test_touched_fields_stay():
    chosen = Defaults(steps=6, guidance_scale=7.0, sampler="tcd", scheduler="normal")
    assert with_preset("turbo", chosen) == Defaults(
        steps=6, guidance_scale=2.2, sampler="tcd", scheduler="sgm_uniform"
    )


def test_exact_is_quality_and_fast_differs_in_speed_alone():
    assert PRESETS["exact"] == QUALITY
    fast = SpeedOptions(deep_cache_interval=2, reduced_precision=True)
    assert PRESETS["fast"] == replace(QUALITY, speed=fast)
    draft = PRESETS["draft"]
    assert (draft.steps, draft.guidance_scale, draft.sampler) == (4, 1.0, "lcm")


def test_options_for_speed_that_are_chosen_replace_the_presets():
    chosen = replace(QUALITY, speed=SpeedOptions(guidance_end=0.8))
    assert with_preset("fast", chosen).speed == SpeedOptions(guidance_end=0.8)
    assert with_preset("fast", QUALITY).speed.deep_cache_interval == 2


def test_an_unknown_preset_is_refused():
    with pytest.raises(AnimateDiffV2VError, match="preset is 'quick'; it can be quality, turbo"):
        preset_defaults("quick")


@pytest.mark.parametrize(
    ("preset", "family", "has_loras", "warning"),
    [
        ("quality", "v2", False, None),
        ("quality", "v1", False, None),
        ("quality", None, False, None),
        ("quality", "animatelcm", False, "guidance_scale 7 is too strong for an AnimateLCM"),
        ("turbo", "animatelcm", False, None),
        ("turbo", "v2", True, None),
        ("turbo", "v2", False, "The sampler lcm is for AnimateLCM or an LCM LoRA"),
        ("turbo", "v3", False, "8 steps are for AnimateDiff-Lightning, AnimateLCM or an LCM LoRA"),
        ("turbo", "v3", True, None),
        ("lightning", "v2", False, None),
        ("lightning", "v1", False, "4 steps are for AnimateDiff-Lightning"),
        ("lightning", None, False, None),
        ("fast", "v2", False, None),
        ("draft", "animatelcm", False, None),
        ("draft", "v3", False, "4 steps are for AnimateDiff-Lightning"),
    ],
)
def test_warnings(preset, family, has_loras, warning):
    defaults = preset_defaults(preset)
    settings = SamplingSettings(
        seed=0,
        steps=defaults.steps,
        guidance=Guidance(scale=defaults.guidance_scale),
        sampler=defaults.sampler,
        scheduler=defaults.scheduler,
    )
    messages = list(
        mismatches(settings, SimpleNamespace(motion_family=family, has_loras=has_loras))
    )
    assert len(messages) == (warning is not None)
    assert all(warning in message for message in messages)


@pytest.mark.parametrize(
    ("sampler", "scale", "warns"),
    [
        ("euler_cfg_pp", 7.0, True),
        ("res_multistep_ancestral_cfg_pp", 3.5, True),
        ("euler_cfg_pp", 2.0, False),
        ("euler", 7.0, False),
    ],
)
@pytest.mark.parametrize("family", ["v2", None])
def test_cfg_pp_wants_little_guidance(sampler, scale, warns, family):
    settings = SamplingSettings(seed=0, sampler=sampler, guidance=Guidance(scale=scale))
    messages = list(mismatches(settings, SimpleNamespace(motion_family=family, has_loras=False)))
    sentence = f"guidance_scale {scale:g} is too strong for the sampler {sampler}: 1 to 2 suit it."
    assert messages == [sentence] * warns


@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        ({"rescale": 0.7}, "guidance_rescale is 0.7 and has no effect"),
        ({"parallel": 0.0}, "guidance_parallel is 0 and has no effect"),
        ({}, None),
        ({"rescale": 0.7, "scale": 2.0}, None),
    ],
)
def test_shaped_guidance_without_guidance_is_told(guidance, said):
    settings = SamplingSettings(seed=0, guidance=Guidance(**{"scale": 1.0} | guidance))
    messages = list(mismatches(settings, SimpleNamespace(motion_family=None, has_loras=False)))
    assert len(messages) == (said is not None) and all(said in each for each in messages)


@pytest.mark.parametrize(
    ("memory", "denoise", "end", "frames", "warns"),
    [
        ("NaiveReuse", 0.6, 1.0, 40, True),
        ("NaiveReuse", 0.9, 0.15, 40, True),
        ("NaiveReuse", 0.6, 0.15, 40, False),  # over before sampling begins
        ("NaiveReuse", 1.0, 1.0, 40, False),
        ("NaiveReuse", 0.6, 1.0, 16, False),  # one window
        ("ContextRef", 0.6, 1.0, 40, False),
    ],
)
def test_windows_that_repeat_the_first_one_lose_the_source(memory, denoise, end, frames, warns):
    context = ContextOptions(memory=memory, memory_end=end)
    settings = SamplingSettings(seed=0, denoise=denoise, context=context)
    warning = repeated_window(frames, settings, SimpleNamespace())
    assert (warning is not None) == warns
    assert not warns or "it is for a denoise of 1" in warning


@pytest.mark.parametrize(
    ("frames", "length", "family", "sentence"),
    [
        (1, 16, "v2", "1 frame is too few for a motion module, which was trained on 16"),
        (7, None, "v3", "7 frames are too few"),
        (7, 16, "animatelcm", "Load more: a smaller select_every_nth_frame, a higher force_rate"),
        (40, 7, "v1", "Windows of 7 frames are short for a motion module, which was trained on 16"),
        (8, 8, "v2", None),
        (40, None, "v2", None),
        (4, None, None, None),
        (40, 4, None, None),
    ],
)
def test_few_frames(frames, length, family, sentence):
    context = ContextOptions(length=length, overlap=2) if length else None
    settings = SamplingSettings(seed=0, context=context)
    found = few_frames(frames, settings, SimpleNamespace(motion_family=family))
    assert found is None if sentence is None else sentence in found
