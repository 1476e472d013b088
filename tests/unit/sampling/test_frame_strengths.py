"""LoRAs and motion modules whose strengths change along frames or steps, in a whole sampling."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, LoraEntry, load_models
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.memory.copies import copy_to
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Guidance,
    SamplingSettings,
    SpeedOptions,
    sample_latents,
)
from animatediff_v2v.pipeline.sampling.custom import CustomSampling
from animatediff_v2v.pipeline.sampling.frame_strengths import steady_curves, strengths_of
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.passes import Execution
from animatediff_v2v.pipeline.sampling.tiles import TiledModel

from . import sampled

FRAMES = 5
GENERATOR = torch.Generator().manual_seed(6)
SOURCE = torch.randn(FRAMES, 4, 8, 8, generator=GENERATOR)
PROMPTS = Conditioning.of(*torch.randn(2, 1, 77, 64, generator=GENERATOR))
WINDOWS = ContextOptions(length=3, overlap=1)
RISING = Curve("0: 0, -1: 1")
FALLING = Curve("0%: 1, 60%: 0.2 ease")


def sample(unet, **options):
    usual = {"guidance": Guidance(scale=2.0), "beta_schedule": "sqrt_linear"}
    return sampled.sample(unet, SOURCE, PROMPTS, **usual | options)


def relative(one, other):
    return float((one - other).norm() / other.norm())


def with_motion(models, scale=1.0, effect=1.0):
    unet = copy_to(models.unet, torch.device("cpu"))
    unet.motion.set_motion_scale(scale)
    unet.motion.effect = effect
    return unet


@pytest.fixture(scope="module")
def load(weights):
    def load(strength):
        """Load the networks without a motion module, in which frames are independent."""
        return load_models(
            weights / "checkpoint.safetensors",
            loras=[LoraEntry(weights / "style_lora.safetensors", strength, 0.0)],
            device=torch.device("cpu"),
            dtype=torch.float32,
        ).unet

    return load


@pytest.mark.parametrize(
    "options", [{}, {"context": WINDOWS}, {"speed": SpeedOptions(deep_cache_interval=2)}]
)
def test_each_frame_has_the_lora_at_its_own_strength(load, options):
    found = sample(load(RISING), **options)
    for frame, strength in ((0, 0.0), (2, 0.5), (4, 1.0)):
        alone = sample(load(strength), **options)
        # Merged weights are rounded to the file's float16.
        assert relative(found[frame], alone[frame]) < 2e-3, frame
    assert relative(sample(load(1.0), **options)[0], found[0]) > 0.01


def test_a_lora_acts_in_its_part_of_the_noise_schedule(load):
    plain, whole = sample(load(0.0)), sample(load(Curve("0: 1")))
    assert relative(whole, plain) > 0.01
    assert torch.equal(sample(load(Curve("0: 1", start=0.0, end=0.0))), plain)
    part = sample(load(Curve("0: 1", start=0.5)))
    assert 0 < relative(part, plain) < relative(whole, plain)


@pytest.mark.parametrize(
    ("over", "span"),
    [
        ("0%: 1, 50%: 0 hold", {"end": 0.5}),
        ("0%: 0, 50%: 1 hold", {"start": 0.5}),
        ("0%: 0, 20%: 1 hold, 70%: 0 hold", {"start": 0.2, "end": 0.7}),
    ],
)
def test_a_lora_that_jumps_over_the_steps_acts_in_that_part(load, over, span):
    found = sample(load(Curve(over)), steps=4, scheduler="karras")
    assert torch.equal(found, sample(load(Curve("0: 1", **span)), steps=4, scheduler="karras"))
    whole = sample(load(Curve("0%: 1")), steps=4, scheduler="karras")
    assert relative(found, whole) > 1e-4


def test_a_span_narrows_a_curve_over_the_steps(load):
    both = sample(load(Curve("0%: 1, 60%: 0 hold", start=0.3)))
    assert torch.equal(both, sample(load(Curve("0: 1", start=0.3, end=0.6))))


@pytest.mark.parametrize(
    "options", [{}, {"context": WINDOWS}, {"speed": SpeedOptions(deep_cache_interval=2)}]
)
def test_level_curves_over_the_steps_are_those_along_the_frames(load, models, options):
    over, along = (sample(load(Curve(text)), **options) for text in ("0%: 0.6", "0: 0.6"))
    assert torch.equal(over, along)
    assert relative(over, sample(load(0.6), **options)) < 2e-3  # merged in float16
    for name in ("scale", "effect"):
        found, number = (
            sample(with_motion(models, **{name: strength}), **options)
            for strength in (Curve("20%: 0.6, 80%: 0.6"), 0.6)
        )
        assert relative(found, number) < 1e-5, name


def strengths_at(unet, share):
    schedule = NoiseSchedule("sqrt_linear")
    sigma = torch.tensor(schedule.sigma_at(share))
    return strengths_of(unet, [0, 1, 2, 0], FRAMES, sigma, schedule)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 0.6, 1.0])
def test_all_frames_of_a_pass_have_the_number_of_its_noise_level(load, models, share):
    expected = torch.full((4,), FALLING.at(share))
    motion = strengths_at(with_motion(models, FALLING, FALLING), share)
    found = (motion.motion_scale.numbers, motion.motion_effect.numbers)
    for numbers in (*found, strengths_at(load(FALLING), share).loras[0]):
        assert torch.allclose(numbers, expected, atol=1e-5)


def test_several_devices_and_tiles_give_the_same(load):
    unet = load(RISING)
    for curve in (RISING, FALLING):
        unet.lora_curves = (curve,)
        check_that_several_devices_and_tiles_give_the_same(unet)


def check_that_several_devices_and_tiles_give_the_same(unet):
    execution = Execution((copy_to(unet, torch.device("cpu")),))
    makers = (
        GuidedModel,
        partial(GuidedModel, execution=execution),
        partial(TiledModel, tile=(8, 8)),
    )
    settings = SamplingSettings(seed=5, steps=2, denoise=1.0, context=WINDOWS)
    expected, *others = (
        sample_latents(unet, SOURCE, PROMPTS, settings, make_guided=make) for make in makers
    )
    for found in others:
        assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("context", [None, WINDOWS])
def test_a_level_motion_scale_is_the_number(models, context):
    number = sample(with_motion(models, 1.4), context=context)
    curve = sample(with_motion(models, Curve("0: 1.4")), context=context)
    assert relative(curve, number) < 1e-5
    assert relative(number, sample(models.unet, context=context)) > 1e-3
    rising = sample(with_motion(models, Curve("0: 1, -1: 1.4")), context=context)
    assert relative(rising, number) > 1e-4


def test_frames_without_effect_are_those_without_a_motion_module(models, still_models):
    still = sample(still_models.unet)
    none = sample(with_motion(models, effect=0.0))
    assert torch.allclose(none, still, atol=1e-5)
    rising = sample(with_motion(models, effect=RISING))
    assert torch.allclose(rising[0], still[0], atol=1e-5)
    assert relative(rising[4], still[4]) > 1e-2
    full = sample(with_motion(models, effect=Curve("0: 1")))
    assert torch.allclose(full, sample(models.unet), atol=1e-5)


def test_curves_and_compiled_layers_exclude_each_other(load, models):
    for unet in (load(RISING), load(FALLING), with_motion(models, effect=RISING)):
        with pytest.raises(AnimateDiffV2VError, match=r"^compile is on, and a LoRA or the motion"):
            sample(unet, speed=SpeedOptions(compile=True))


STEADY = [
    # All points lie before the first step, which a denoise of 0.5 takes at about 50%.
    (0.5, "0%: 9, 40%: 4", ["guidance_scale is '0%: 9, 40%: 4', but 4 in all steps, because"]),
    (0.5, "0%: 9, 90%: 4", []),
    (0.5, "0%: 9, 40%: 4, 90%: 4", ["but 4 in all steps"]),
    (0.5, "0%: 9, 40%: 4, 90%: 9, 100%: 4", []),
    (1.0, "0%: 9, 40%: 4", []),
    (0.5, "30%: 4", []),  # meant to be steady
    (0.5, "0: 9, 1: 4", []),  # along the frames
    (0.5, 4.0, []),
]


@pytest.mark.parametrize(("denoise", "scale", "wanted"), STEADY)
@pytest.mark.parametrize("steps", [8, 20])
def test_a_curve_that_only_changes_before_sampling_is_named(denoise, scale, wanted, steps):
    schedule = NoiseSchedule("sqrt_linear")
    scale = Curve(scale) if isinstance(scale, str) else scale
    guidance = Guidance(scale=scale)
    settings = SamplingSettings(seed=1, steps=steps, guidance=guidance, denoise=denoise)
    levels = CustomSampling().levels(schedule, settings, denoise)
    found = list(steady_curves(settings.strengths, schedule.share_at(levels[0])))
    assert len(found) == len(wanted)
    assert all(part in sentence for part, sentence in zip(wanted, found, strict=True))


def test_a_single_step_from_pure_noise_names_no_curve():
    """The curve would change with more steps, so the start is not the reason."""
    assert not list(steady_curves([("motion_scale", Curve("0%: 9, 40%: 4"))], 0.0))
