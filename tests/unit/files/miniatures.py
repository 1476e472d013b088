"""Small networks in the layouts of real files, made from diffusers' own modules.

The conversion to the original names is written here a second time, independently of the tables of
`pipeline.files`, so that a wrong name in either one is noticed.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from functools import cache

import torch
from animatediff_v2v.pipeline.files import MotionModuleWeights
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    MotionAdapter,
    SparseControlNetModel,
    T2IAdapter,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

CROSS = 64


@cache
def unet_module(channels=(32, 64), layers=1, attends=None, cross=CROSS, in_channels=4):
    attends = attends or (True,) * (len(channels) - 1) + (False,)
    torch.manual_seed(0)
    return UNet2DConditionModel(
        in_channels=in_channels,
        block_out_channels=channels,
        layers_per_block=layers,
        cross_attention_dim=cross,
        attention_head_dim=8,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
    )


def as_diffusers(unet):
    """Return diffusers' UNet with the weights of one of this package."""
    made = UNet2DConditionModel(**asdict(unet.config)).eval()
    made.load_state_dict(unet.state_dict())
    return made


@cache
def control_module(channels=(32, 64), layers=1, attends=None, cross=CROSS):
    attends = attends or (True,) * (len(channels) - 1) + (False,)
    torch.manual_seed(5)
    control = ControlNetModel(
        block_out_channels=channels,
        layers_per_block=layers,
        cross_attention_dim=cross,
        attention_head_dim=8,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        conditioning_embedding_out_channels=(8, 12, 16, 24),
    )
    for name, parameter in control.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond")):
            # A network as diffusers makes it does nothing yet.
            torch.nn.init.normal_(parameter, std=0.2)
    return control


@cache
def adapter_module(channels=(32, 64), in_channels=3):
    torch.manual_seed(6)
    return T2IAdapter(in_channels, list(channels), num_res_blocks=2, downscale_factor=8)


@cache
def sparsectrl_module(channels=(32, 64), layers=1, attends=None, cross=CROSS, *, takes_latents):
    """A SparseCtrl network with the motion modules of v3: one attention in each."""
    attends = attends or (True,) * (len(channels) - 1) + (False,)
    torch.manual_seed(8)
    sparse = SparseControlNetModel(
        conditioning_channels=4 if takes_latents else 3,
        block_out_channels=channels,
        layers_per_block=layers,
        cross_attention_dim=cross,
        down_block_types=tuple(
            "CrossAttnDownBlockMotion" if a else "DownBlockMotion" for a in attends
        ),
        conditioning_embedding_out_channels=(8, 12, 16, 24),
        use_simplified_condition_embedding=takes_latents,
    )
    for name, parameter in sparse.named_parameters():
        if name.startswith("controlnet_"):
            # A network as diffusers makes it does nothing yet.
            torch.nn.init.normal_(parameter, std=0.2)
        elif "motion_modules" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return sparse


@cache
def vae_module(channels=(32, 64), layers=1, latent=4):
    torch.manual_seed(1)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=layers,
    )


@cache
def tiny_vae_module(latent=4, width=8):
    torch.manual_seed(6)
    return AutoencoderTiny(
        latent_channels=latent,
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
    )


@cache
def text_module(hidden=CROSS, layers=2, vocabulary=100):
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 4,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
    )
    return CLIPTextModel(config)


@cache
def motion_module(channels=(32, 64), layers=1, mid=True, frames=32):
    torch.manual_seed(3)
    adapter = MotionAdapter(
        block_out_channels=channels,
        motion_layers_per_block=layers,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=8,
        motion_norm_num_groups=32,
        motion_max_seq_length=frames,
        use_motion_mid_block=mid,
    )
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return adapter


