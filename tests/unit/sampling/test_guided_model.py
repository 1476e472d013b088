"""Guidance and the fusing of windows, against plain loops with a fake network."""

import logging
import math

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models import batching as memory
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Guidance
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.windows import context_windows

SCHEDULE = NoiseSchedule("sqrt_linear")
POSITIVE, NEGATIVE = 0.8, -0.3


class Accelerator(str):
    """A device that torch treats as the CPU and the pack as an accelerator."""

    type = "accelerator"


class PretendedUNet:
    """Noise that depends on a frame, its place in the window, the time and the prompt."""

    dtype = torch.float64

    def __init__(self, device="cpu", *, room=64):
        self.device = torch.device("cpu") if device == "cpu" else Accelerator("cpu")
        self.room = room
        self.passes = []
        self.tokens = set()

    def __call__(self, sample, timestep, context, num_frames, **_others):
        clips = len(sample) // num_frames
        self.passes.append(clips)
        self.tokens.add(context.shape[1])
        assert len(context) in (clips, len(sample))
        if clips > self.room:
            raise torch.OutOfMemoryError("out of memory")
        place = torch.arange(num_frames, dtype=torch.float64).repeat(clips).view(-1, 1, 1, 1)
        each_row = context.repeat_interleave(len(sample) // len(context), dim=0)
        prompt = each_row.double().mean(dim=(1, 2)).view(-1, 1, 1, 1)
        return torch.sin(sample * (1 + place)) + prompt * sample + float(timestep) / 1000


def pretended_noise(frame, place, time, prompt):
    return np.sin(frame * (1 + place)) + prompt * frame + time / 1000


def prompt_of(level, *, tokens=77):
    return PromptTrack(torch.full((1, tokens, 2), level))


def weight(fuse, place, window, frames, overlap):
    """Return the weight of a frame at a position in its window."""
    length = len(window)
    if fuse == "pyramid":
        return min(place + 1, length - place)
    if fuse == "flat":
        return 1
    value = 1.0
    if min(window) > 0 and place < overlap:
        value = max(1e-37, place / (overlap - 1))
    if max(window) < frames - 1 and place >= length - overlap:
        value = max(1e-37, (length - 1 - place) / (overlap - 1))
    return value


def denoised_by_loops(noisy, sigma, *, step, options, scale, positive, negative):
    """Return the weighted average of the windows' guided results for each frame, in float64."""
    frames = len(noisy)
    scaled = noisy / math.sqrt(sigma**2 + 1)
    time = int(np.abs(np.log(SCHEDULE.sigmas.double().numpy()) - math.log(sigma)).argmin())
    sums, counts = np.zeros_like(noisy), np.zeros(frames)
    for window in context_windows(frames, options, step=step):
        # If a frame is in a window twice, its last position counts, as in AnimateDiff-Evolved.
        for frame, place in {frame: place for place, frame in enumerate(window)}.items():
            with_prompt = pretended_noise(scaled[frame], place, time, positive(frame))
            without = pretended_noise(scaled[frame], place, time, negative(frame))
            guided = without + scale * (with_prompt - without)
            share = weight(options.fuse, place, window, frames, options.overlap)
            sums[frame] += share * guided
            counts[frame] += share
    noise = np.stack([total / count for total, count in zip(sums, counts, strict=True)])
    return noisy - sigma * noise


def model(
    unet,
    *,
    options=None,
    guidance=None,
    conditioning=None,
    on_passes=lambda _share: None,
):
    return GuidedModel(
        unet,
        schedule=SCHEDULE,
        conditioning=conditioning or Conditioning(prompt_of(POSITIVE), prompt_of(NEGATIVE)),
        guidance=guidance or Guidance(scale=7.5),
        context=options or ContextOptions(),
        on_passes=on_passes,
    )


def clip(frames):
    return torch.randn(frames, 4, 2, 3, generator=torch.Generator().manual_seed(frames)) * 5


FUSING = [
    (10, {}, 7.5, 0),
    (16, {"fuse": "overlap-linear"}, 7.5, 0),
    (24, {}, 1.0, 0),
    (24, {}, 7.5, 0),
    (25, {"fuse": "flat"}, 3.0, 0),
    (40, {"fuse": "overlap-linear"}, 7.5, 0),
    (40, {"fuse": "overlap-linear", "overlap": 8}, 0.0, 0),
    (37, {"length": 8, "overlap": 3}, 0.5, 0),
    (37, {"schedule": "batched"}, 7.5, 0),
    (37, {"schedule": "standard_uniform"}, 7.5, 0),
    (37, {"schedule": "standard_uniform"}, 7.5, 3),
    (64, {"schedule": "looped_uniform", "stride": 2}, 7.5, 5),
    (48, {"schedule": "looped_uniform", "closed_loop": True}, 7.5, 1),
]


def relative_error(ours, expected):
    return float(np.linalg.norm(ours.double().numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("frames", "options", "scale", "step"), FUSING)
@pytest.mark.parametrize("sigma_index", [0, 500, 999])
def test_fusing_equals_plain_loops(frames, options, scale, step, sigma_index):
    options, noisy, sigma = ContextOptions(**options), clip(frames), SCHEDULE.sigmas[sigma_index]
    guided = model(PretendedUNet(), options=options, guidance=Guidance(scale=scale))
    expected = denoised_by_loops(
        noisy.double().numpy(),
        float(sigma),
        step=step,
        options=options,
        scale=scale,
        positive=lambda _frame: POSITIVE,
        negative=lambda _frame: NEGATIVE,
    )
    assert relative_error(guided(noisy, sigma, step), expected) < 1e-6


def test_windows_see_the_prompts_of_their_own_frames():
    track = PromptTrack(torch.tensor([0.0, 3.0]).view(2, 1, 1).expand(2, 77, 2).clone(), (0, 30))
    noisy, sigma = clip(31), SCHEDULE.sigmas[600]
    guided = model(PretendedUNet(), conditioning=Conditioning(track, prompt_of(NEGATIVE)))
    expected = denoised_by_loops(
        noisy.double().numpy(),
        float(sigma),
        step=0,
        options=ContextOptions(),
        scale=7.5,
        positive=lambda frame: frame / 10,
        negative=lambda _frame: NEGATIVE,
    )
    assert relative_error(guided(noisy, sigma, 0), expected) < 1e-6


def test_of_a_frame_that_is_in_a_window_twice_the_last_place_counts():
    options = ContextOptions(schedule="looped_uniform", stride=2)
    noisy, sigma = clip(24), SCHEDULE.sigmas[600]
    windows = context_windows(24, options)
    assert any(len(set(window)) < len(window) for window in windows)
    expected = denoised_by_loops(
        noisy.double().numpy(),
        float(sigma),
        step=0,
        options=options,
        scale=7.5,
        positive=lambda _frame: POSITIVE,
        negative=lambda _frame: NEGATIVE,
    )
    ours = model(PretendedUNet(), options=options)(noisy, sigma, 0)
    assert relative_error(ours, expected) < 1e-6


@pytest.mark.parametrize(
    ("frames", "scale", "passes"),
    [(10, 7.5, 2), (10, 1.0, 1), (10, 0.0, 2), (24, 7.5, 4), (24, 1.0, 2), (40, 1.0, 3)],
)
def test_scale_1_runs_no_pass_for_the_negative_prompt(frames, scale, passes):
    unet = PretendedUNet()
    model(unet, guidance=Guidance(scale=scale))(clip(frames), SCHEDULE.sigmas[500], 0)
    assert sum(unet.passes) == passes


@pytest.mark.parametrize(
    ("start", "end", "guided"),
    [
        (0.0, 1.0, [999, 800, 500, 300, 100, 0]),
        (0.2, 0.8, [500, 300]),
        (0.0, 0.5, [999, 800, 500]),
        (0.6, 1.0, [300, 100, 0]),
        (0.0, 0.0, [999]),
    ],
)
def test_the_interval_of_guidance_counts_training_steps(start, end, guided):
    found = []
    for index in (999, 800, 500, 300, 100, 0):
        unet = PretendedUNet()
        guidance = Guidance(scale=4.0, start=start, end=end)
        model(unet, guidance=guidance)(clip(3), SCHEDULE.sigmas[index], 0)
        if sum(unet.passes) == 2:
            found.append(index)
    assert found == guided


@pytest.mark.parametrize(
    ("positive", "negative", "both"), [(77, 77, 77), (77, 231, 231), (154, 231, 462)]
)
def test_prompts_of_different_lengths_come_to_their_least_common_multiple(positive, negative, both):
    unet = PretendedUNet()
    conditioning = Conditioning.of(
        torch.full((1, positive, 2), POSITIVE), torch.full((1, negative, 2), NEGATIVE)
    )
    ours = model(unet, conditioning=conditioning)(clip(5), SCHEDULE.sigmas[500], 0)
    assert unet.tokens == {both}
    expected = model(PretendedUNet())(clip(5), SCHEDULE.sigmas[500], 0)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("options", [{}, {"schedule": "batched"}, {"schedule": "looped_uniform"}])
def test_passes_that_go_together_change_no_bit(at_once, options, monkeypatch):
    options, sigma = ContextOptions(**options), SCHEDULE.sigmas[700]
    expected = model(PretendedUNet(), options=options)(clip(37), sigma, 0)
    monkeypatch.setattr(memory, "PASSES_AT_ONCE", at_once)
    unet = PretendedUNet("accelerator")
    assert torch.equal(model(unet, options=options)(clip(37), sigma, 0), expected)
    assert max(unet.passes) <= at_once
    assert sum(unet.passes) == 2 * len(context_windows(37, options))


def test_progress_of_the_passes_reaches_the_whole():
    shares = []
    model(PretendedUNet(), on_passes=shares.append)(clip(40), SCHEDULE.sigmas[500], 0)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_device_that_is_too_small_for_two_passes_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(memory, "PASSES_AT_ONCE", 4)
    expected = model(PretendedUNet())(clip(40), SCHEDULE.sigmas[500], 0)
    unet = PretendedUNet("accelerator", room=1)
    assert torch.equal(model(unet)(clip(40), SCHEDULE.sigmas[500], 0), expected)
    assert unet.passes == [4, 2, *[1] * 6]


def test_a_device_s_memory_runs_out_once_in_a_job(caplog):
    unet = PretendedUNet("accelerator", room=1)
    guided = model(unet)
    with caplog.at_level(logging.WARNING):
        for step, index in enumerate((900, 500, 100)):
            guided(clip(24), SCHEDULE.sigmas[index], step)
    assert unet.passes == [2, *[1] * 12]
    assert len(caplog.records) == 1


REFUSED = [
    ({"scale": -0.5}, "guidance_scale is -0.5; it must be from 0 to 100, 7 is usual."),
    ({"scale": math.nan}, "guidance_scale is nan; it must be from 0 to 100"),
    ({"scale": math.inf}, "guidance_scale is inf; it must be from 0 to 100"),
    ({"start": -0.1}, "guidance start is -0.1; it must be from 0 to 1."),
    ({"start": 1.5}, "guidance start is 1.5; it must be from 0 to 1."),
    ({"end": 1.5}, "guidance end is 1.5; it must be from 0 to 1."),
    ({"start": 0.6, "end": 0.4}, "guidance end is 0.4; it must be from 0.6 to 1."),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        Guidance(**values)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("options", [ContextOptions(), ContextOptions(length=4, overlap=2)])
def test_the_unconditional_prediction_is_that_of_the_negative_prompt(scale, options):
    noisy, sigma = clip(7).double(), torch.tensor(2.0)
    guided = model(
        PretendedUNet(),
        options=options,
        guidance=Guidance(scale=scale),
    )
    plain = model(PretendedUNet(), options=options, guidance=Guidance(scale=scale))
    negative = model(
        PretendedUNet(),
        options=options,
        guidance=Guidance(scale=1.0),
        conditioning=Conditioning(prompt_of(NEGATIVE), prompt_of(POSITIVE)),
    )
    with pytest.raises(RuntimeError, match="has not been called"):
        guided.unconditional()
    guided.keep_unconditional()
    assert torch.equal(guided(noisy, sigma, 0), plain(noisy, sigma, 0))
    assert torch.equal(guided.unconditional(), negative(noisy, sigma, 0))


@pytest.mark.parametrize("frames", [6, 11])
@pytest.mark.parametrize(("rescale", "parallel"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.0), (0.5, 0.3)])
def test_rescaled_and_projected_guidance_of_whole_videos(frames, rescale, parallel):
    """Both act on the predictions for the whole video, whatever its windows."""
    options = ContextOptions(length=6, overlap=2)
    noisy = torch.randn(frames, 4, 3, 5, generator=torch.Generator().manual_seed(4))
    sigma, scale = SCHEDULE.sigmas[600], 7.0
    unet, prompts = PretendedUNet(), (prompt_of(POSITIVE), prompt_of(NEGATIVE))

    def model(positive, negative, guidance):
        return GuidedModel(
            unet,
            schedule=SCHEDULE,
            conditioning=Conditioning(positive, negative),
            guidance=guidance,
            context=options,
            on_passes=lambda _share: None,
        )(noisy, sigma, 0)

    clean, unwanted = (model(each, each, Guidance(scale=1.0)) for each in prompts)
    guidance = Guidance(scale=scale, rescale=rescale, parallel=parallel)
    found = model(*prompts, guidance)
    clean, unwanted, x, s = (np.float64(each) for each in (clean, unwanted, noisy, sigma))
    for frame in range(frames):
        p, change = clean[frame], clean[frame] - unwanted[frame]
        change = change - (1 - parallel) * (change * p).sum() / (p * p).sum() * p
        wanted = p + (scale - 1) * change
        factor = s * np.sqrt(s**2 + 1)
        v, v_plain = ((x[frame] - (1 + s**2) * each) / factor for each in (wanted, p))
        v = rescale * v * v_plain.std(ddof=1) / v.std(ddof=1) + (1 - rescale) * v
        wanted = (x[frame] - v * factor) / (1 + s**2)
        assert np.abs(found[frame].numpy() - wanted).max() < 2e-5 * np.abs(wanted).max()
