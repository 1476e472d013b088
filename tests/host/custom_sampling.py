# ruff: noqa: E402 (ComfyUI must be told what to do before its modules are imported)
"""Compare this pack's samplers with ComfyUI's: run by its interpreter, not by pytest.

Usage, in ComfyUI's folder: python custom_sampling.py PACK

Prints, as JSON, the relative errors of samplers and schedulers by name, and the sentences of what
is refused. ComfyUI's samplers run through `sampler_object`, over the same analytic model.
"""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path.cwd()))

import comfy.options

comfy.options.args_parsing = False

import comfy.cli_args

comfy.cli_args.args.cpu = True

# Before nodes of ComfyUI put its folder `comfy` first in the path, which has another `utils`.
import comfy.samplers
import torch
import utils.extra_config  # noqa: F401

PACK = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location(
    "animatediff_v2v", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
)
sys.modules["animatediff_v2v"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["animatediff_v2v"])

from animatediff_v2v.nodes.host.custom_sampler import HostSampler, _ModelSampling
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.sampling import Guidance, SamplingSettings
from animatediff_v2v.pipeline.sampling.denoise import DenoiseBoth
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas
from comfy_extras.nodes_align_your_steps import AlignYourStepsScheduler
from comfy_extras.nodes_custom_sampler import BasicScheduler, KSamplerSelect

STEPS = {"dpmpp_sde": 8, "dpmpp_sde_gpu": 8}  # a Brownian tree takes seconds
SCHEDULE = NoiseSchedule("sqrt_linear")
SETTINGS = SamplingSettings(seed=7, guidance=Guidance(scale=2.0))
SOURCE, NOISE = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))


class Analytic:
    """A model with a guided and an unconditional prediction; it can tell its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, noisy, sigma, step):
        self.calls.append((round(float(sigma), 4), step))
        flat = torch.tanh(noisy) / (1 + 0.1 * sigma)
        self._unconditional = 0.9 * flat
        return flat + 0.05 * torch.sin(3 * noisy / (1 + sigma))

    def keep_unconditional(self):
        pass

    def unconditional(self):
        return self._unconditional


def through_host(sampler, sigmas):
    model = Analytic()
    result = HostSampler(sampler)(
        DenoiseBoth(model, model),
        source=SOURCE,
        noise=NOISE,
        sigmas=sigmas,
        schedule=SCHEDULE,
        settings=SETTINGS,
    )
    return result, model.calls


def by_name(name, sigmas):
    model, spec = Analytic(), SAMPLERS[name]
    noisy = SCHEDULE.noised(SOURCE, NOISE, sigmas[0])
    step_noise = spec.step_noise(noisy, SETTINGS.seed, sigmas)
    return spec.run(DenoiseBoth(model, model), noisy, sigmas, step_noise, SCHEDULE), model.calls


def difference(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def sampler_errors():
    errors, other_calls = {}, []
    for name in comfy.samplers.KSampler.SAMPLERS:
        steps = STEPS.get(name, 20)
        sigmas = sampling_sigmas(SCHEDULE, scheduler="karras", steps=steps)
        (ours, our_calls), (theirs, their_calls) = (
            by_name(name, sigmas),
            through_host(KSamplerSelect.execute(name).result[0], sigmas),
        )
        errors[name] = difference(ours, theirs)
        # Second calls of a step differ in the step that they are told, the levels do not.
        if len(our_calls) != len(their_calls) or any(
            not math.isclose(a, b, rel_tol=1e-3)
            for (a, _), (b, _) in zip(our_calls, their_calls, strict=True)
        ):
            other_calls.append(name)
    return errors, other_calls


def scheduler_errors():
    sampling = _ModelSampling(SCHEDULE)
    model = SimpleNamespace(get_model_object=lambda _name: sampling)
    errors = {}
    for name in comfy.samplers.KSampler.SCHEDULERS:
        theirs = {
            1.0: comfy.samplers.calculate_sigmas(sampling, name, 12),
            0.6: BasicScheduler.execute(model, name, 12, 0.6).result[0],
        }
        for denoise, expected in theirs.items():
            ours = sampling_sigmas(SCHEDULE, scheduler=name, steps=12, denoise=denoise)
            errors[f"{name} {denoise}"] = difference(ours, expected)
    return errors


def align_your_steps():
    sigmas = AlignYourStepsScheduler.execute("SD1", 10, 1.0).result[0]
    theirs = through_host(KSamplerSelect.execute("dpmpp_2m").result[0], sigmas)[0]
    return difference(by_name("dpmpp_2m", sigmas)[0], theirs)


class AsksForMore:
    def sample(self, guider, *_arguments):
        return guider.inner_model.diffusion_model


class UnevenLevels:
    def sample(self, guider, _sigmas, _extra, _callback, noise, *_others):
        return guider(noise, torch.tensor([1.0, 2.0, 3.0]))


class OtherShape:
    def sample(self, guider, _sigmas, _extra, _callback, noise, *_others):
        return noise[:1]


def refusals():
    said = {}
    sigmas = torch.tensor([2.0, 1.0, 0.0])
    for sampler in (AsksForMore(), UnevenLevels(), OtherShape(), "euler"):
        try:
            through_host(sampler, sigmas)
        except AnimateDiffV2VError as error:
            said[type(sampler).__name__] = str(error)
    return said


def main():
    with torch.inference_mode():
        samplers, other_calls = sampler_errors()
        found = {
            "samplers": samplers,
            "other_calls": other_calls,
            "schedulers": scheduler_errors(),
            "align_your_steps": align_your_steps(),
            "refusals": refusals(),
        }
    print("\nRESULT " + json.dumps(found))


main()
