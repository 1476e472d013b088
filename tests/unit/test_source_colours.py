"""Colours held to those of the source: statistics, smoothing over time, masks."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.source_colours import (
    REACH,
    SourceColours,
    colour_statistics,
    from_oklab,
    to_oklab,
)


# From the table of https://bottosson.github.io/posts/oklab, by way of CSS Color 4.
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (1, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 1, 0), (0.86644, -0.23389, 0.17950)),
        ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
        ((0.5, 0.5, 0.5), (0.59818, 0, 0)),
    ],
)
def test_oklab(rgb, lab):
    found = to_oklab(torch.tensor(rgb, dtype=torch.float32))
    assert torch.allclose(found, torch.tensor(lab, dtype=torch.float32), atol=1e-4)
    assert torch.allclose(from_oklab(found), torch.tensor(rgb, dtype=torch.float32), atol=1e-4)


def video(seed=0, count=14, height=24, width=32):
    """Smooth frames that move, without colours at the border of what a screen can show."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=random) * 0.5 + 0.25
    wide = torch.nn.functional.interpolate(coarse, (height, width + count), mode="bicubic")
    frames = [wide[0, :, :, at : at + width].permute(1, 2, 0) for at in range(count)]
    return torch.stack(frames).clamp(0.1, 0.9)


def darkened(frames):
    """Darker, bluer, with less contrast: what LCM and a VAE do."""
    lab = to_oklab(frames) * torch.tensor([0.8, 0.9, 0.9]) + torch.tensor([-0.05, 0.01, -0.03])
    return from_oklab(lab)


def matched(result, source, *, strength=1.0, mask=None, chunk=8):
    colours = SourceColours(strength, mask)
    for part in source.split(chunk):
        colours.add(part)
    return torch.cat(list(colours.matched(result.split(chunk))))


def difference(first, second):
    return (first - second).abs().mean().item()


def test_equal_frames_stay_as_they_are():
    frames = video()
    assert difference(matched(frames, frames), frames) < 1e-4


def test_a_strength_of_0_is_equal_to_the_bit_and_takes_no_source():
    result = darkened(video())
    made = torch.cat(list(SourceColours(0.0).matched(result.split(8))))
    assert torch.equal(made, result)


def test_darkening_and_tint_are_undone():
    source = video()
    result = darkened(source)
    before = difference(result, source)
    assert before > 0.1
    assert difference(matched(result, source), source) < 0.01
    half = matched(result, source, strength=0.5)
    assert 0.4 * before < difference(half, source) < 0.6 * before


def test_8_bits_count_as_floats():
    source = video()
    eight_bit = (source * 255).round().to(torch.uint8)
    assert difference(matched(darkened(source), eight_bit), source) < 0.01


@pytest.mark.parametrize("chunk", [1, 3, 14])
def test_the_bytes_do_not_depend_on_the_chunks(chunk):
    source = video()
    result = darkened(source)
    assert torch.equal(matched(result, source, chunk=chunk), matched(result, source))


def test_only_a_few_frames_wait():
    source, taken = video(count=40), []

    def frames():
        for number, frame in enumerate(source):
            taken.append(number)
            yield frame[None]

    colours = SourceColours(1.0)
    colours.add(source)
    for number, _ in enumerate(colours.matched(frames())):
        assert taken[-1] <= number + REACH
    assert number == 39


def test_one_frame_of_other_colours_does_not_jump():
    """The correction of a single frame is spread over its neighbours."""
    source = video(count=20)
    result = source.clone()
    result[10] = darkened(result[10])
    made = matched(result, source)
    lightness = [[colour_statistics(f)[0, 0] for f in frames] for frames in (made, result)]
    steps = (torch.tensor(lightness[0]) - torch.tensor(lightness[1])).diff().abs()
    whole = (colour_statistics(source[10]) - colour_statistics(result[10]))[0, 0]
    assert steps.max() < 0.25 * whole


def test_nothing_leaks_across_a_cut():
    source = torch.cat([video(1, 8) * 0.3, video(2, 8) * 0.5 + 0.5])
    result = source.clone()
    result[:8] = darkened(result[:8])
    made = matched(result, source)
    assert difference(made[8:], source[8:]) < 0.25 * difference(result[:8], source[:8])


def test_a_mask_says_what_counts_and_what_changes():
    source, mask = video(), torch.zeros(1, 24, 32)
    mask[:, :, :16] = 1
    result = source.clone()
    result[:, :, :16] = darkened(source[:, :, :16])
    made = matched(result, source, mask=mask)
    assert torch.equal(made[:, :, 16:], result[:, :, 16:])
    assert difference(made[:, :, :16], source[:, :, :16]) < 0.02


def test_a_black_mask_changes_nothing():
    source = video()
    masks = torch.ones(len(source), 24, 32)
    masks[5] = 0
    made = matched(darkened(source), source, mask=masks)
    assert torch.equal(made[5], darkened(source)[5])
    assert difference(made[6], source[6]) < 0.01
    assert torch.equal(matched(source, source, mask=masks * 0), source)


def test_mask_and_source_may_have_another_size():
    source = video()
    small = source[:, ::2, ::2]
    made = matched(darkened(source), small, mask=torch.ones(1, 6, 8))
    assert difference(made, source) < 0.02


@pytest.mark.parametrize(("count", "says"), [(13, "more"), (15, "fewer")])
def test_other_counts_are_refused(count, says):
    with pytest.raises(AnimateDiffV2VError, match=f"There are {says} restyled frames than the"):
        matched(video(count=14), video(count=count))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strengths_out_of_range_are_refused(strength):
    with pytest.raises(AnimateDiffV2VError, match="match_source is"):
        SourceColours(strength)
