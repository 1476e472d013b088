"""Denoise and guidance that change from frame to frame, or guidance from step to step."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.sampling import (
    ContextOptions,
    CustomSampling,
    Guidance,
    SourceBlend,
    SpeedOptions,
)
from animatediff_v2v.pipeline.sampling.denoise import DenoiseBoth
from animatediff_v2v.pipeline.sampling.held_frames import hold_frames
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS

from . import sampled
from .test_custom import PROMPTS, SCHEDULE, SOURCE, Smooth

FRAMES = len(SOURCE)


def sample(unet=None, **options):
    defaults = {"seed": 3, "steps": 8, "guidance": Guidance(scale=3.0)}
    return sampled.sample(unet or Smooth(), SOURCE, PROMPTS, **defaults | options)


def distances(result):
    return [float(each.norm()) for each in result - SOURCE]


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "dpmpp_2m", "lcm", "dpmpp_sde", "euler_cfg_pp"]
)
@pytest.mark.parametrize("noise_type", ["default", "unsample"])
def test_frames_move_away_from_the_source_by_their_own_denoise(sampler, noise_type):
    curve = Curve("0: 0, 4: 1")
    result = sample(denoise=curve, sampler=sampler, noise_type=noise_type)
    whole = sample(denoise=1.0, sampler=sampler, noise_type=noise_type)
    assert torch.allclose(result[0], SOURCE[0], atol=1e-5)
    assert torch.allclose(result[4], whole[4], atol=1e-5)


def test_the_same_frame_moves_further_with_a_higher_denoise():
    source = SOURCE[:1].repeat(FRAMES, 1, 1, 1)
    options = {"seed": 3, "steps": 8, "noise_type": "constant"}
    result = sampled.sample(Smooth(), source, PROMPTS, denoise=Curve("0: 0, 4: 1"), **options)
    moved = [float(each.norm()) for each in result - source]
    assert moved == sorted(moved) and len(set(moved)) == FRAMES


@pytest.mark.parametrize(
    "sampler", ["euler", "dpmpp_2m", "euler_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"]
)
def test_a_frame_begins_with_the_noise_of_its_own_level(sampler):
    noise = torch.randn(SOURCE.shape, generator=torch.Generator().manual_seed(1))
    starts = torch.tensor([0.0, 2.0, 2.0, 4.0, 8.0]).view(-1, 1, 1, 1)
    seen = {}

    class Model:
        def __call__(self, noisy, sigma, step):
            seen[float(sigma)] = noisy
            return 0.3 * noisy

        def keep_unconditional(self):
            pass

        def unconditional(self):
            return torch.full_like(SOURCE, 5.0)

    model = Model()
    both = DenoiseBoth(*hold_frames(model, model, starts, source=SOURCE, noise=noise))
    sigmas = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    SAMPLERS[sampler].run(both, SOURCE + noise * 8, sigmas, torch.zeros_like, SCHEDULE)
    assert torch.allclose(seen[4.0][3], SOURCE[3] + noise[3] * 4, atol=1e-4)
    assert torch.allclose(seen[2.0][1:3], (SOURCE + noise * 2)[1:3], atol=1e-4)


@pytest.mark.parametrize("scheduler", ["normal", "karras", "sgm_uniform", "beta"])
def test_a_frame_begins_where_the_number_begins(scheduler):
    """With half the denoise, half of the steps change the frame."""
    seen = []

    class Watched(Smooth):
        def __call__(self, sample, timestep, context, num_frames, **others):
            seen.append(sample[0].clone())
            return super().__call__(sample, timestep, context, num_frames, **others)

    options = {"scheduler": scheduler, "guidance": Guidance(scale=1.0)}
    result = sample(Watched(), denoise=Curve("0: 0.5 hold, 1: 1 hold"), **options)
    half = sample(denoise=0.5, steps=4, **options)
    assert len(seen) == 8
    # Steps of whole and half schedules differ a little, so results do.
    assert distances(result)[0] == pytest.approx(distances(half)[0], rel=0.25)


def test_a_level_curve_is_the_number():
    level = sample(denoise=Curve("0: 0.7, 3: 0.7"))
    assert torch.equal(level, sample(denoise=0.7))
    guided = sample(guidance=Guidance(scale=Curve("0: 3, 2: 3")))
    assert torch.allclose(guided, sample(), atol=1e-6)


def test_denoise_of_0_in_all_frames_is_the_source():
    assert torch.equal(sample(denoise=Curve("0: 0, 3: 0")), SOURCE)


def test_sigmas_replace_the_curve():
    custom = CustomSampling(sigmas=torch.tensor([8.0, 3.0, 1.0, 0.0]))
    curve = sample(denoise=Curve("0: 0, 4: 1"), custom=custom)
    assert torch.equal(curve, sample(denoise=0.2, custom=custom))


def test_masks_act_as_well():
    size = [8 * side for side in SOURCE.shape[-2:]]
    mask = torch.zeros(1, *size)
    mask[..., : size[1] // 2] = 1
    result = sample(denoise=Curve("0: 0, 4: 1"), source_blend=SourceBlend(mask=mask))
    assert torch.allclose(result[..., -2:], SOURCE[..., -2:], atol=1e-5)
    assert torch.allclose(result[0], SOURCE[0], atol=1e-5)
    assert distances(result)[4] > 0.1


GUIDED = [{}, {"rescale": 0.7}, {"parallel": 0.0}, {"rescale": 0.5, "parallel": 0.5}]


@pytest.mark.parametrize("more", GUIDED)
@pytest.mark.parametrize("context", [None, ContextOptions(length=2, overlap=1)])
@pytest.mark.parametrize("sampler", ["euler", "euler_cfg_pp"])
def test_each_frame_has_the_guidance_of_its_own_scale(more, context, sampler):
    """The network looks at each frame by itself, so frames are those of a constant scale."""
    options = {"context": context, "sampler": sampler}
    curve = Curve("0: 1, 2: 1, 4: 5")
    result = sample(guidance=Guidance(scale=curve, **more), **options)
    for frame, scale in enumerate(curve.values(FRAMES)):
        alone = sample(guidance=Guidance(scale=scale, **more), **options)
        assert torch.allclose(result[frame], alone[frame], atol=1e-4), frame


def test_windows_whose_frames_all_have_1_take_one_pass():
    unet, options = Smooth(), {"context": ContextOptions(length=2, overlap=1), "steps": 1}
    sample(unet, guidance=Guidance(scale=Curve("0: 1, 3: 1, 4: 5")), **options)
    some = unet.calls
    unet.calls = 0
    sample(unet, guidance=Guidance(scale=5.0), **options)
    assert some < unet.calls


@pytest.mark.parametrize(
    "options",
    [
        {"context": ContextOptions(length=3, overlap=1)},
        {"speed": SpeedOptions(guidance_end=0.5)},
        {"sampler": "dpmpp_2m"},
    ],
)
def test_both_at_once(options):
    result = sample(
        denoise=Curve("0: 0.2, -1: 1 ease"),
        guidance=Guidance(scale=Curve("0: 1, 0.5: 6, -1: 2")),
        **options,
    )
    assert bool(result.isfinite().all()) and distances(result)[0] < distances(result)[4]


class Calls(Smooth):
    """Counts the rows of each pass by its training step."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def __call__(self, sample, timestep, context, num_frames, **others):
        step = int(timestep)
        self.rows[step] = self.rows.get(step, 0) + len(sample)
        return super().__call__(sample, timestep, context, num_frames, **others)


