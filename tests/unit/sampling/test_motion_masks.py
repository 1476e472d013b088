"""Motion modules that act more or less from pixel to pixel."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.memory.copies import copy_to
from animatediff_v2v.pipeline.models import FrameMask, MotionMasks
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.pass_strengths import RowStrength
from animatediff_v2v.pipeline.sampling import SamplingSettings, SpeedOptions, sample_latents
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.passes import Execution
from animatediff_v2v.pipeline.sampling.tiles import TiledModel

from ..models.test_motion_module import drawn
from .test_frame_strengths import FRAMES, PROMPTS, SOURCE, WINDOWS, relative, sample, with_motion

CPU = torch.device("cpu")


def grey(level, frames=1):
    return torch.full((frames, 8, 8), level)


def along(*levels):
    return torch.tensor(levels).view(-1, 1, 1).expand(-1, 3, 5)


def masked(models, scale=1.0, effect=1.0, *, scale_mask=None, effect_mask=None):
    unet = with_motion(models, scale, effect)
    unet.motion.set_masks(MotionMasks.of(scale_mask, effect_mask))
    return unet


def test_a_mask_multiplies_the_scale_and_the_effect(models):
    options = {"context": WINDOWS, "steps": 1}
    plain = sample(models.unet, **options)
    white = masked(models, scale_mask=grey(1.0), effect_mask=grey(1.0, FRAMES))
    assert relative(sample(white, **options), plain) < 1e-5
    cases = (
        (masked(models, 2.8, scale_mask=grey(0.5)), with_motion(models, 1.4)),
        (masked(models, effect=0.8, effect_mask=grey(0.5)), with_motion(models, effect=0.4)),
        (
            masked(models, Curve("0: 3, -1: 1"), scale_mask=grey(0.5)),
            with_motion(models, Curve("0: 1.5, -1: 0.5")),
        ),
    )
    for unet, same in cases:
        expected = sample(same, **options)
        assert relative(sample(unet, **options), expected) < 1e-5
        assert relative(expected, plain) > 1e-4


def test_a_mask_of_each_frame_is_a_curve(models):
    levels = along(0.0, 0.25, 0.5, 0.75, 1.0)
    rising = Curve("0: 0, -1: 1")
    for name in ("scale", "effect"):
        options = {"context": WINDOWS, "steps": 1}
        expected = sample(with_motion(models, **{name: rising}), **options)
        found = masked(models, **{f"{name}_mask": levels})
        assert relative(sample(found, **options), expected) < 1e-5


def test_nothing_moves_where_the_effect_is_black(models, still_models):
    black = sample(masked(models, effect_mask=grey(0.0)))
    assert torch.allclose(black, sample(still_models.unet), atol=1e-5)


@torch.inference_mode()
def test_each_pixel_has_the_scale_and_effect_of_its_own():
    """A pixel attends to itself in other frames alone, so it is that of a whole grey mask."""
    motion = drawn(
        MotionModules(block_channels=(32,), layers_per_block=1, max_frames=8, mid=False), seed=3
    )
    for name, table in motion.named_buffers():
        assert name.endswith(".pe")
        table.zero_()
    features = torch.randn(4, 32, 2, 6, generator=torch.Generator().manual_seed(1))
    module = motion.down_blocks[0].motion_modules[0]

    def moved(mask, tokens_at_once=None):
        motion.set_masks(MotionMasks.of(mask, None))
        strength = RowStrength(torch.ones(4), motion.masks.scale, range(4))
        with motion.scaled_by(strength, features):
            return module(features, 4, tokens_at_once)

    half = torch.ones(4, 2, 6)
    half[:, :, :3] = 0.3
    found = moved(half)
    assert torch.allclose(found[..., :3], moved(grey(0.3))[..., :3], atol=1e-5)
    assert torch.allclose(found[..., 3:], moved(grey(1.0))[..., 3:], atol=1e-5)
    assert not torch.allclose(found[..., :3], moved(grey(1.0))[..., :3], atol=1e-2)
    assert torch.allclose(moved(half, tokens_at_once=8), found, atol=1e-5)


def test_several_devices_give_the_same(models):
    mask = torch.rand(FRAMES, 16, 16, generator=torch.Generator().manual_seed(2))
    unet = masked(models, 1.3, scale_mask=mask, effect_mask=1 - mask)
    settings = SamplingSettings(seed=5, steps=1, denoise=1.0, context=WINDOWS)
    execution = Execution((copy_to(unet, CPU),))

    def two(*args, **given):
        return GuidedModel(*args, execution=execution, **given)

    expected, found = (
        sample_latents(unet, SOURCE, PROMPTS, settings, make_guided=make)
        for make in (GuidedModel, two)
    )
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.zeros(0, 8, 8), r"motion_effect_mask has the shape \[0, 8, 8\]; it must be \[masks"),
        (torch.zeros(8, 8), r"has the shape \[8, 8\]"),
        (grey(1.5), "has values from 1.5 to 1.5; they must be from 0 to 1"),
        (grey(float("nan")), "has values from nan to nan"),
    ],
)
def test_what_is_no_mask_is_refused(mask, sentence):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        MotionMasks.of(None, mask)


def test_masks_of_another_count_are_refused_before_sampling(models):
    sentence = "motion_scale_mask has 3 masks for 5 frames: give one for each frame, or one for all"
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        sample(masked(models, scale_mask=grey(1.0, 3)))


def test_masks_exclude_compiled_layers_and_tiles(models):
    unet = masked(models, effect_mask=grey(0.5))
    with pytest.raises(AnimateDiffV2VError, match="compile is on, and a LoRA or the motion module"):
        sample(unet, speed=SpeedOptions(compile=True))
    with pytest.raises(AnimateDiffV2VError, match="cannot be cut into tiles"):
        TiledModel(unet, tile=(8, 8), on_passes=lambda _share: None)


def test_equal_masks_have_equal_digests():
    """By which networks that are loaded already are found."""
    one, same, other = (MotionMasks.of(None, grey(level)) for level in (0.5, 0.5, 0.6))
    assert one.digests == same.digests != other.digests
    assert MotionMasks.of(grey(0.5), None).digests != one.digests
    assert MotionMasks.of(None, grey(0.5, 2)).digests != one.digests


def test_masks_are_interpolated_to_the_size_of_a_layer():
    """The value of the middle of each pixel, between the nearest four."""
    mask = FrameMask("mask", torch.tensor([[[0.0, 1.0, 0.0, 0.5]]]))
    assert mask.of([0], 1, 2).flatten().tolist() == [0.5, 0.25]
    assert mask.of([0, 0], 1, 4).flatten().tolist() == [0.0, 1.0, 0.0, 0.5]
