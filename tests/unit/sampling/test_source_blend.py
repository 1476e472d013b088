"""The source in each step: kept where the mask is black, mixed in to a share elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.sampling import Conditioning, SourceBlend

from . import sampled
from .test_unsampling import Smooth

FRAMES, HEIGHT, WIDTH = 4, 6, 8


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SOURCE = draw(FRAMES, 4, HEIGHT, WIDTH)


def sample(blend=None, **options):
    prompts = Conditioning.of(torch.ones(1, 7, 2), torch.zeros(1, 7, 2))
    defaults = {"seed": 3, "steps": 6} | ({"source_blend": blend} if blend else {})
    return sampled.sample(Smooth(), SOURCE, prompts, **defaults | options)


def left_half(count=1):
    mask = torch.zeros(count, 8 * HEIGHT, 8 * WIDTH)
    mask[:, :, : 4 * WIDTH] = 1
    return mask


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "lcm", "uni_pc"])
@pytest.mark.parametrize("noise_type", ["default", "unsample"])
def test_the_background_stays(sampler, noise_type):
    result = sample(SourceBlend(mask=left_half()), sampler=sampler, noise_type=noise_type)
    kept, restyled = (slice(WIDTH // 2 + 1, None), slice(0, WIDTH // 2 - 1))
    # UniPC, as it is run in ComfyUI, ends on a level just above none.
    limit = 0.02 if sampler == "uni_pc" else 1e-5
    assert torch.allclose(result[..., kept], SOURCE[..., kept], atol=limit)
    assert (result - SOURCE)[..., restyled].abs().mean() > 0.05


def test_one_mask_for_all_or_one_for_each():
    one = sample(SourceBlend(mask=left_half()))
    assert torch.equal(sample(SourceBlend(mask=left_half(FRAMES))), one)
    masks = left_half(FRAMES)
    masks[2] = 0
    assert torch.allclose(sample(SourceBlend(mask=masks))[2], SOURCE[2], atol=1e-5)


def test_white_masks_and_no_strength_change_nothing():
    plain = sample()
    assert torch.equal(sample(SourceBlend()), plain)
    white = sample(SourceBlend(mask=torch.ones(1, 3, 4)))
    assert torch.allclose(white, plain, atol=1e-5)


def test_strength_leads_from_the_restyled_clip_to_the_source():
    distances = [
        float((sample(SourceBlend(strength=strength, end=1.0)) - SOURCE).norm())
        for strength in (0.0, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4
    early = float((sample(SourceBlend(strength=0.6, end=0.3)) - SOURCE).norm())
    assert distances[2] < early < distances[0]


REFUSED = [
    ({"strength": 1.5}, "source_blend is 1.5; it must be from 0 to 1."),
    ({"strength": math.nan}, "source_blend is nan"),
    ({"end": -1}, "source_blend_end is -1; it must be from 0 to 1."),
    ({"mask": torch.ones(3, 3)}, "The source mask has the shape [3, 3]"),
    ({"mask": torch.ones(3, 6, 8)}, "There are 3 source masks for 4 frames"),
    (
        {"mask": torch.ones(1, 8, 20)},
        "The source masks are 20x8 pixels, another shape than the video's 64x48: make them from",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        SourceBlend(**values).check_fits(SOURCE)
    assert sentence in str(caught.value)
