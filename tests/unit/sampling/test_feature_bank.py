"""The bank of features: what it keeps, merges and draws together, and the order of windows."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.models.ops.feature_bank import WEIGHT, FeatureBank, merged
from animatediff_v2v.pipeline.sampling import Guidance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from .test_window_memory import FRAMES, GUIDED, SIDE, SIGMA, STEP, draw, model_of, options_of

LAYER, CHANNELS = (3, 0), 6


def nearest(token, others):
    return int(
        torch.stack([functional.cosine_similarity(token, o, dim=0) for o in others]).argmax()
    )


@settings(deadline=None, max_examples=40)
@given(tokens=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_merging_averages_every_second_token_into_its_nearest(tokens, seed):
    """Against loops. No token is lost: the groups' sums add up to that of all tokens."""
    kept, new = draw(2, tokens, CHANNELS, seed=seed)
    result = merged(kept, new)
    both = [*kept, *new]
    moved, stay = both[::2], both[1::2]
    groups = [[each] for each in stay]
    for each in moved:
        groups[nearest(each, stay)].append(each)
    expected = torch.stack([torch.stack(group).mean(dim=0) for group in groups])
    torch.testing.assert_close(result, expected)
    assert result.shape == kept.shape
    total = sum(len(group) * mean for group, mean in zip(groups, result, strict=True))
    torch.testing.assert_close(total, torch.stack(both).sum(dim=0), rtol=1e-4, atol=1e-4)
    assert torch.equal(merged(kept, new), result)


def test_merging_a_frame_of_one_colour_changes_nothing():
    frame = draw(1, CHANNELS).expand(8, CHANNELS)
    torch.testing.assert_close(merged(frame, frame), frame)


def test_tokens_are_drawn_towards_the_nearest_of_the_frame_at_the_same_place():
    first, later = draw(2, 3, 5, CHANNELS)
    bank = FeatureBank()
    assert torch.equal(bank.fused(LAYER, slice(0, 3), 3, first), first)
    bank.end_window()
    expected = torch.stack(
        [
            torch.stack([(1 - WEIGHT) * one + WEIGHT * place[nearest(one, place)] for one in frame])
            for frame, place in zip(later, first, strict=True)
        ]
    )
    parts = [bank.fused(LAYER, part, 3, later[part]) for part in (slice(0, 2), slice(2, 3))]
    torch.testing.assert_close(torch.cat(parts), expected)
    # A pass that ran out of memory is repeated.
    assert torch.equal(bank.fused(LAYER, slice(0, 2), 3, later[:2]), parts[0])
    bank.end_window()
    kept = torch.stack([merged(*pair) for pair in zip(first, torch.cat(parts), strict=True)])
    again = bank.fused(LAYER, slice(0, 3), 3, kept)
    torch.testing.assert_close(again, kept)


def test_windows_of_other_lengths_use_the_places_that_they_share():
    bank = FeatureBank()
    frames = draw(4, 5, CHANNELS)
    bank.fused(LAYER, slice(0, 2), 2, frames[:2])
    bank.end_window()
    others = draw(4, 5, CHANNELS, seed=1)
    drawn = bank.fused(LAYER, slice(0, 4), 4, others)
    alike = [torch.equal(*pair) for pair in zip(drawn, others, strict=True)]
    assert alike == [False, False, True, True]
    bank.end_window()
    assert not torch.equal(bank.fused(LAYER, slice(0, 4), 4, frames)[2:], frames[2:])


@torch.inference_mode()
def test_each_window_sees_all_before_and_none_after(models):
    """Three windows that share no frame; the noise of one of them is another."""
    context = options_of("no overlap", "FeatureBank", length=3)
    noisy = draw(FRAMES, 4, SIDE, SIDE)
    usual = model_of(models, context)(noisy, SIGMA, STEP)
    for changed in range(3):
        other = noisy.clone()
        other[3 * changed : 3 * changed + 3] = draw(3, 4, SIDE, SIDE, seed=9)
        result = model_of(models, context)(other, SIGMA, STEP)
        alike = [
            torch.equal(result[start : start + 3], usual[start : start + 3])
            for start in range(0, FRAMES, 3)
        ]
        assert alike == [window < changed for window in range(3)]


@torch.inference_mode()
def test_the_negative_prompt_has_no_bank(models):
    noisy = draw(FRAMES, 4, SIDE, SIDE)
    plain, banked = (
        model_of(models, options_of("static", memory), guidance=Guidance(scale=0.0))(
            noisy, SIGMA, STEP
        )
        for memory in ("none", "FeatureBank")
    )
    assert torch.equal(plain, banked)


@pytest.mark.parametrize("guidance", [GUIDED, Guidance(scale=1.0)])
@torch.inference_mode()
def test_the_bank_does_not_grow_with_the_video(models, monkeypatch, guidance):
    sizes = []
    end_window = FeatureBank.end_window

    def counted(self):
        end_window(self)
        sizes.append({layer: tuple(each.shape) for layer, each in self._kept.items()})

    monkeypatch.setattr(FeatureBank, "end_window", counted)
    for frames in (9, 27):
        noisy = draw(frames, 4, SIDE, SIDE)
        model_of(models, options_of("static", "FeatureBank"), guidance=guidance)(noisy, SIGMA, STEP)
    assert len(sizes) > 10
    assert sizes[0]
    assert all(each == sizes[0] for each in sizes)
