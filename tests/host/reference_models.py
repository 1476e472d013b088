"""ComfyUI's networks from tiny files; imported where ComfyUI's modules are."""

import comfy.controlnet
import comfy.model_detection
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch

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
