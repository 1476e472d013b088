"""Reused deep features: their values, their windows, and their memory."""

import copy
import logging

import pytest
import torch
from animatediff_v2v.pipeline.errors import Cancelled
from animatediff_v2v.pipeline.models import batching as memory
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.feature_cache import (
    OUTERMOST_LAYERS,
    DeepFeatures,
    FeatureCache,
)
from animatediff_v2v.pipeline.models.last_result import LastResult
from animatediff_v2v.pipeline.models.residuals import Residuals
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    SpeedOptions,
)
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.windows import context_windows
from safetensors.torch import save_file

from ..files import miniatures as mini
from . import sampled

SCHEDULE = NoiseSchedule("sqrt_linear")
EVERY_2ND, EVERY_3RD = (SpeedOptions(deep_cache_interval=n) for n in (2, 3))
WINDOWS = ContextOptions(length=4, overlap=2)
PROMPTS = Conditioning.of(torch.ones(1, 77, 8), torch.zeros(1, 77, 8))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load(tensors, folder):
    path = folder / "control.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return load_control_network(path, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def unets(models, still_models):
    """One layer a block with and without motion, as v1 has it, and two layers a block."""
    spatial, motion = copy.deepcopy(models.unet.unet), copy.deepcopy(models.unet.motion)
    deeper = mini.unet_module((32, 64), 2).eval().requires_grad_(False)
    return {
        "v2": models.unet,
        "v1": MotionUNet(spatial, motion, family="v1"),
        "still": still_models.unet,
        "two layers": MotionUNet(deeper, None),
    }


def inputs(unet, *, frames=3, height=6, width=5, seed=0):
    channels = unet.unet.config.cross_attention_dim
    return (
        draw(frames, 4, height, width, seed=seed),
        torch.tensor([481]),
        draw(frames, 77, channels, seed=1),
        frames,
    )


def residuals_of(unet, arguments, kind):
    """Residuals in the shapes that the UNet takes."""
    if kind == "none":
        return Residuals()
    module = mini.control_module(
        tuple(unet.unet.config.block_out_channels),
        unet.unet.config.layers_per_block,
        cross=unet.unet.config.cross_attention_dim,
    ).eval()
    sample, timestep, context, _ = arguments
    height, width = sample.shape[-2:]
    hint = draw(len(sample), 3, 8 * height, 8 * width, seed=4)
    skips, middle = module(sample, timestep, context, hint, return_dict=False)
    return Residuals(skips, middle)


@pytest.mark.parametrize("family", ["v2", "v1", "still", "two layers"])
@pytest.mark.parametrize("kind", ["none", "controlnet"])
@torch.inference_mode()
def test_with_the_features_of_the_same_pass_nothing_changes(family, kind, unets):
    unet = unets[family]
    arguments = inputs(unet)
    residuals = residuals_of(unet, arguments, kind)
    whole = unet(*arguments, residuals=residuals)
    found = DeepFeatures()
    assert torch.equal(unet(*arguments, residuals=residuals, deep=found), whole)
    first = Residuals(residuals.skips[:OUTERMOST_LAYERS])
    again = unet(*arguments, residuals=first, deep=DeepFeatures(found.features))
    assert torch.equal(again, whole)


@torch.inference_mode()
def test_reusing_runs_the_outermost_layers_alone(unets):
    unet = unets["two layers"]
    found, ran = DeepFeatures(), []
    unet(*inputs(unet), deep=found)
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in unet.unet.named_modules()
        if name.endswith(".conv1")
    ]
    unet(*inputs(unet, seed=9), deep=DeepFeatures(found.features))
    for hook in hooks:
        hook.remove()
    assert ran == [
        "down_blocks.0.resnets.0.conv1",
        "up_blocks.1.resnets.1.conv1",
        "up_blocks.1.resnets.2.conv1",
    ]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@torch.inference_mode()
def test_a_controlnets_first_residuals_are_those_of_all(pooled, layers, tmp_path):
    tensors = mini.state(mini.control_module((32, 64), layers))
    network = load(tensors, tmp_path)
    network._global_pooling = pooled
    arguments = draw(2, 4, 6, 5), torch.tensor([300]), draw(2, 7, mini.CROSS), draw(2, 3, 48, 40)
    whole, first = network(*arguments), network(*arguments, OUTERMOST_LAYERS)
    assert first.middle is None and len(first.skips) == OUTERMOST_LAYERS < len(whole.skips)
    for ours, expected in zip(first.skips, whole.skips, strict=False):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)


