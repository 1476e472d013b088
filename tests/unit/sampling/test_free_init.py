"""FreeInit: its filters against diffusers', its rounds, seeds, refusals."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import Conditioning, FreeInit, Guidance, SamplingSettings
from animatediff_v2v.pipeline.sampling.initial_noise import initial_noise
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.windows import ContextOptions
from diffusers.pipelines.free_init_utils import FreeInitMixin

from ..files import miniatures as mini
from .sampled import sample

SCALE = 0.18215


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 4, 6, 10), (5, 4, 7, 3), (1, 4, 8, 8)])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"filter": "butterworth"},
        {"filter": "butterworth", "order": 1, "spatial_stop": 0.6},
        {"filter": "ideal"},
        {"filter": "ideal", "spatial_stop": 0.4, "temporal_stop": 0.7},
        {"spatial_stop": 0.9, "temporal_stop": 0.1},
        {"temporal_stop": 0},
        {"spatial_stop": 0},
    ],
    ids=str,
)
def test_noise_is_mixed_as_in_diffusers(shape, given):
    options = FreeInit(**given)
    noised, fresh = draw(*shape, seed=1), draw(*shape, seed=2)
    video = [tensor.movedim(0, 1).unsqueeze(0) for tensor in (noised, fresh)]
    theirs, mixin = None, FreeInitMixin()
    low = mixin._get_free_init_freq_filter(
        video[0].shape,
        "cpu",
        options.filter,
        options.order,
        options.spatial_stop,
        options.temporal_stop,
    )
    theirs = mixin._apply_freq_filter(*video, low)[0].movedim(1, 0)
    assert torch.allclose(options.mixed(noised, fresh), theirs, atol=1e-5)


@pytest.fixture(scope="module")
def unet():
    return MotionUNet(mini.unet_module().eval().requires_grad_(False), None)


def sampled(unet, **options):
    prompts = Conditioning.of(draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2))
    usual = {"guidance": Guidance(scale=1.0), "steps": 1, "denoise": 0.7}
    return sample(unet, draw(6, 4, 8, 8), prompts, **usual | options)


def test_each_round_begins_with_the_renewed_noise(unet, monkeypatch):
    """A round is the run without FreeInit whose noise is the one before's, renewed."""
    from animatediff_v2v.pipeline.sampling import sample as module

    options = FreeInit(iterations=3, filter="butterworth")
    result, plain = sampled(unet, free_init=options), sampled(unet)
    like, context = draw(6, 4, 8, 8), ContextOptions(length=6, overlap=0)
    sigma = NoiseSchedule("linear").sigma_max / SCALE
    noises = [initial_noise(like, seed=seed, context=context) for seed in (5, 6, 7)]
    noise = noises[0]
    for index in range(3):
        monkeypatch.setattr(module, "initial_noise", lambda *_, given=noise, **__: given)
        round_alone = sampled(unet)
        if index < 2:
            noised = (round_alone + noise * sigma) / (sigma**2 + 1) ** 0.5
            noise = options.mixed(noised, noises[index + 1])
    assert torch.allclose(result, round_alone, atol=1e-4)
    assert not torch.allclose(result, plain, atol=1e-2)


def test_one_round_is_none_and_progress_covers_all(unet):
    assert torch.equal(sampled(unet, free_init=FreeInit(iterations=1)), sampled(unet))
    seen = []
    sampled(unet, free_init=FreeInit(), progress=seen.append, seed=2**64 - 1)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert any(0.4 < fraction < 0.6 for fraction in fractions)
    rounds = dict.fromkeys(step.message.partition(", ")[2] for step in seen)
    assert list(rounds) == [f"round {number} of 2" for number in (1, 2)]
    assert SamplingSettings(seed=1, steps=4, free_init=FreeInit(iterations=3)).passes == 24


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"iterations": 0}, "free_init iterations is 0; it must be from 1 to 100"),
        ({"filter": "box"}, "free_init filter is 'box'; it can be gaussian, butterworth"),
        ({"spatial_stop": 2}, "free_init spatial_stop is 2; it must be from 0 to 1"),
        ({"order": 0}, "free_init order is 0; it must be from 1"),
    ],
)
def test_wrong_values_are_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        FreeInit(**values)
    assert sentence in str(caught.value)


def test_it_does_not_go_with_unsampling():
    with pytest.raises(AnimateDiffV2VError, match="leave one of them out"):
        SamplingSettings(seed=1, noise_type="unsample", free_init=FreeInit())
