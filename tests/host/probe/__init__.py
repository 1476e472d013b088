"""Another pack next to this one, with its own model; it reports the models that ComfyUI holds."""

from __future__ import annotations

import gc

import comfy.model_management as memory
import psutil
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.supported_models import SD15
from comfy.taesd.taesd import TAESD
from server import PromptServer

# Stable Diffusion 1.5 at a tenth of its widths.
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "legacy": False,
    "context_dim": 64,
    "dtype": torch.float32,
}


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


class NarrowNetworks:
    """A UNet, a prompt for it, and a tiny VAE, with drawn weights."""

    CATEGORY = "probe"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "VAE")
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def draw(self):
        device = memory.get_torch_device()
        network, vae = SD15(UNET).get_model({}, ""), TAESD()
        generator = torch.Generator().manual_seed(1)
        for part in (network.diffusion_model, vae.taesd_encoder, vae.taesd_decoder):
            for name, tensor in part.state_dict().items():
                if tensor.ndim == 1:
                    tensor.fill_(float(name.endswith("weight")))
                else:
                    tensor.normal_(generator=generator).mul_(tensor[0].numel() ** -0.5)
        prompt = torch.randn(1, 77, UNET["context_dim"], generator=generator)
        model = ModelPatcher(network.to(device), device, memory.unet_offload_device())
        return (model, [[prompt, {}]], VAE(sd=vae.state_dict()))


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
NODE_CLASS_MAPPINGS = {
    "ProbeNeighbourModel": NeighbourModel,
    "ProbeNeighbourWork": NeighbourWork,
    "ProbeNarrowNetworks": NarrowNetworks,
}
