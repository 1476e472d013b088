# ruff: noqa: E402, I001 (ComfyUI must be told what to do before its modules are imported)
"""Sample with ComfyUI's own code: run by its interpreter, in its folder, not by pytest.

Usage: python reference_sampling.py CASES.json FOLDER

FOLDER holds checkpoint.safetensors, controlnet.safetensors and inputs.safetensors (latents,
positive, negative, frames); what each case gives is written to <case>.safetensors.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import comfy.options

comfy.options.args_parsing = False

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.sample
import comfy.utils
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from nodes import ControlNetApplyAdvanced

sys.path.insert(0, str(Path(__file__).parent))

from reference_models import load_control, load_model


def run(case, model, control, inputs):
    positive, negative = ([[inputs[name], {}]] for name in ("positive", "negative"))
    for apply in case["controls"]:
        positive, negative = ControlNetApplyAdvanced().apply_controlnet(
            positive,
            negative,
            control,
            inputs["frames"],
            apply["strength"],
            apply["start"],
            apply["end"],
        )[:2]
    if case["sampling"] != "eps" or case["zsnr"]:
        model = ModelSamplingDiscrete().patch(model, case["sampling"], case["zsnr"])[0]
    latents = inputs["latents"]
    noise = comfy.sample.prepare_noise(latents, case["seed"])
    mask = inputs.get(case.get("mask"))
    return comfy.sample.sample(
        model,
        noise,
        case["steps"],
        case["cfg"],
        case["sampler"],
        case["scheduler"],
        positive,
        negative,
        latents,
        denoise=case["denoise"],
        noise_mask=mask,
        disable_pbar=True,
        seed=case["seed"],
    )


def main():
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    inputs = comfy.utils.load_torch_file(str(folder / "inputs.safetensors"))
    model = load_model(str(folder / "checkpoint.safetensors"))
    control = load_control(str(folder / "controlnet.safetensors"))
    for name, case in cases.items():
        with torch.inference_mode():
            samples = run(case, model, control, inputs)
        path = folder / f"{name}.safetensors"
        comfy.utils.save_torch_file({"samples": samples.contiguous()}, str(path))


main()
