"""The noise that sampling starts from."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.ranges import SEED
from animatediff_v2v.pipeline.sampling import ContextOptions
from animatediff_v2v.pipeline.sampling.initial_noise import initial_noise
from hypothesis import given
from hypothesis import strategies as st


def noise(frames, *, seed=1, noise_type="default", length=16, overlap=4):
    like = torch.zeros(frames, 4, 3, 2)
    context = ContextOptions(length=length, overlap=overlap)
    return initial_noise(like, seed=seed, noise_type=noise_type, context=context)


def comfyui_noise(frames, seed):
    return torch.randn((frames, 4, 3, 2), generator=torch.manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 + 5, 2**53, SEED.high])
@pytest.mark.parametrize("frames", [1, 7, 40])
def test_default_is_comfyui_s_noise_for_the_seed(seed, frames):
    assert torch.equal(noise(frames, seed=seed), comfyui_noise(frames, seed))


def test_frames_of_a_longer_clip_begin_as_a_shorter_one_s():
    assert torch.equal(noise(40)[:16], noise(16))


def test_constant_is_the_first_frame_s_noise_in_every_frame():
    constant = noise(20, noise_type="constant")
    assert torch.equal(constant, comfyui_noise(1, 1).expand(20, -1, -1, -1))


# Which frame's default noise each frame gets, by AnimateDiff-Evolved d8d163c, sample_settings.py:
# (seed, frames, length, overlap) -> the frames after the first window.
FREE_NOISE = {
    (1, 24, 16, 4): [5, 4, 2, 6, 7, 3, 1, 0],
    (42, 40, 16, 4): [
        *[6, 8, 1, 7, 0, 2, 10, 11, 4, 3, 5, 9],
        *[10, 6, 1, 15, 0, 11, 7, 2, 12, 13, 14, 8],
    ],
    (7, 10, 16, 4): [],
    (9, 33, 8, 3): [
        *[0, 1, 2, 4, 3, 7, 6, 0, 5, 1, 7, 3, 4],
        *[2, 6, 5, 0, 7, 3, 1, 0, 6, 4, 2, 5],
    ],
    (123, 20, 8, 6): [0, 1, 3, 2, 4, 5, 6, 7, 0, 1, 3, 2],
}


@pytest.mark.parametrize(("case", "order"), FREE_NOISE.items())
def test_free_noise_is_shuffled_as_in_animatediff_evolved(case, order):
    seed, frames, length, overlap = case
    drawn = noise(frames, seed=seed, noise_type="FreeNoise", length=length, overlap=overlap)
    rows = [*range(min(length, frames)), *order]
    assert torch.equal(drawn, comfyui_noise(frames, seed)[rows])


@pytest.mark.parametrize(("frames", "length"), [(10, 16), (16, 16), (33, 16), (50, 8)])
def test_repeated_context_begins_anew_with_each_window(frames, length):
    drawn = noise(frames, noise_type="repeated_context", length=length)
    rows = [frame % length for frame in range(frames)]
    assert torch.equal(drawn, comfyui_noise(frames, 1)[rows])


@given(st.integers(1, 90), st.integers(1, 20), st.data())
def test_free_noise_is_made_of_the_first_window_s(frames, length, data):
    overlap = data.draw(st.integers(0, length - 1))
    plain = noise(frames)
    drawn = noise(frames, noise_type="FreeNoise", length=length, overlap=overlap)
    window = {tuple(frame.flatten().tolist()) for frame in plain[:length]}
    assert torch.equal(drawn[:length], plain[:length])
    assert {tuple(frame.flatten().tolist()) for frame in drawn} == window


@pytest.mark.parametrize("noise_type", ["default", "constant", "repeated_context", "FreeNoise"])
def test_a_seed_repeats_and_leaves_the_global_generator_alone(noise_type):
    first = noise(30, noise_type=noise_type)
    assert first.dtype == torch.float32
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(noise(30, noise_type=noise_type), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(noise(30, noise_type=noise_type, seed=2), first)


REFUSED = [
    ({"seed": -1}, "seed is -1; it must be from 0 to 18446744073709551615."),
    ({"seed": SEED.high + 1}, "seed is 18446744073709551616; it must be from 0 to 1844674"),
    (
        {"noise_type": "freenoise"},
        "noise_type is 'freenoise'; it can be default, constant, repeated_context, FreeNoise, ",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        noise(4, **values)
    assert sentence in str(caught.value)
