"""The miniature's networks, and functions that write them in the usual file layouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from animatediff_v2v.pipeline.files.controlnet import controlnet_table
from animatediff_v2v.pipeline.files.ip_adapter import (
    IpAdapterSizes,
    IpAdapterWeights,
    ip_adapter_table,
)
from animatediff_v2v.pipeline.files.sparsectrl import SparseCtrlWeights
from animatediff_v2v.pipeline.files.tensor_specs import TensorSpec
from animatediff_v2v.pipeline.files.text_encoder_layout import text_encoder_table
from animatediff_v2v.pipeline.files.unet_layout import unet_table
from animatediff_v2v.pipeline.files.vae_layout import vae_table
from animatediff_v2v.pipeline.models.ip_adapter import IpAdapter
from animatediff_v2v.pipeline.models.motion_module import MotionModules, sinusoidal_encoding
from animatediff_v2v.pipeline.models.ops.image_prompt import cross_attentions
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

# The loader infers the sizes from the shapes, as for any file; other values are those of SD1.5: 8
# heads, 32 norm groups. A group needs at least two channels, or the norm would remove uniform
# colours.
LEVELS = (64, 96, 96)
TEXT_CHANNELS = 32
MOTION_FRAMES = 32
LATENT_SCALE = 0.18215

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": LEVELS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (64, 64, 64, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 32,
    "scaling_factor": LATENT_SCALE,
}
CONTROLNET = {name: UNET[name] for name in UNET if name not in ("out_channels", "up_block_types")}
# Channels of the control frames' encoder; a quarter of Stable Diffusion's.
CONTROLNET |= {"conditioning_embedding_out_channels": (16, 16, 32, 64), "conditioning_channels": 3}
# A SparseCtrl for pictures takes their latents and a mask.
SPARSECTRL = {name: UNET[name] for name in UNET if name not in ("out_channels", "up_block_types")}
SPARSECTRL |= {"conditioning_channels": 5}
TEXT_ENCODER = {
    "vocab_size": 49_408,
    "hidden_size": TEXT_CHANNELS,
    "intermediate_size": 4 * TEXT_CHANNELS,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
}
VISION_CHANNELS = 32
VISION = {
    "hidden_size": VISION_CHANNELS,
    "intermediate_size": 4 * VISION_CHANNELS,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": VISION_CHANNELS,
    "hidden_act": "quick_gelu",
}
IMAGE_TOKENS = 4


def new_vae() -> AutoencoderKL:
    """Return a new VAE."""
    return AutoencoderKL(**VAE)


def new_unet() -> UNet2DConditionModel:
    """Return a new UNet."""
    return UNet2DConditionModel(**UNET)


def new_text_encoder() -> ClipTextModel:
    """Return a new text encoder, with small embeddings as in CLIP."""
    network = ClipTextModel(**TEXT_ENCODER)
    for embedding in network.text_model.embeddings.values():
        nn.init.normal_(embedding.weight, std=0.02)
    return network


def new_motion_modules() -> MotionModules:
    """Return new motion modules without effect: their last layers are zero."""
    modules = MotionModules(
        block_channels=LEVELS, layers_per_block=1, max_frames=MOTION_FRAMES, mid=True
    )
    for name, buffer in modules.named_buffers():
        if name.endswith(".pe"):
            buffer.copy_(sinusoidal_encoding(*buffer.shape[1:]))
    for name, parameter in modules.named_parameters():
        if ".temporal_transformer.proj_out." in name:
            nn.init.zeros_(parameter)
    return modules


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Return a ControlNet with the weights of the UNet's down blocks; its last layers are zero."""
    controlnet = ControlNetModel(**CONTROLNET)
    shared = set(controlnet.state_dict()) & set(unet.state_dict())
    weights = {name: unet.state_dict()[name] for name in shared}
    controlnet.load_state_dict(weights, strict=False)
    return controlnet


