"""ControlNets: their maths against diffusers', windows, spans, masks, chains, refusals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models import controlnet as controlnet_module
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.ops.select import EAGER_OPS
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Span,
)
from animatediff_v2v.pipeline.sampling.control import fitted
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from diffusers import ControlNetModel
from safetensors.torch import save_file

from ..files import miniatures as mini
from .sampled import sample

SCHEDULE = NoiseSchedule("linear")
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
CHANNELS, LAYERS = (32, 64), 2
FRAMES, HEIGHT, WIDTH = 6, 6, 5


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(frames, seed=0, height=8 * HEIGHT, width=8 * WIDTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(frames, height, width, 3, generator=generator)


@pytest.fixture(scope="module")
def unet():
    """A plain UNet of diffusers, and a MotionUNet with the same weights."""
    return MotionUNet(mini.unet_module(CHANNELS, LAYERS).eval().requires_grad_(False), None)


def load(folder, tensors, name="control.safetensors"):
    path = folder / name
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return load_control_network(path, **CPU)


@pytest.fixture(scope="module")
def controlnet(tmp_path_factory):
    tensors = mini.control_to_ldm(mini.state(mini.control_module(CHANNELS, LAYERS)), LAYERS)
    return load(tmp_path_factory.mktemp("control"), tensors)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return load(tmp_path_factory.mktemp("adapter"), mini.adapter_to_original())


def guided(unet, controls, **options):
    prompts = Conditioning.of(draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2))
    defaults = {
        "schedule": SCHEDULE,
        "conditioning": prompts,
        "guidance": Guidance(scale=1.0),
        "context": ContextOptions(length=FRAMES, overlap=0),
        "on_passes": lambda _share: None,
    }
    return GuidedModel(unet, controls=controls, **defaults | options)


def noise_by_diffusers(unet, sigma, sample, prompt, *, strength=1.0, frames, network):
    """Use diffusers' own ControlNetModel or T2IAdapter in front of its own UNet."""
    rows = len(sample)
    sample = sample / (sigma**2 + 1).sqrt()
    timestep = SCHEDULE.timestep(sigma)
    context = prompt.expand(rows, -1, -1)
    hint = frames.movedim(-1, 1)
    if isinstance(network, ControlNetModel):
        down, middle = network(
            sample, timestep, context, hint, conditioning_scale=strength, return_dict=False
        )
        extra = {
            "down_block_additional_residuals": down,
            "mid_block_additional_residual": middle,
        }
    else:
        features = [feature * strength for feature in network(hint)]
        extra = {"down_intrablock_additional_residuals": features}
    return unet(sample, timestep, context, **extra, return_dict=False)[0]


@pytest.mark.parametrize("strength", [1.0, 0.35, 1.8])
@pytest.mark.parametrize("index", [0, 400, 999])
def test_equals_diffusers_controlnet(unet, controlnet, strength, index):
    sigma, noisy, frames = SCHEDULE.sigmas[index], draw(FRAMES, 4, HEIGHT, WIDTH), pictures(FRAMES)
    control = Control(network=controlnet, frames=frames, strength=strength)
    denoised = guided(unet, [control])(noisy, sigma, 0)
    with torch.no_grad():
        noise = noise_by_diffusers(
            unet.unet,
            sigma,
            noisy,
            draw(1, 7, mini.CROSS, seed=1),
            strength=strength,
            frames=frames,
            network=mini.control_module(CHANNELS, LAYERS).eval(),
        )
    ours = (noisy - denoised) / sigma
    assert (ours - noise).norm() / noise.norm() < 1e-5
    plain = (noisy - guided(unet, [])(noisy, sigma, 0)) / sigma
    assert (plain - noise).norm() / noise.norm() > 0.01, "the ControlNet does nothing"


