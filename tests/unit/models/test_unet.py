"""The UNet with motion modules against diffusers' plain UNet, at even and odd sizes."""

import copy

import pytest
import torch
from animatediff_v2v.pipeline.models.motion_module import TemporalTransformer
from animatediff_v2v.pipeline.models.ops.frame_norm import FrameSpanningGroupNorm
from animatediff_v2v.pipeline.models.unet import MotionUNet

from ..files import miniatures as mini

FRAMES = 3


def inputs(height, width, *, frames=FRAMES, channels=64):
    generator = torch.Generator().manual_seed(height * 100 + width)
    sample = torch.randn(frames, 4, height, width, generator=generator)
    context = torch.randn(frames, 77, channels, generator=generator)
    return sample, torch.tensor([481]), context


def silenced(unet):
    """Return a copy whose motion modules add nothing."""
    unet = copy.deepcopy(unet)
    for module in unet.modules():
        if isinstance(module, TemporalTransformer):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    return unet


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 13), (1, 1), (2, 16), (7, 8)], ids=str)
@pytest.mark.parametrize("motion", [True, False], ids=["silent motion modules", "none"])
@torch.inference_mode()
def test_without_motion_it_is_diffusers_unet_frame_by_frame(
    models, still_models, height, width, motion
):
    unet = silenced(models.unet) if motion else still_models.unet
    sample, timestep, context = inputs(height, width)
    noise = unet(sample, timestep, context, FRAMES)
    assert noise.shape == sample.shape
    theirs = mini.as_diffusers(still_models.unet.unet)
    for frame in range(FRAMES):
        one = slice(frame, frame + 1)
        expected = theirs(sample[one], timestep, encoder_hidden_states=context[one]).sample
        assert torch.allclose(noise[one], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_motion_modules_tie_frames_of_a_clip_together_and_no_others(models):
    sample, timestep, context = inputs(4, 4, frames=6)
    both = models.unet(sample, timestep, context, FRAMES)
    changed = sample.clone()
    changed[0] += 1
    again = models.unet(changed, timestep, context, FRAMES)
    assert not torch.allclose(both[2], again[2], atol=1e-4)
    assert torch.equal(both[FRAMES:], again[FRAMES:])


@torch.inference_mode()
def test_clips_in_a_batch_equal_clips_alone(models):
    sample, timestep, context = inputs(4, 6, frames=6)
    both = models.unet(sample, timestep, context, FRAMES)
    for clip in (slice(0, 3), slice(3, 6)):
        alone = models.unet(sample[clip], timestep, context[clip], FRAMES)
        assert torch.allclose(both[clip], alone, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_norm_over_the_clip_for_v1_modules(models):
    """With v1 modules frames share their norms even where motion modules are silent."""
    plain = silenced(models.unet)
    v1 = MotionUNet(copy.deepcopy(plain.unet), copy.deepcopy(plain.motion), family="v1")
    norms = [module for module in v1.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert norms and all(isinstance(norm, FrameSpanningGroupNorm) for norm in norms)
    sample, timestep, context = inputs(4, 4)
    one = slice(0, 1)
    together, alone = v1(sample, timestep, context, FRAMES), v1(sample, timestep, context, 1)
    assert not torch.allclose(together, alone, atol=1e-3)
    assert torch.allclose(
        alone[one], plain(sample[one], timestep, context[one], 1), rtol=1e-4, atol=1e-5
    )
    repeated = v1(sample[one].repeat(3, 1, 1, 1), timestep, context[one].repeat(3, 1, 1), FRAMES)
    assert torch.allclose(repeated[1:2], alone[one], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_motion_scale_one_is_as_trained_and_others_change_the_picture(models):
    sample, timestep, context = inputs(4, 4)
    unet = copy.deepcopy(models.unet)
    as_trained = models.unet(sample, timestep, context, FRAMES)
    unet.motion.set_motion_scale(1.0)
    assert torch.equal(unet(sample, timestep, context, FRAMES), as_trained)
    unet.motion.set_motion_scale(1.5)
    assert not torch.allclose(unet(sample, timestep, context, FRAMES), as_trained, atol=1e-4)


def test_it_tells_its_limits(models, still_models):
    assert models.unet.max_frames == 32
    assert still_models.unet.max_frames is None
    assert (models.unet.beta_schedule, still_models.unet.beta_schedule) == ("sqrt_linear", "linear")
    assert models.unet.device == torch.device("cpu") and models.unet.dtype == torch.float32
