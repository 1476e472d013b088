"""Another pack next to this one, with its own model; it reports the models that ComfyUI holds."""

from __future__ import annotations

import gc

import comfy.model_management as memory
import psutil
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from server import PromptServer


class NeighbourModel:
    """Loads a model of another pack through ComfyUI's memory manager, and computes with it."""

    CATEGORY = "probe"
    RETURN_TYPES = ("PROBE_MODEL",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"width": ("INT", {"default": 8})}}

    def load(self, width):
        device = memory.get_torch_device()
        return (ModelPatcher(torch.nn.Linear(width, 1), device, memory.unet_offload_device()),)


class NeighbourWork:
    """Computes with that model, after the images that it waits for."""

    CATEGORY = "probe"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "work"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("PROBE_MODEL",), "images": ("IMAGE",)}}

    def work(self, model, images):
        memory.load_models_gpu([model])
        ones = torch.ones(1, model.model.in_features, device=model.model.weight.device)
        result = model.model(ones)
        return {"ui": {"text": [f"{float(result):.3f}, {len(images)}"]}}


async def told(_request):
    """Loaded models by name, how many of this pack's networks are alive, and resident bytes."""
    gc.collect()
    networks = [type(each).__name__ for each in gc.get_objects() if isinstance(each, ModelPatcher)]
    return web.json_response(
        {
            "loaded": sorted(
                type(each.model.model).__name__ for each in memory.current_loaded_models
            ),
            "patchers": networks.count("WholeModelPatcher"),
            "resident_bytes": psutil.Process().memory_info().rss,
        }
    )


PromptServer.instance.routes.get("/probe")(told)
NODE_CLASS_MAPPINGS = {"ProbeNeighbourModel": NeighbourModel, "ProbeNeighbourWork": NeighbourWork}