@pytest.mark.parametrize("is_fused", [False, True])
@torch.inference_mode()
def test_a_controlnet_s_layers_are_those_of_the_device(controlnet, is_fused, monkeypatch):
    """With plain layers the residuals are diffusers' to the bit; others replace every layer."""
    run: list[str] = []

    def noted(name):
        def operation(*given):
            run.append(name)
            return getattr(EAGER_OPS, name)(*given)

        return operation

    others = replace(EAGER_OPS, resnet=noted("resnet"), transformer=noted("transformer"))
    monkeypatch.setattr(
        controlnet_module, "default_ops", lambda *_: others if is_fused else EAGER_OPS
    )
    sample, timestep = draw(FRAMES, 4, HEIGHT, WIDTH), torch.tensor([500])
    context = draw(1, 7, mini.CROSS, seed=1).expand(FRAMES, -1, -1)
    frames = pictures(FRAMES).movedim(-1, 1)
    ours = controlnet(sample, timestep, context, frames)
    skips, middle = mini.control_module(CHANNELS, LAYERS).eval()(
        sample, timestep, context, controlnet_cond=frames, return_dict=False
    )
    for one, other in zip([*ours.skips, ours.middle], [*skips, middle], strict=True):
        assert (one - other).norm() <= (1e-5 * other.norm() if is_fused else 0)
    blocks = [*controlnet.network.down_blocks, controlnet.network.mid_block]
    expected = {
        "resnet": sum(len(block.resnets) for block in blocks),
        "transformer": sum(len(getattr(block, "attentions", ()) or ()) for block in blocks),
    }
    assert Counter(run) == (expected if is_fused else {})


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_equals_diffusers_t2i_adapter(adapter, strength):
    # In a last level without attention diffusers leaves the skip connection without the feature.
    whole = mini.unet_module(CHANNELS, 1, (True, True)).eval()
    sigma, noisy, frames = SCHEDULE.sigmas[500], draw(FRAMES, 4, HEIGHT, WIDTH), pictures(FRAMES)
    control = Control(network=adapter, frames=frames, strength=strength)
    denoised = guided(MotionUNet(whole, None), [control])(noisy, sigma, 0)
    with torch.no_grad():
        noise = noise_by_diffusers(
            whole,
            sigma,
            noisy,
            draw(1, 7, mini.CROSS, seed=1),
            strength=strength,
            frames=frames,
            network=mini.adapter_module().eval(),
        )
    assert ((noisy - denoised) / sigma - noise).norm() / noise.norm() < 1e-5


def test_both_prompts_are_guided(unet, controlnet):
    """Guided noise is that of two single passes, each with the ControlNet."""
    sigma, noisy = SCHEDULE.sigmas[700], draw(FRAMES, 4, HEIGHT, WIDTH)
    controls = [Control(network=controlnet, frames=pictures(FRAMES))]
    positive, negative = draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2)

    def denoised(first, second, scale):
        model = guided(
            unet,
            controls,
            conditioning=Conditioning.of(first, second),
            guidance=Guidance(scale=scale),
        )
        return model(noisy, sigma, 0)

    both = denoised(positive, negative, 3.0)
    alone = [denoised(prompt, prompt, 1.0) for prompt in (positive, negative)]
    assert torch.allclose(both, alone[1] + 3 * (alone[0] - alone[1]), atol=1e-3)


WINDOWS = [
    ContextOptions(length=4, overlap=2),
    ContextOptions(length=4, overlap=1, schedule="standard_uniform"),
    ContextOptions(length=5, overlap=0, schedule="batched"),
]


@pytest.mark.parametrize("context", WINDOWS)
def test_each_window_has_its_own_frames(models, context, controlnet_of_models):
    """A frame's result is the average of its windows' results when each is run alone."""
    from animatediff_v2v.pipeline.sampling.windows import context_windows, window_weights

    frames, sigma, step = 11, SCHEDULE.sigmas[600], 1
    noisy, hints = draw(frames, 4, HEIGHT, WIDTH), pictures(frames)
    masks = torch.rand(frames, 8, 8, generator=torch.Generator().manual_seed(3))
    prompts = Conditioning.of(draw(1, 77, 64, seed=1), draw(1, 77, 64, seed=2))

    def run(noisy, hints, masks, context):
        control = Control(network=controlnet_of_models, frames=hints, mask=masks)
        model = guided(
            models.unet,
            [control],
            conditioning=prompts,
            guidance=Guidance(scale=2.0),
            context=context,
        )
        return model(noisy, sigma, step)

    total, counts = torch.zeros_like(noisy), torch.zeros(frames, 1, 1, 1)
    for window in context_windows(frames, context, step=step):
        alone = ContextOptions(length=len(window), overlap=0)
        weights = window_weights(window, frames, context).view(-1, 1, 1, 1)
        total[window] += weights * run(noisy[window], hints[window], masks[window], alone)
        counts[window] += weights
    together = run(noisy, hints, masks, context)
    assert torch.allclose(together, total / counts, atol=1e-4)
    shifted = run(noisy, hints.roll(1, 0), masks, context)
    assert not torch.allclose(together, shifted, atol=1e-2), "the frames do not matter"