def state(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def text_state(module):
    """Return a text encoder's tensors, with the ``text_model.`` that transformers 5 removed."""
    return {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in state(module).items()
        if not name.endswith("position_ids")
    }


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet_to_ldm(unet, layers=1, prefix="model.diffusion_model."):
    attending_ups = {int(m[1]) for n in unet if (m := re.match(r"up_blocks\.(\d+)\.attent", n))}

    def block(match):
        side, level, part, layer = match[1], int(match[2]), match[3], int(match[4])
        if side == "down":
            if part == "downsamplers":
                return f"input_blocks.{(layers + 1) * (level + 1)}.0.op"
            return f"input_blocks.{(layers + 1) * level + layer + 1}.{int(part == 'attentions')}"
        index = (layers + 1) * level + layer
        if part == "upsamplers":
            return f"output_blocks.{index + layers}.{1 + (level in attending_ups)}.conv"
        return f"output_blocks.{index}.{int(part == 'attentions')}"

    renamed = {}
    for name, tensor in unet.items():
        ldm = name
        for ours, theirs in _UNET_ENDS.items():
            ldm = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", ldm)
        ldm = re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(?:\.conv(?=\.))?", block, ldm)
        if "resnets" in name:
            ldm = re.sub(rf"\b({'|'.join(_RESNET)})\b", lambda m: _RESNET[m[1]], ldm)
        renamed[prefix + ldm] = tensor
    return renamed


def control_to_ldm(control, layers=1, prefix="control_model."):
    renamed = unet_to_ldm(control, layers, prefix=prefix)
    for name in list(renamed):
        ldm = re.sub(r"controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0", name)
        ldm = ldm.replace("controlnet_mid_block", "middle_block_out.0")
        ldm = ldm.replace("controlnet_cond_embedding.conv_in", "input_hint_block.0")
        ldm = ldm.replace("controlnet_cond_embedding.conv_out", "input_hint_block.14")
        ldm = re.sub(
            r"controlnet_cond_embedding\.blocks\.(\d+)",
            lambda match: f"input_hint_block.{2 * int(match[1]) + 2}",
            ldm,
        )
        renamed[ldm] = renamed.pop(name)
    return renamed


def adapter_to_original(channels=(32, 64), in_channels=3):
    """Convert to TencentARC's names, which number all residual blocks in one sequence."""
    renamed = {}
    for name, tensor in state(adapter_module(channels, in_channels)).items():
        original = name.removeprefix("adapter.")
        original = re.sub(
            r"body\.(\d+)\.resnets\.(\d+)",
            lambda match: f"body.{2 * int(match[1]) + int(match[2])}",
            original,
        )
        original = re.sub(
            r"body\.(\d+)\.in_conv", lambda match: f"body.{2 * int(match[1])}.in_conv", original
        )
        renamed[original] = tensor
    return renamed


IMAGE_CHANNELS, IMAGE_TOKENS = 24, 7


def ip_adapter(family, unet=None, *, text=CROSS, image=IMAGE_CHANNELS):
    """Return random weights under tencent-ailab's names, for a UNet of diffusers."""
    unet = unet or unet_module()
    generator = torch.Generator().manual_seed(7)
    width, inner = 32, 128  # of the resampler: two heads of 64

    def draw(*shape):
        spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        return torch.randn(*shape, generator=generator) * spread

    def norm(channels):
        return {"weight": 1 + draw(channels), "bias": draw(channels)}

    shapes = {
        "base": {"proj.weight": (4 * text, image), "proj.bias": (4 * text,)},
        "full": {
            "proj.0.weight": (image, image),
            "proj.0.bias": (image,),
            "proj.2.weight": (text, image),
            "proj.2.bias": (text,),
        },
        "plus": {
            "latents": (1, 5, width),
            "proj_in.weight": (width, image),
            "proj_in.bias": (width,),
            "proj_out.weight": (text, width),
            "proj_out.bias": (text,),
        }
        | {
            f"layers.{layer}.{name}.weight": shape
            for layer in range(4)
            for name, shape in {
                "0.to_q": (inner, width),
                "0.to_kv": (2 * inner, width),
                "0.to_out": (width, inner),
                "1.1": (4 * width, width),
                "1.3": (width, 4 * width),
            }.items()
        },
    }[family]
    norms = {
        "base": {"norm": text},
        "full": {"proj.3": text},
        "plus": {"norm_out": text}
        | {f"layers.{n}.{name}": width for n in range(4) for name in ("0.norm1", "0.norm2", "1.0")},
    }[family]
    projection = {name: draw(*shape) for name, shape in shapes.items()}
    for name, channels in norms.items():
        projection |= {f"{name}.{part}": tensor for part, tensor in norm(channels).items()}
    tensors = {f"image_proj.{name}": tensor for name, tensor in projection.items()}
    # Their numbers count all attentions, of which every second one looks at the text.
    names = [name for name in unet.attn_processors if "attn2" in name]
    for index, name in enumerate(names):
        channels = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * index + 1}.{part}.weight"] = draw(channels, text) * 2
    return tensors


_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def vae_to_ldm(vae, levels=2, prefix="first_stage_model."):
    renamed = {}
    for name, tensor in vae.items():
        ldm = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        ldm = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", ldm)
        ldm = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", ldm)
        ldm = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up_blocks.{levels - 1 - int(m[1])}.", ldm)
        ldm = re.sub(r"up_blocks\.(\d+)\.resnets", r"up.\1.block", ldm)
        ldm = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample", ldm)
        ldm = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", ldm)
        if "attentions" in name:
            ldm = ldm.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, theirs in _VAE_ATTENTION.items():
                ldm = ldm.replace(f".{ours}.", f".{theirs}.")
        convolution = "attentions" in name and tensor.ndim == 2
        renamed[prefix + ldm] = tensor[:, :, None, None] if convolution else tensor
    return renamed


def tiny_decoder_to_original(tiny_vae, prefix=""):
    """Return the file taesd_decoder, whose first layer limits the latents and has no tensors."""
    names = {name: re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name) for name in tiny_vae}
    return {
        f"{prefix}{int(found[1]) + 1}.{found[2]}": tiny_vae[name]
        for name, found in names.items()
        if found
    }


def text_to_ldm(text, prefix="cond_stage_model.transformer.", old=False):
    return {prefix + (n.removeprefix("text_model.") if old else n): t for n, t in text.items()}