@pytest.mark.parametrize("context", [None, ContextOptions(length=2, overlap=1)])
def test_guidance_over_the_steps(context):
    options = {"context": context, "denoise": 1.0}
    level = sample(guidance=Guidance(scale=Curve("0%: 3, 60%: 3 ease")), **options)
    assert torch.equal(level, sample(**options))
    jump, unet = Curve("0%: 3, 45%: 1 hold"), Calls()
    found = sample(unet, guidance=Guidance(scale=jump), **options)
    assert torch.equal(found, sample(guidance=Guidance(scale=3.0, end=0.45), **options))
    # Steps whose scale is 1 take one pass.
    late, early = ({unet.rows[step] for step in unet.rows if (step < 550) is is_late}
                   for is_late in (True, False))  # fmt: skip
    assert {2 * rows for rows in late} == early
    assert not torch.allclose(found, level, atol=1e-3)


REFUSED = [
    (
        {"denoise": Curve("0%: 0.5, 50%: 1")},
        "denoise is the curve '0%: 0.5, 50%: 1', which changes from step to step",
    ),
    ({"denoise": Curve("0: 0, 2: 1.5")}, "denoise is 1.5 at frame 2; it must be from 0 to 1."),
    ({"denoise": "0: 1"}, "denoise is '0: 1'; it must be a number or of the type Curve."),
    ({"denoise": Curve("0: 0, 5: 1")}, "frame 5 is beyond the video, whose 5 frames are counted"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_what_cannot_be_is_refused(options, sentence):
    with pytest.raises(AnimateDiffV2VError) as refused:
        sample(**options)
    assert sentence in str(refused.value)


def test_a_scale_out_of_range_is_refused():
    with pytest.raises(AnimateDiffV2VError, match="guidance_scale is 101"):
        Guidance(scale=Curve("0: 7, 2: 101"))
