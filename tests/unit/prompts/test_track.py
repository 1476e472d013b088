"""Prompts along a clip: blending between keyframes."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.prompts import PromptTrack
from hypothesis import given
from hypothesis import strategies as st


def encodings(*levels, tokens=77):
    """Return a keyframe for each level, filled with that level."""
    return torch.tensor(levels, dtype=torch.float32).view(-1, 1, 1).expand(-1, tokens, 4).clone()


TRACK = PromptTrack(encodings(0.0, 10.0, 4.0), (4, 24, 26))


@pytest.mark.parametrize(
    ("frame", "level"),
    [(0, 0), (3, 0), (4, 0), (5, 0.5), (14, 5), (23, 9.5), (24, 10), (25, 7), (26, 4), (99, 4)],
)
def test_levels(frame, level):
    (encoding,) = TRACK.at([frame])
    assert torch.allclose(encoding, torch.full((77, 4), float(level)))


@pytest.mark.parametrize("window", [[4, 5, 6], [23, 24, 25, 26, 27], [26, 0, 1], [25, 5, 25], [3]])
def test_a_window_is_its_frames_one_by_one(window):
    together = TRACK.at(window)
    assert together.shape == (len(window), 77, 4)
    assert torch.equal(together, torch.cat([TRACK.at([frame]) for frame in window]))


def test_one_prompt_is_the_same_in_every_frame_and_takes_no_memory_for_it():
    track = PromptTrack(torch.randn(1, 77, 4))
    frames = track.at(range(1000))
    assert frames.shape == (1000, 77, 4)
    assert torch.equal(frames[999], track.encodings[0])
    assert frames.untyped_storage().nbytes() == track.encodings.untyped_storage().nbytes()


@given(st.lists(st.integers(0, 500), min_size=2, max_size=6, unique=True), st.integers(0, 600))
def test_blends_stay_between_their_keyframes(frames, frame):
    levels = [float(index * index) for index in range(len(frames))]
    level = float(PromptTrack(encodings(*levels), tuple(sorted(frames))).at([frame])[0, 0, 0])
    keyframes = dict(zip(sorted(frames), levels, strict=True))
    below = [value for key, value in keyframes.items() if key <= frame]
    above = [value for key, value in keyframes.items() if key >= frame]
    ends = [*below[-1:], *above[:1]]
    assert min(ends) - 1e-4 <= level <= max(ends) + 1e-4
    assert keyframes.get(frame, level) == level


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeated(repeats):
    track = PromptTrack(torch.randn(2, 77, 4), (0, 8))
    repeated = track.repeated(77 * repeats)
    assert repeated.tokens == 77 * repeats
    assert torch.equal(repeated.at([3]), torch.cat([track.at([3])] * repeats, dim=1))


def test_repeated_tokens_leave_attention_as_it_was():
    """So the shorter of two prompts can be repeated to the length of the longer one."""
    attend = torch.nn.functional.scaled_dot_product_attention
    query, keys, values = torch.randn(3, 1, 7, 4, dtype=torch.float64)
    once = attend(query, keys, values)
    thrice = attend(query, keys.repeat(1, 3, 1), values.repeat(1, 3, 1))
    assert torch.allclose(once, thrice, atol=1e-12)


REFUSED = [
    (
        torch.zeros(77, 4),
        (0,),
        r"has the shape \[77, 4\] for 1 keyframes; it must be \[keyframes, tokens, channels\]",
    ),
    (torch.zeros(2, 77, 4), (0,), r"has the shape \[2, 77, 4\] for 1 keyframes"),
    (
        torch.zeros(2, 77, 4),
        (8, 8),
        r"keyframes \[8, 8\] are not in ascending order: name each",
    ),
    (torch.zeros(2, 77, 4), (8, 0), r"keyframes \[8, 0\] are not in ascending order"),
]


@pytest.mark.parametrize(("encoded", "frames", "sentence"), REFUSED)
def test_refused(encoded, frames, sentence):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        PromptTrack(encoded, frames)
