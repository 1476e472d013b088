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

import comfy.controlnet
import comfy.model_detection
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import comfy.utils
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from nodes import ControlNetApplyAdvanced

PREFIX = "model.diffusion_model."


def config_of(tensors, prefix, *_):
    """Stable Diffusion 1.5 in any size; ComfyUI's loaders know its usual one alone."""
    config = comfy.model_detection.detect_unet_config(tensors, prefix)
    return comfy.supported_models.SD15(config | {"dtype": torch.float32})


def load_model(path):
    tensors = {name: tensor.float() for name, tensor in comfy.utils.load_torch_file(path).items()}
    model = config_of(tensors, PREFIX).get_model(tensors, PREFIX)
    model.load_model_weights(tensors, PREFIX)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.float(), cpu, cpu)


def load_control(path):
    comfy.model_detection.model_config_from_unet = config_of
    tensors = comfy.utils.load_torch_file(path)
    options = {"dtype": torch.float32}
    return comfy.controlnet.load_controlnet_state_dict(tensors, model_options=options)


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