class Pretended:
    """Noise of a deep part, which is kept, and of an outer one; to the bit whatever the batch."""

    dtype = torch.float32

    def __init__(self, device=None):
        self.device = device or torch.device("cpu")
        self.passes = []

    def __call__(self, sample, timestep, context, num_frames, *, deep=None, **_others):
        each_row = context.repeat_interleave(len(sample) // len(context), dim=0)
        prompt = each_row.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        time = float(timestep) / 1000
        features = torch.sin(3 * sample + prompt) + time
        if deep is not None:
            features = deep.in_place_of(features)
        is_whole = deep is None or not deep.are_given
        self.passes += [is_whole] * (len(sample) // num_frames)
        return features * 0.5 + sample * (1 - time)


class Accelerator(str):
    """A device that torch treats as the CPU and the pack as an accelerator."""

    type = "accelerator"


def guided(unet, cache, **options):
    defaults = {
        "schedule": SCHEDULE,
        "conditioning": PROMPTS,
        "guidance": Guidance(scale=7.0),
        "context": WINDOWS,
        "on_passes": lambda _share: None,
    }
    return GuidedModel(unet, cache=cache, **defaults | options)


def calls(unet, cache, count=5, frames=10, **options):
    """Denoise a clip at falling levels; return each call's result."""
    model = guided(unet, cache, **options)
    noisy = draw(frames, 4, 2, 3) * 3
    return [model(noisy, SCHEDULE.sigmas[900 - 80 * step], step) for step in range(count)]


def test_the_calls_between_whole_ones_reuse_the_features_of_their_own_window_and_prompt():
    noisy = draw(10, 4, 2, 3) * 3
    track = PromptTrack(draw(2, 77, 8, seed=5), (0, 9))
    prompts = Conditioning(track, PromptTrack(torch.zeros(1, 77, 8)))
    model = guided(Pretended(), FeatureCache(interval=2), conditioning=prompts)
    sigmas = SCHEDULE.sigmas[700], SCHEDULE.sigmas[600]
    model(noisy, sigmas[0], 0)
    denoised = model(noisy, sigmas[1], 1)
    # Frame by frame, for this network knows no other frames.
    scale = [(sigma**2 + 1).sqrt() for sigma in sigmas]
    noise = 0
    for prompt, factor in ((track.at(range(10)), 7.0), (torch.zeros(10, 77, 8), -6.0)):
        level = prompt.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        deep = torch.sin(3 * noisy / scale[0] + level) + 0.7
        noise = noise + factor * (deep * 0.5 + noisy / scale[1] * (1 - 0.6))
    assert torch.allclose(denoised, noisy - sigmas[1] * noise, atol=0.05)
    exact = guided(Pretended(), None, conditioning=prompts)(noisy, sigmas[1], 1)
    assert not torch.allclose(denoised, exact, atol=0.5)


@pytest.mark.parametrize(
    ("interval", "whole"),
    [(1, [True] * 5), (2, [True, False] * 2 + [True]), (3, [True, False, False, True, False])],
)
def test_every_nth_call_is_whole(interval, whole):
    unet = Pretended()
    calls(unet, FeatureCache(interval=interval))
    per_call = 2 * len(context_windows(10, WINDOWS))
    assert unet.passes == [each for each in whole for _ in range(per_call)]


@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform"])
@pytest.mark.parametrize("size", [2, 3, 64])
def test_bits_do_not_depend_on_the_sizes_of_passes(interval, schedule, size, monkeypatch):
    options = {"context": ContextOptions(length=4, overlap=2, schedule=schedule), "frames": 13}
    monkeypatch.setattr(memory, "PASSES_AT_ONCE", 1)
    alone = calls(Pretended(), FeatureCache(interval=interval), **options)
    monkeypatch.setattr(memory, "PASSES_AT_ONCE", size)
    unet = Pretended(Accelerator("cpu"))
    together = calls(unet, FeatureCache(interval=interval), **options)
    assert not all(unet.passes)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_windows_that_move_stay_until_the_next_whole_call():
    context = ContextOptions(length=4, overlap=2, schedule="standard_uniform")
    assert context_windows(13, context, step=0) != context_windows(13, context, step=1)
    unet = Pretended()
    calls(unet, FeatureCache(interval=2), count=4, frames=13, context=context)
    counts = [2 * len(context_windows(13, context, step=step)) for step in (0, 0, 2, 2)]
    expected = [
        is_whole
        for is_whole, count in zip([True, False] * 2, counts, strict=True)
        for _ in range(count)
    ]
    assert unet.passes == expected


# Time steps of the calls with interval 2, and those whose features the reused ones equal if the
# features are linear in the time step.
MOVED_ON = {
    "even steps": ([900, 850, 800, 750, 700, 650], [900, 750, 650]),
    "uneven steps": ([900, 850, 800, 710, 690, 680], [900, 710, 680]),
    "two calls at each step": ([900, 800, 800, 700, 700, 600], [900, 700, 600]),
    "whole calls at the same step": ([900, 900, 900, 800], [900, 900]),
    "a jump further than the change": ([900, 850, 800, 600], [900, 700]),
    "back to an earlier step": ([900, 850, 800, 820], [900, 800]),
}


@pytest.mark.parametrize("case", MOVED_ON)
def test_reused_features_move_on_as_they_changed(case):
    timesteps, expected = MOVED_ON[case]
    cache, key = FeatureCache(interval=2), ((0, 1), False)
    like, slope = torch.zeros(1), draw(2, 3, 4, 5)
    reused = []
    for number, timestep in enumerate(timesteps):
        cache.begin_call(number, timestep)
        deep = cache.for_passes([key], like=like, are_whole=number % 2 == 0)
        if deep.are_given:
            reused.append(deep.features)
        else:
            deep.in_place_of(1 + slope * timestep / 1000)
            cache.keep([key], deep)
    for features, timestep in zip(reused, expected, strict=True):
        assert torch.allclose(features, 1 + slope * timestep / 1000, atol=4e-3)


def test_a_window_that_was_not_kept_before_is_reused_as_it_is():
    cache, keys = FeatureCache(interval=2), [((0, 1), False), ((2, 3), False)]
    features = draw(4, 3, 4, 5)
    for number, known in enumerate((keys[:1], [], keys)):
        cache.begin_call(number, 900 - 100 * number)
        cache.keep(known, DeepFeatures() if not known else _slot(features[: 2 * len(known)]))
    cache.begin_call(3, 600)
    deep = cache.for_passes(keys, like=torch.zeros(1), are_whole=False)
    assert torch.allclose(deep.features, features, atol=4e-3)


def test_both_sides_of_a_window_move_on_or_neither():
    """When guidance begins, there is no earlier negative side to move on from."""
    cache, sides = FeatureCache(interval=2), [((0, 1), False), ((0, 1), True)]
    first, second = draw(2, 3, 4, 5), draw(4, 3, 4, 5, seed=1)
    for number, (known, features) in enumerate(((sides[:1], first), ([], None), (sides, second))):
        cache.begin_call(number, 900 - 100 * number)
        cache.keep(known, _slot(features) if known else DeepFeatures())
    cache.begin_call(3, 600)
    deep = cache.for_passes(sides, like=torch.zeros(1), are_whole=False)
    assert torch.allclose(deep.features, second, atol=4e-3)


def _slot(features):
    deep = DeepFeatures()
    deep.in_place_of(features)
    return deep


@pytest.mark.parametrize("frames", [10, 40, 400])
def test_no_more_is_kept_than_there_is_room_for(frames, caplog):
    bytes_of_a_pass = 4 * 4 * 2 * 3 * 2
    cache = FeatureCache(interval=2, max_bytes=10 * bytes_of_a_pass)
    unet = Pretended()
    with caplog.at_level(logging.WARNING):
        calls(unet, cache, count=4, frames=frames)
    kept = [*cache._kept.values(), *cache._before.values()]
    assert sum(each.untyped_storage().nbytes() for each in kept) <= 10 * bytes_of_a_pass
    # Both passes of a window or none are kept, so there is no room for the fifth pass.
    assert len(kept) == 2 * 4
    second = unet.passes[len(unet.passes) // 4 : len(unet.passes) // 2]
    assert second == [False] * 4 + [True] * (len(second) - 4)
    (record,) = caplog.records
    assert "the others are computed whole in every step" in record.getMessage()


def test_a_window_whose_negative_side_comes_later_is_computed_whole():
    unet = Pretended()
    # Guidance begins in a call that would reuse; the one after it does.
    calls(unet, FeatureCache(interval=3), count=3, guidance=Guidance(scale=7.0, start=0.15))
    windows = len(context_windows(10, WINDOWS))
    assert unet.passes == [True] * windows + [True] * 2 * windows + [False] * 2 * windows


def sample(unet, conditioning=PROMPTS, *, frames=6, **options):
    defaults = {"steps": 4, "context": WINDOWS}
    return sampled.sample(unet, draw(frames, 4, 3, 2), conditioning, **defaults | options)


@pytest.fixture(scope="module")
def conditioning(models):
    return Conditioning.of(models.text_encoder.encode("a ball"), models.text_encoder.encode("ugly"))


def test_options_that_are_off_change_no_bit(models, conditioning):
    exact = sample(models.unet, conditioning)
    assert torch.equal(sample(models.unet, conditioning, speed=SpeedOptions()), exact)
    every = SpeedOptions(deep_cache_interval=1)
    assert torch.equal(sample(models.unet, conditioning, speed=every), exact)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("speed", [EVERY_2ND, EVERY_3RD])
def test_reuse_stays_near_and_gives_the_same_bits_again(sampler, speed, models, conditioning):
    options = {"sampler": sampler, "steps": 6}
    exact = sample(models.unet, conditioning, **options)
    reused = sample(models.unet, conditioning, speed=speed, **options)
    assert not torch.equal(reused, exact) and bool(reused.isfinite().all())
    assert (reused - exact).norm() < exact.norm()
    sample(models.unet, conditioning, seed=6, speed=EVERY_3RD)
    assert torch.equal(sample(models.unet, conditioning, speed=speed, **options), reused)


def test_with_a_controlnet_only_its_first_layers_run_in_between(models, conditioning, tmp_path):
    config = models.unet.unet.config
    module = mini.control_module(
        tuple(config.block_out_channels), config.layers_per_block, cross=config.cross_attention_dim
    )
    network = load(mini.state(module), tmp_path)
    ran = []
    network.network.controlnet_mid_block.register_forward_hook(lambda *_: ran.append("whole"))
    frames = torch.rand(6, 24, 16, 3, generator=torch.Generator().manual_seed(1))
    control = Control(network=network, frames=frames)
    options = {"guidance": Guidance(scale=1.0), "context": None, "controls": [control]}
    with_control = sample(models.unet, conditioning, speed=EVERY_2ND, **options)
    assert len(ran) == 2  # of four steps
    without = sample(models.unet, conditioning, speed=EVERY_2ND, **options | {"controls": []})
    assert not torch.allclose(with_control, without, atol=1e-2)


@pytest.mark.parametrize("asked_before", [1, 4, 9])
def test_a_cancelled_job_leaves_nothing_behind(asked_before, models, conditioning):
    exact = sample(models.unet, conditioning)
    reused = sample(models.unet, conditioning, speed=EVERY_2ND)
    left = iter(range(asked_before))
    with pytest.raises(Cancelled):
        sample(
            models.unet,
            conditioning,
            seed=9,
            speed=EVERY_2ND,
            is_cancelled=lambda: next(left, None) is None,
        )
    assert torch.equal(sample(models.unet, conditioning, speed=EVERY_2ND), reused)
    assert torch.equal(sample(models.unet, conditioning), exact)


def test_unsampling_stays_exact(models, conditioning):
    """Its result is also reused by jobs without feature reuse."""
    remembered, options = LastResult(), {"noise_type": "unsample", "denoise": 0.8}
    sample(models.unet, conditioning, unsampled_latents=remembered, speed=EVERY_3RD, **options)
    after = sample(models.unet, conditioning, unsampled_latents=remembered, **options)
    assert torch.equal(after, sample(models.unet, conditioning, **options))