def new_sparsectrl(unet: nn.Module, modules: MotionModules) -> SparseControlNetwork:
    """Return a SparseCtrl with the weights of the UNet's and the motion modules' down blocks.

    It takes keyframes by the weights that the UNet takes its sample by. Its last layers are nearly
    zero: with zeros, no other layer would be trained at first.
    """
    weights = SparseCtrlWeights(
        SPARSECTRL,
        tensors={},
        motion={},
        attentions=2,
        max_frames=MOTION_FRAMES,
        has_mid_block=True,
        takes_latents=True,
    )
    sparsectrl = SparseControlNetwork(weights, name="the miniature's SparseCtrl")
    spatial, motion = unet.state_dict(), modules.state_dict()
    known = {f"network.{name}": tensor for name, tensor in spatial.items()} | motion
    own = sparsectrl.state_dict()
    network = sparsectrl.network
    taken = {name: known[name] for name in own if name in known}
    encoder = network.controlnet_cond_embedding
    sparsectrl.load_state_dict(taken, strict=False)
    with torch.no_grad():
        encoder.weight[:, :4] = spatial["conv_in.weight"]
        encoder.bias.zero_()
    for output in (*network.controlnet_down_blocks, network.controlnet_mid_block):
        nn.init.normal_(output.weight, std=1e-3)
        nn.init.zeros_(output.bias)
    return sparsectrl


def new_vision_model() -> CLIPVisionModelWithProjection:
    """Return a new vision model, with the sizes of CLIP's ViT-L/14 except for the widths."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))


def new_ip_adapter(unet: UNet2DConditionModel) -> IpAdapter:
    """Return an IP-Adapter with the keys and values that the UNet has for text."""
    attentions = list(cross_attentions(unet))
    sizes = IpAdapterSizes(
        VISION_CHANNELS,
        TEXT_CHANNELS,
        IMAGE_TOKENS,
        layers=tuple(attention.to_k.out_features for attention in attentions),
    )
    adapter = IpAdapter(IpAdapterWeights("base", sizes, {}), name="the miniature's IP-Adapter")
    for layer, attention in zip(adapter.layers, attentions, strict=True):
        layer.to_k_ip.load_state_dict(attention.to_k.state_dict())
        layer.to_v_ip.load_state_dict(attention.to_v.state_dict())
    return adapter


def write_controlnet(path: Path, controlnet: nn.Module) -> None:
    """Write a ControlNet as one fp16 file in the original (LDM) layout."""
    table = controlnet_table(CONTROLNET)
    _save(_renamed(controlnet.state_dict(), table, "control_model."), path)


def write_sparsectrl(path: Path, sparsectrl: nn.Module) -> None:
    """Write a SparseCtrl as one fp16 file in AnimateDiff's original layout."""
    tensors = sparsectrl.state_dict()
    _save({name.removeprefix("network."): tensor for name, tensor in tensors.items()}, path)


def write_checkpoint(
    path: Path, *, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module
) -> None:
    """Write the three networks as one fp16 file in Stable Diffusion 1's own (LDM) layout."""
    parts = (
        ("model.diffusion_model.", unet, unet_table(UNET)),
        ("first_stage_model.", vae, vae_table(VAE)),
        (
            "cond_stage_model.transformer.text_model.",
            text_encoder,
            text_encoder_table(TEXT_ENCODER),
        ),
    )
    tensors: dict[str, Tensor] = {}
    for prefix, network, table in parts:
        tensors |= _renamed(network.state_dict(), table, prefix)
    _save(tensors, path)


def write_motion_module(path: Path, modules: nn.Module) -> None:
    """Write motion modules as one fp16 file in AnimateDiff's original layout."""
    _save(modules.state_dict(), path)


def write_vision_model(path: Path, vision: nn.Module) -> None:
    """Write a vision model as one fp16 file in the layout of Hugging Face's CLIP."""
    _save(vision.state_dict(), path)


def read_vision_model(path: Path) -> CLIPVisionModelWithProjection:
    """Load a file of `write_vision_model`, in float32."""
    vision = new_vision_model()
    vision.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return vision.eval()


def write_ip_adapter(path: Path, adapter: IpAdapter) -> None:
    """Write an IP-Adapter as one fp16 file in its original layout."""
    # The original numbers all attentions of a UNet; every second one is a cross-attention.
    numbers = list(range(1, 2 * len(adapter.layers), 2))
    _save(
        _renamed(adapter.state_dict(), ip_adapter_table(adapter.sizes, "base", numbers), ""), path
    )


def _renamed(
    tensors: Mapping[str, Tensor], table: Iterable[TensorSpec], prefix: str
) -> dict[str, Tensor]:
    return {prefix + spec.ldm_name: tensors[spec.name].reshape(spec.shape) for spec in table}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, path)