@pytest.fixture(scope="module")
def controlnet_of_models(models, tmp_path_factory):
    """A ControlNet for the tiny model of the demo, in diffusers' layout."""
    config = models.unet.unet.config
    module = mini.control_module(
        tuple(config.block_out_channels), config.layers_per_block, cross=config.cross_attention_dim
    )
    return load(tmp_path_factory.mktemp("control"), mini.state(module))


def test_several_add_up_and_none_is_none(unet, controlnet):
    sigma, noisy = SCHEDULE.sigmas[500], draw(FRAMES, 4, HEIGHT, WIDTH)
    frames = pictures(FRAMES)

    def run(*controls):
        return guided(unet, controls)(noisy, sigma, 0)

    halves = [Control(network=controlnet, frames=frames, strength=0.5) for _ in range(2)]
    whole = Control(network=controlnet, frames=frames)
    assert torch.allclose(run(*halves), run(whole), atol=1e-4)
    idle = Control(network=controlnet, frames=frames, strength=0)
    assert torch.equal(run(idle), run())
    black = Control(network=controlnet, frames=frames, mask=torch.zeros(1, 4, 4))
    white = Control(network=controlnet, frames=frames, mask=torch.ones(FRAMES, 9, 7))
    assert torch.equal(run(black), run())
    assert torch.allclose(run(white), run(whole), atol=1e-4)


def test_a_mask_confines_a_residual(controlnet):
    sample, context = draw(2, 4, 8, 8), draw(2, 7, mini.CROSS, seed=1)
    left = torch.zeros(2, 8, 8)
    left[0, :, :4] = 1
    frames = pictures(2, height=64, width=64)
    arguments = (sample, torch.tensor([500]), context, [[0, 1]])
    masked = Control(network=controlnet, frames=frames, mask=left).residuals(*arguments)
    plain = Control(network=controlnet, frames=frames).residuals(*arguments)
    assert torch.equal(masked.skips[0][0, :, :, :4], plain.skips[0][0, :, :, :4])
    assert masked.skips[0][0, :, :, 4:].abs().max() == 0
    assert masked.skips[0][1].abs().max() == 0
    assert masked.middle[1].abs().max() == 0


def test_one_frame_serves_for_all_and_the_last_for_the_rest(unet, controlnet):
    noisy, sigma, frames = draw(FRAMES, 4, HEIGHT, WIDTH), SCHEDULE.sigmas[300], pictures(FRAMES)

    def run(frames, **options):
        control = Control(network=controlnet, frames=frames, **options)
        control.check_fits(unet, noisy)
        return guided(unet, [control])(noisy, sigma, 0)

    assert torch.equal(run(frames[:1]), run(frames[:1].expand(FRAMES, -1, -1, -1)))
    repeated = torch.cat([frames[:4], frames[3:4], frames[3:4]])
    assert torch.equal(run(frames[:4], repeat_last=True), run(repeated))


SPANS = [
    (0.0, 1.0, [999, 800, 500, 200, 0]),
    (0.0, 0.5, [999, 800, 500]),
    (0.25, 1.0, [500, 200, 0]),
    (0.25, 0.75, [500]),
    (0.0, 0.0, []),
    (1.0, 1.0, []),
]


@pytest.mark.parametrize(("start", "end", "acting"), SPANS)
@pytest.mark.parametrize("beta_schedule", ["linear", "sqrt_linear", "lcm"])
def test_spans_count_training_steps(start, end, acting, beta_schedule):
    schedule = NoiseSchedule(beta_schedule)
    found = [
        step
        for step in (999, 800, 500, 200, 0)
        if Span(start, end).contains(schedule.sigma(torch.tensor(float(step))), schedule)
    ]
    assert found == acting


def test_outside_of_its_span_a_controlnet_is_not_run(unet, controlnet, monkeypatch):
    calls, forward = [], controlnet.forward

    def counted(*arguments):
        calls.append(arguments)
        return forward(*arguments)

    monkeypatch.setattr(controlnet, "forward", counted)
    control = Control(network=controlnet, frames=pictures(FRAMES), span=Span(0.0, 0.4))
    model, noisy = guided(unet, [control]), draw(FRAMES, 4, HEIGHT, WIDTH)
    for index in (900, 650, 500, 100):
        model(noisy, SCHEDULE.sigmas[index], 0)
    assert len(calls) == 2


