"""Unsampling leads back to the source, is cached by content, and reports progress."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.last_result import LastResult
from animatediff_v2v.pipeline.models.unet import PREDICTS_NOISE, MotionUNet
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
)
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.unsampling import backwards
from safetensors.torch import save_file

from ..files import miniatures as mini
from . import sampled

FRAMES, HEIGHT, WIDTH = 5, 4, 6


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Smooth:
    """A network whose noise is a smooth function of its input, like a trained one's."""

    device, dtype, max_frames, beta_schedule = torch.device("cpu"), torch.float32, 32, "linear"
    parameterization = PREDICTS_NOISE

    def __init__(self):
        self.calls = 0

    def __call__(self, sample, timestep, context, num_frames, **_others):
        self.calls += 1
        level = float(timestep) / 999
        each_row = context.repeat_interleave(len(sample) // len(context), dim=0)
        prompt = each_row.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        return sample * (0.2 + 0.7 * level) + 0.1 * torch.sin(sample) + 0.2 * prompt


SOURCE = draw(FRAMES, 4, HEIGHT, WIDTH) * 4
PROMPT = torch.full((1, 7, 2), 0.3)
PROMPTS = Conditioning.of(PROMPT, -PROMPT)


def sample(unet, latents=SOURCE, *, conditioning=PROMPTS, **options):
    defaults = {
        "seed": 3,
        "steps": 40,
        "guidance": Guidance(scale=1.0),
        "noise_type": "unsample",
    }
    return sampled.sample(unet, latents, conditioning, **defaults | options)


def error(result, expected=SOURCE):
    return float((result - expected).norm() / expected.norm())


# A first-order method is off by a step's curvature; the others are closer.
@pytest.mark.parametrize(
    ("sampler", "limit"),
    [
        *(("euler", 0.1), ("ddim", 0.1), ("heun", 0.02), ("dpmpp_2m", 0.05), ("uni_pc", 0.05)),
        *(("exp_heun_2_x0", 0.05), ("dpm_2", 0.05), ("lms", 0.05)),
        *(("dpm_fast", 0.05), ("ipndm", 0.05), ("ipndm_v", 0.05), ("deis", 0.05)),
        *(("res_multistep", 0.05), ("uni_pc_bh2", 0.05), ("heunpp2", 0.1)),
        *(("gradient_estimation", 0.1), ("dpm_adaptive", 0.1)),
    ],
)
@pytest.mark.parametrize("denoise", [1.0, 0.6])
def test_sampling_leads_back_to_the_source(sampler, limit, denoise):
    back = sample(Smooth(), sampler=sampler, denoise=denoise)
    assert error(back) < limit
    fresh = sample(Smooth(), sampler=sampler, denoise=denoise, noise_type="default")
    assert error(fresh) > 3 * limit


def test_more_steps_lead_closer():
    errors = [error(sample(Smooth(), steps=steps)) for steps in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if backwards(name) != name])
def test_samplers_that_others_invert_begin_from_unsampled_latents(sampler):
    results = [sample(Smooth(), sampler=sampler, steps=5) for _ in range(2)]
    assert torch.equal(*results)
    assert results[0].isfinite().all()


def test_windows_lead_back_too():
    windows = ContextOptions(length=4, overlap=2)
    assert (
        error(
            sample(Smooth(), draw(9, 4, HEIGHT, WIDTH) * 4, context=windows),
            draw(9, 4, HEIGHT, WIDTH) * 4,
        )
        < 0.1
    )


def test_the_source_s_own_prompt_counts():
    prompts = Conditioning.of(PROMPT, -PROMPT)
    described = Conditioning(prompts.positive, prompts.negative, PromptTrack(PROMPT * -5))
    assert error(sample(Smooth(), conditioning=described)) > 0.05
    same = Conditioning(prompts.positive, prompts.negative, prompts.positive)
    assert torch.equal(sample(Smooth(), conditioning=same), sample(Smooth()))


CHANGES = {
    "nothing": ({}, True),
    "seed": ({"seed": 4}, True),
    "guidance": ({"guidance": Guidance(scale=2.0)}, True),
    "negative prompt": ({"conditioning": Conditioning.of(PROMPT, PROMPT * 2)}, True),
    "clip": ({"latents": SOURCE + 0.01}, False),
    "prompt": ({"conditioning": Conditioning.of(PROMPT * 1.1, -PROMPT)}, False),
    "steps": ({"steps": 5}, False),
    "sampler": ({"sampler": "heun"}, False),
    "scheduler": ({"scheduler": "karras"}, False),
    "denoise": ({"denoise": 0.5}, False),
    "windows": ({"context": ContextOptions(length=4, overlap=1)}, False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_remembered_by_content(change):
    options, remembered = CHANGES[change]
    cache, first, again, alone = LastResult(), Smooth(), Smooth(), Smooth()
    sample(first, steps=4, unsampled_latents=cache)
    second = sample(again, **{"steps": 4, "unsampled_latents": cache} | options)
    fresh = sample(alone, **{"steps": 4} | options)
    assert torch.equal(second, fresh)
    assert (again.calls < alone.calls) is remembered


def test_control_frames_are_part_of_the_content(tmp_path):
    unet = MotionUNet(mini.unet_module().eval().requires_grad_(False), None)
    networks = []
    for name, scale in (("one", 1.0), ("other", 1.01)):
        tensors = mini.state(mini.control_module())
        tensors = {key: (tensor * scale).contiguous() for key, tensor in tensors.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
        networks.append(
            load_control_network(
                tmp_path / f"{name}.safetensors", device=torch.device("cpu"), dtype=torch.float32
            )
        )
    frames = draw(FRAMES, 8 * HEIGHT, 8 * WIDTH, 3).sigmoid()
    cache, found = LastResult(), []
    for network, pictures, strength in (
        (networks[0], frames, 1.0),
        (networks[0], frames.clone(), 1.0),
        (networks[1], frames, 1.0),
        (networks[0], frames.flip(0), 1.0),
        (networks[0], frames, 0.9),
    ):
        before = cache._key
        sample(
            unet,
            draw(FRAMES, 4, HEIGHT, WIDTH),
            conditioning=Conditioning.of(draw(1, 7, mini.CROSS), draw(1, 7, mini.CROSS)),
            controls=[Control(network=network, frames=pictures, strength=strength)],
            steps=1,
            unsampled_latents=cache,
        )
        found.append(cache._key == before)
    assert found == [False, True, False, False, False]


def test_progress_never_falls_and_names_what_is_done():
    told = []
    cache = LastResult()
    sample(Smooth(), steps=3, progress=told.append, unsampled_latents=cache)
    fractions = [each.fraction for each in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert [each.message for each in told if each.preview is not None] == [
        *(f"unsampling step {step} of 3" for step in (1, 2, 3)),
        *(f"sampling step {step} of 3" for step in (1, 2, 3)),
    ]
    told.clear()
    sample(Smooth(), steps=3, progress=told.append, unsampled_latents=cache)
    assert told[0].message == "sampling step 1 of 3" and told[0].fraction <= 1 / 3
