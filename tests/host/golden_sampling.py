# ruff: noqa: E402 (ComfyUI must be told what to do before its modules are imported)
"""Write tests/unit/sampling/golden anew: run by ComfyUI's interpreter, in its folder.

Usage: python golden_sampling.py GOLDEN_FOLDER [ANIMATEDIFF_EVOLVED_FOLDER]

A table keeps its cases: their names say what to compute. For a new case add its name with an
empty list. Windows are AnimateDiff-Evolved's, and stay as they are unless its folder is given.
"""

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

sys.path.insert(0, str(Path.cwd()))

import comfy.options

comfy.options.args_parsing = False

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.model_sampling
import comfy.samplers
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscreteDistilled
from comfyui_version import __version__ as version

SHOWN = [0, 13, 40, 71]
# Of AnimateDiff-Evolved's beta schedules: ComfyUI's names, whose levels are averaged, the steps
# that a model was distilled from, and the last beta.
BETAS = {
    "sqrt_linear": (["sqrt_linear"], None, 0.012),
    "linear": (["linear"], None, 0.012),
    "lcm": (["linear"], 50, 0.012),
    "linear (AnimateDiff-SDXL)": (["linear"], None, 0.02),
    "avg(sqrt_linear,linear)": (["linear", "sqrt_linear"], None, 0.012),
    "lcm avg(sqrt_linear,linear)": (["linear", "sqrt_linear"], 50, 0.012),
    "lcm[100_ots]": (["linear"], 100, 0.012),
    "lcm >> sqrt_linear": (["sqrt_linear"], 50, 0.012),
    "sqrt": (["sqrt"], None, 0.012),
    "cosine": (["cosine"], None, 0.012),
    # ComfyUI's own of this name fails; its formula is that of cosine.
    "squaredcos_cap_v2": (["cosine"], None, 0.012),
}


def model_sampling(beta_schedule):
    names, steps, end = BETAS[beta_schedule]
    parent, options = comfy.model_sampling.ModelSamplingDiscrete, {}
    if steps is not None:
        parent, options = ModelSamplingDiscreteDistilled, {"original_timesteps": steps}
    kind = type("ModelSampling", (parent, comfy.model_sampling.EPS), options)
    settings = {"linear_start": 0.00085, "linear_end": end}
    all_of = [
        kind(SimpleNamespace(sampling_settings=settings | {"beta_schedule": name}))
        for name in names
    ]
    all_of[0].set_sigmas(sum(each.sigmas for each in all_of) / len(all_of))
    return all_of[0]


def sigmas_of(sampling, *, sampler, scheduler, steps, denoise):
    model = SimpleNamespace(get_model_object=lambda _name: sampling)
    sampler = comfy.samplers.KSampler(
        model, steps, torch.device("cpu"), sampler, scheduler, float(denoise)
    )
    return sampler.sigmas


class WavyModel:
    """The denoiser of test_samplers.py, as ComfyUI's samplers see a model."""

    def __init__(self, sampling):
        self.calls = 0
        self.inner_model = SimpleNamespace(
            inner_model=SimpleNamespace(model_sampling=sampling),
            model_patcher=SimpleNamespace(get_model_object=lambda _name: sampling),
        )

    def __call__(self, noisy, sigma, model_options=None, **_):
        self.calls += 1
        sigma = sigma.reshape(-1, 1, 1, 1)
        flat = torch.tanh(noisy) / (1 + 0.1 * sigma)
        denoised = flat + 0.05 * torch.sin(3 * noisy / (1 + sigma))
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            denoised = function({"denoised": denoised, "uncond_denoised": 0.9 * flat})
        return denoised


def sampled(case):
    name, scheduler, steps, denoise, seed = case.split()
    sampling = model_sampling("sqrt_linear")
    sigmas = sigmas_of(
        sampling, sampler=name, scheduler=scheduler, steps=int(steps), denoise=denoise
    )
    start = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(99))
    model = WavyModel(sampling)
    run = comfy.samplers.sampler_object(name).sampler_function
    arguments = {"extra_args": {"seed": int(seed)}, "callback": None, "disable": True}
    result = run(model, start * sigmas[0], sigmas, **arguments)
    elements = [rounded(each) for each in result.flatten()[SHOWN].tolist()]
    return [elements, rounded(float(result.norm())), model.calls]


def levels(case):
    beta_schedule, scheduler, sampler, steps, denoise = case.rsplit(maxsplit=4)
    sigmas = sigmas_of(
        model_sampling(beta_schedule),
        sampler=sampler,
        scheduler=scheduler,
        steps=int(steps),
        denoise=denoise,
    )
    return [rounded(each) for each in sigmas.tolist()]


def rounded(number):
    return float(f"{number:.7g}")


def evolved_windows(folder):
    """AnimateDiff-Evolved's module of windows, and what gives those of a case."""
    package = ModuleType("evolved")
    package.__path__ = [str(Path(folder) / "animatediff")]
    sys.modules["evolved"] = package
    spec = importlib.util.find_spec("evolved.context")
    context = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = context
    spec.loader.exec_module(context)

    def windows(case):
        schedule, *numbers = case.split()
        frames, length, overlap, stride, closed, step = map(int, numbers)
        options = context.ContextOptions(
            context_length=length,
            context_stride=stride,
            context_overlap=overlap,
            context_schedule=schedule,
            closed_loop=bool(closed),
        )
        options.step = step
        found = context.get_context_windows(frames, options)
        return [_as_span([int(each) for each in window], frames) for window in found]

    return windows


def _as_span(window, frames):
    distances = {(after - before) % frames for before, after in pairwise(window)} or {1}
    (distance,) = distances
    return [window[0], distance, len(window)]


def write(path, key, compute, *, source):
    table = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"  {json.dumps(case)}: {json.dumps(compute(case), separators=(',', ':'))}"
        for case in table[key]
    ]
    source = json.dumps(source + table["source"][table["source"].index(",") :])
    rows = ",\n".join(lines)
    text = f'{{\n "source": {source},\n "{key}": {{\n{rows}\n }}\n}}\n'
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(lines)} cases")


def main():
    folder, *evolved = sys.argv[1:]
    folder = Path(folder)
    write(folder / "samplers.json", "results", sampled, source=f"ComfyUI {version}")
    write(folder / "sigmas.json", "sigmas", levels, source=f"ComfyUI {version}")
    if evolved:
        windows = evolved_windows(evolved[0])
        table = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
        source = table["source"].partition(",")[0]
        write(folder / "windows.json", "windows", windows, source=source)


if __name__ == "__main__":
    main()