@pytest.mark.parametrize(("sampler", "steps", "scale"), [("lcm", 4, 1.0), ("euler", 4, 1.0)])
def test_few_steps(unet, controlnet, sampler, steps, scale):
    latents = draw(FRAMES, 4, HEIGHT, WIDTH)

    def run(*controls):
        return sample(
            unet,
            latents,
            Conditioning.of(draw(1, 7, mini.CROSS), draw(1, 7, mini.CROSS)),
            seed=1,
            steps=steps,
            sampler=sampler,
            scheduler="sgm_uniform",
            guidance=Guidance(scale=scale),
            beta_schedule="lcm" if sampler == "lcm" else "linear",
            controls=controls,
        )

    control = Control(network=controlnet, frames=pictures(FRAMES))
    assert torch.equal(run(control), run(control))
    assert run(control).isfinite().all()
    assert not torch.allclose(run(control), run(), atol=1e-2)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((8, 12), (8, 12)), ((16, 24), (8, 12)), ((4, 6), (8, 12)), ((9, 30), (8, 12))],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_frames_keep_their_colours_and_their_middle(size, wanted, dtype):
    frames = (torch.rand(2, *size, 4, generator=torch.Generator().manual_seed(0)) * 255).round()
    ours = fitted(
        frames.to(dtype) if dtype == torch.uint8 else frames / 255,
        height=wanted[0],
        width=wanted[1],
    )
    assert ours.shape == (2, 3, *wanted)
    assert ours.dtype == torch.float32
    levels = {round(value * 255) for value in ours.flatten().tolist()}
    assert levels <= {int(value) for value in frames[..., :3].flatten().tolist()}


def test_negative_values_of_inpainting_frames_stay():
    frames = torch.full((1, 8, 8, 3), -1.0)
    assert torch.equal(fitted(frames, width=16, height=16), torch.full((1, 3, 16, 16), -1.0))


REFUSED = [
    ({"strength": math.nan}, "control strength is nan; it must be from 0 to 10."),
    ({"strength": -0.5}, "control strength is -0.5; it must be from 0 to 10."),
    ({"frames": torch.zeros(4, 4, 3)}, "have the shape [4, 4, 3]"),
    ({"frames": pictures(1)[:0]}, "have the shape [0,"),
    ({"mask": torch.ones(4, 4)}, "The mask of control.safetensors has the shape [4, 4]"),
    (
        {"frames": pictures(4)},
        "control.safetensors has 4 control frames, and the video has 6 frames: give one for each "
        "frame or one for all, or turn repeat_last on.",
    ),
    ({"frames": pictures(7)}, "has 7 control frames, and the video has 6 frames"),
    ({"frames": pictures(7), "repeat_last": True}, "has 7 control frames"),
    ({"mask": torch.ones(2, 48, 40)}, "has 2 masks, and the video has 6 frames"),
    ({"mask": torch.ones(1, 40, 80)}, "The masks of control.safetensors are 80x40 pixels"),
    (
        {"frames": pictures(FRAMES, height=64, width=96)},
        "The control frames of control.safetensors are 96x64 pixels, another shape than the "
        "video's 40x48: make them from frames of the video's size.",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(unet, controlnet, values, sentence):
    latents = draw(FRAMES, 4, HEIGHT, WIDTH)
    with pytest.raises(AnimateDiffV2VError) as caught:
        Control(**{"network": controlnet, "frames": pictures(FRAMES)} | values).check_fits(
            unet, latents
        )
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("start", "end"), [(-0.1, 1), (0, 1.1), (0.6, 0.4)])
def test_spans_that_are_none(start, end):
    with pytest.raises(AnimateDiffV2VError, match="it must be from"):
        Span(start, end)


def test_a_network_for_another_unet_is_refused(models, controlnet, adapter):
    for network in (controlnet, adapter):
        control = Control(network=network, frames=pictures(1))
        with pytest.raises(AnimateDiffV2VError, match="use one for the same base model"):
            control.check_fits(models.unet, draw(1, 4, HEIGHT, WIDTH))


def test_shuffle_counts_means_alone(tmp_path):
    tensors = mini.state(mini.control_module())
    shuffle = load(tmp_path, tensors, "control_v11e_sd15_shuffle.safetensors")
    plain = load(tmp_path, tensors)
    arguments = draw(2, 4, 4, 4), torch.tensor([9]), draw(2, 7, mini.CROSS), draw(2, 3, 32, 32)
    pooled, whole = shuffle(*arguments), plain(*arguments)
    for ours, theirs in zip(pooled.skips, whole.skips, strict=True):
        assert torch.allclose(ours, theirs.mean((2, 3), keepdim=True).expand_as(theirs))
