"""Results that are not finite stop a job at once, and the error names possible causes."""

import math

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.unet import PREDICTS_NOISE
from animatediff_v2v.pipeline.models.vae import VaeCodec
from animatediff_v2v.pipeline.prompts.weights import check_prompt
from animatediff_v2v.pipeline.sampling import Conditioning, Guidance
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS

from . import sampled

PROMPTS = Conditioning.of(torch.ones(1, 77, 8), torch.zeros(1, 77, 8))


class Failing:
    """A network whose results are not finite from a certain call on; every step is one call."""

    device, max_frames, beta_schedule = torch.device("cpu"), 32, "linear"
    parameterization = PREDICTS_NOISE

    def __init__(self, *, at=0, number=math.nan, dtype=torch.float32):
        self.calls, self.at, self.number, self.dtype = 0, at, number, dtype

    def __call__(self, sample, *_arguments, **_others):
        self.calls += 1
        noise = torch.zeros_like(sample)
        if self.calls > self.at:
            noise[-1, 0, 0, 0] = self.number
        return noise


def sample(unet, latents=None, conditioning=PROMPTS, **options):
    latents = torch.zeros(4, 4, 2, 2) if latents is None else latents
    options = {"seed": 0, "steps": 5, "guidance": Guidance(scale=1.0)} | options
    return sampled.sample(unet, latents, conditioning, **options)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_step_that_is_not_finite_is_the_last(sampler, number):
    unet = Failing(number=number)
    with pytest.raises(AnimateDiffV2VError, match="Step 1 gives latents that are not finite"):
        sample(unet, sampler=sampler)
    assert unet.calls == 1


def test_a_later_step_is_named():
    unet = Failing(at=2)
    with pytest.raises(AnimateDiffV2VError, match="Step 3 gives latents"):
        sample(unet)
    assert unet.calls == 3


def test_the_causes_are_those_of_the_job():
    with pytest.raises(AnimateDiffV2VError) as caught:
        sample(Failing(dtype=torch.float16), guidance=Guidance(scale=77.0))
    sentence = str(caught.value)
    assert "float16, which overflows: try --dtype float32 or bfloat16" in sentence
    assert "LoRA" in sentence and "the guidance scale (77)" in sentence
    with pytest.raises(AnimateDiffV2VError) as caught:
        sample(Failing())
    assert "float16" not in str(caught.value)


def test_unsampling_stops_too():
    unet = Failing()
    with pytest.raises(AnimateDiffV2VError, match="Step 1 gives latents that are not finite"):
        sample(unet, noise_type="unsample", denoise=0.5)
    assert unet.calls == 1


def test_inputs_that_are_not_finite_are_refused_before_the_first_step():
    sick = torch.zeros(4, 4, 2, 2)
    sick[3, 3, 1, 1] = math.nan
    unet = Failing()
    with pytest.raises(AnimateDiffV2VError, match="latents to restyle hold numbers that are not"):
        sample(unet, sick)
    prompts = Conditioning.of(torch.ones(1, 77, 8), torch.full((1, 77, 8), math.inf))
    with pytest.raises(AnimateDiffV2VError, match="encoded prompt holds numbers that are not fin"):
        sample(unet, conditioning=prompts)
    assert unet.calls == 0


class FailingVae:
    """A VAE that overflows, as some do in float16."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, number):
        self.number = number

    def encode(self, pixels):
        return torch.full((len(pixels), 4, 1, 1), self.number)

    def decode(self, latents):
        return torch.full((len(latents), 3, 8, 8), self.number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_vae_that_overflows_is_named_with_the_remedy(number):
    codec = VaeCodec(FailingVae(number))
    remedy = r"--dtype float32 or bfloat16; ComfyUI: --fp32-vae or --bf16-vae\), or take another"
    with pytest.raises(AnimateDiffV2VError, match=f"makes latents of the frames .*{remedy}"):
        codec.encode(torch.zeros(1, 8, 8, 3))
    with pytest.raises(AnimateDiffV2VError, match=f"The VAE gives frames .*{remedy}"):
        list(codec.decode(torch.zeros(1, 4, 1, 1)))


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a (fox:nan)", "prompt: the weight of 'fox' is nan; it must be from -10 to 10, 1.2 is"),
        ("a (fox:inf)", "the weight of 'fox' is inf"),
        ("a (fox:1e30), red", "the weight of 'fox' is 1e+30"),
        ("(the year: 1990)", "the weight of 'the year' is 1990"),
        ("(((a:-11)))", "the weight of 'a' is -11"),
        ("(" * 40 + "a" + ")" * 40, "the weight of 'a' is 45.2593"),
    ],
)
def test_absurd_weights_in_prompts_are_refused(prompt, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        check_prompt(prompt)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("prompt", ["", "a (fox:10)", "nan inf 1e30", "(a:-10)", "(16:9)", "a:nan"])
def test_usual_weights_are_taken(prompt):
    check_prompt(prompt)