def sparsectrl(layout="original", *, takes_latents):
    """Return the weights in a file's layout. Published files of the original have no tables."""
    weights = state(sparsectrl_module(takes_latents=takes_latents))
    if layout == "diffusers":
        return weights
    motion = {name: weights.pop(name) for name in list(weights) if "motion_modules" in name}
    tables = layout == "original with tables"
    return weights | motion_to_original(motion, tables=tables, attentions=1)


def sparsectrl_for_the_miniature():
    """Return a drawn SparseCtrl model for the miniature, whose middle block moves as its own does.

    It has diffusers' layout.
    """
    tensors = state(
        sparsectrl_module((64, 96, 96), attends=(True,) * 3, cross=32, takes_latents=True)
    )
    last = "down_blocks.2."
    moving = {name for name in tensors if name.startswith(f"{last}motion_modules.")}
    return tensors | {
        f"mid_block.{name.removeprefix(last)}": tensors[name].clone() for name in moving
    }


def motion_to_original(adapter, tables=True, attentions=2):
    renamed = {}
    for name, tensor in adapter.items():
        original = re.sub(
            r"motion_modules\.(\d+)\.", r"motion_modules.\1.temporal_transformer.", name
        )
        original = original.replace(".norm3.", ".ff_norm.")
        for number in (1, 2):
            original = original.replace(f".norm{number}.", f".norms.{number - 1}.")
            original = original.replace(f".attn{number}.", f".attention_blocks.{number - 1}.")
        if not original.endswith("pos_embed.pe"):
            renamed[original] = tensor
        elif tables:
            for block in range(attentions):
                renamed[
                    original.replace("pos_embed.pe", f"attention_blocks.{block}.pos_encoder.pe")
                ] = tensor.clone()
    return renamed


def sinusoid(frames, channels):
    """Return the table of guoyww/AnimateDiff, animatediff/models/motion_module.py."""
    position = torch.arange(frames).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    table = torch.zeros(1, frames, channels)
    table[0, :, 0::2], table[0, :, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table


def checkpoint(channels=(32, 64), layers=1, *, vae=True, text=True, old_text=False):
    """Return a complete small checkpoint in the LDM layout."""
    tensors = unet_to_ldm(state(unet_module(channels, layers)), layers)
    if vae:
        tensors |= vae_to_ldm(state(vae_module()))
    if text:
        tensors |= text_to_ldm(text_state(text_module()), old=old_text)
    return tensors


def tiny_checkpoint():
    """Return the smallest complete checkpoint: one level in every network."""
    tensors = unet_to_ldm(state(unet_module(channels=(32,), attends=(True,))))
    tensors |= vae_to_ldm(state(vae_module(channels=(32,))), levels=1)
    return tensors | text_to_ldm(text_state(text_module(layers=1)))


def every_lora_family():
    """Return a file with one layer of each family, for the miniature UNet."""
    block = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    width, rank = 32, 4
    tensors = {
        f"{block}_attn1_to_q.lora_up.weight": (width, rank),
        f"{block}_attn1_to_q.lora_down.weight": (rank, width),
        f"{block}_attn1_to_q.dora_scale": (width, 1),
        f"{block}_attn1_to_k.hada_w1_a": (width, rank),
        f"{block}_attn1_to_k.hada_w1_b": (rank, width),
        f"{block}_attn1_to_k.hada_w2_a": (width, rank),
        f"{block}_attn1_to_k.hada_w2_b": (rank, width),
        f"{block}_attn1_to_v.lokr_w1": (4, 4),
        f"{block}_attn1_to_v.lokr_w2": (8, 8),
        f"{block}_attn1_to_out_0.oft_blocks": (8, 4, 4),
        f"{block}_attn2_to_q.a1.weight": (width, rank),
        f"{block}_attn2_to_q.a2.weight": (rank, width),
        f"{block}_attn2_to_q.b1.weight": (width, rank),
        f"{block}_attn2_to_q.b2.weight": (rank, width),
        f"{block}_attn2_to_k.diff": (width, CROSS),
        f"{block}_attn2_to_v.weight": (width,),
        f"{block}_attn2_to_v.on_input": (),
        f"{block}_norm1.w_norm": (width,),
        f"{block}_norm1.b_norm": (width,),
        "lora_unet_conv_in.lora_up.weight": (width, rank, 1, 1),
        "lora_unet_conv_in.lora_down.weight": (rank, 4, 1, 1),
        "lora_unet_conv_in.lora_mid.weight": (rank, rank, 3, 3),
        "lora_unet_conv_in.alpha": (),
    }
    generator = torch.Generator().manual_seed(4)
    filled = {name: torch.randn(shape, generator=generator) for name, shape in tensors.items()}
    return filled | {f"{block}_attn2_to_v.on_input": torch.tensor(0)}


def motion_weights():
    """Return a v2 motion module in the pack's own layout."""
    tensors = motion_to_original(state(motion_module()))
    tables = {name: tensor for name, tensor in tensors.items() if name.endswith(".pe")}
    weights = {name: tensor for name, tensor in tensors.items() if name not in tables}
    return MotionModuleWeights(weights, tables, 32, has_mid_block=True, family="v2")
