"""A small file of every kind that users have: real key names, and the expected recognition."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from . import miniatures as mini


def zeros(**shapes):
    return {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}


def named(*names, shape=(8, 8)):
    return {name: torch.zeros(shape, dtype=torch.float16) for name in names}


def motion(*, mid, frames, layout="original", tables=True):
    adapter = mini.state(mini.motion_module(mid=mid, frames=frames))
    return mini.motion_to_original(adapter, tables=tables) if layout == "original" else adapter


def motion_lora(spell=lambda name: name):
    block = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
    place = f"{block}.attention_blocks.0.processor.to_q_lora"
    return {
        spell(f"{place}.down.weight"): torch.ones(4, 32),
        spell(f"{place}.up.weight"): torch.ones(32, 4),
    }


def lora(layer, *, up="lora_up", down="lora_down", width=mini.CROSS):
    return {
        f"{layer}.{up}.weight": torch.ones(32, 4),
        f"{layer}.{down}.weight": torch.ones(4, width),
    }


def peft(layer, width=mini.CROSS):
    return lora(layer, up="lora_B", down="lora_A", width=width)


def unet(cross=mini.CROSS, in_channels=4, prefix="model.diffusion_model."):
    return mini.unet_to_ldm(
        mini.state(mini.unet_module(cross=cross, in_channels=in_channels)), prefix=prefix
    )


BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
KOHYA = f"lora_unet_{BLOCK.replace('.', '_')}"
BIG_UNET_LORA = "lora_unet_input_blocks_4_1_transformer_blocks"
MOTION_SDXL = {
    f"down_blocks.{level}.motion_modules.0.temporal_transformer.norm.weight": torch.zeros(width)
    for level, width in enumerate((320, 640, 1280))
}


@dataclass(frozen=True)
class Row:
    """A file: the function that makes it, its kind, and the loaders that accept it."""

    make: Callable[[], dict[str, torch.Tensor]]
    kind: str
    base_model: str = "SD1.5"
    layout: str = ""
    says: str = ""
    contents: str = ""
    taken_by: tuple[str, ...] = ()
    wrap: Callable[[dict[str, torch.Tensor]], object] | None = field(default=None)


CHECKPOINTS = {
    "full": Row(
        mini.checkpoint,
        "checkpoint",
        layout="LDM",
        says="Use it as the checkpoint",
        contents="UNet, VAE, text encoder",
        taken_by=("checkpoint", "VAE", "text encoder"),
    ),
    "with EMA weights": Row(
        lambda: mini.checkpoint() | named("model_ema.diffusion_modelinput_blocks00weight"),
        "checkpoint",
        contents="EMA",
        taken_by=("checkpoint", "VAE", "text encoder"),
    ),
    "without VAE": Row(
        lambda: mini.checkpoint(vae=False),
        "checkpoint",
        contents="no VAE",
        taken_by=("checkpoint", "text encoder"),
    ),
    "without text encoder": Row(
        lambda: mini.checkpoint(text=False),
        "checkpoint",
        contents="no text encoder",
        taken_by=("checkpoint", "VAE"),
    ),
    "UNet alone": Row(unet, "checkpoint", contents="UNet only", taken_by=("checkpoint",)),
    "UNet alone, bare keys": Row(
        lambda: unet(prefix=""), "checkpoint", says="UNet", taken_by=("checkpoint",)
    ),
    "UNet alone, diffusers": Row(
        lambda: mini.state(mini.unet_module()),
        "checkpoint",
        layout="diffusers",
        contents="UNet only",
        taken_by=("checkpoint",),
    ),
    "old CLIP layout": Row(
        lambda: mini.checkpoint(old_text=True),
        "checkpoint",
        contents="old layout",
        taken_by=("checkpoint", "VAE", "text encoder"),
    ),
    "ckpt": Row(
        mini.checkpoint,
        "checkpoint",
        taken_by=("checkpoint", "VAE", "text encoder"),
        wrap=lambda tensors: {"state_dict": tensors, "global_step": 840000},
    ),
    "inpainting": Row(lambda: unet(in_channels=9), "checkpoint", says="inpainting"),
    "InstructPix2Pix": Row(lambda: unet(in_channels=8), "checkpoint", says="InstructPix2Pix"),
    "LCM with guidance embedding": Row(
        lambda: unet() | named("model.diffusion_model.time_embed.cond_proj.weight"),
        "checkpoint",
        says="LCM LoRA",
    ),
    "SD2": Row(
        lambda: (
            unet(cross=1024)
            | named("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight")
        ),
        "checkpoint",
        "SD2",
        says="Stable Diffusion 2",
    ),
    "SDXL": Row(
        lambda: (
            unet(cross=2048)
            | named(
                "model.diffusion_model.label_emb.0.0.weight",
                "conditioner.embedders.1.model.ln_final.weight",
            )
        ),
        "checkpoint",
        "SDXL",
        says="SDXL",
    ),
    "SDXL refiner": Row(
        lambda: unet(cross=1280) | named("model.diffusion_model.label_emb.0.0.weight"),
        "checkpoint",
        "SDXL",
        says="refiner",
    ),
    "SD3": Row(
        lambda: named("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"),
        "checkpoint",
        "SD3",
        says="Stable Diffusion 3",
    ),
    "Flux": Row(
        lambda: named("double_blocks.0.img_attn.qkv.weight"), "checkpoint", "Flux", says="Flux"
    ),
    "Stable Video Diffusion": Row(
        lambda: (
            unet(cross=1024)
            | named("model.diffusion_model.input_blocks.1.0.time_stack.emb_layers.1.weight")
        ),
        "checkpoint",
        "SVD",
        says="Stable Video Diffusion",
    ),
}
PARTS = {
    "VAE, LDM": Row(
        lambda: mini.vae_to_ldm(mini.state(mini.vae_module()), prefix=""),
        "VAE",
        layout="LDM",
        says="Use it as the VAE",
        taken_by=("VAE",),
    ),
    "VAE, diffusers": Row(
        lambda: mini.state(mini.vae_module()), "VAE", layout="diffusers", taken_by=("VAE",)
    ),
    "VAE with 16 channels": Row(
        lambda: mini.state(mini.vae_module(latent=16)), "VAE", "SD3 or Flux", says="16 latent"
    ),
    "encoder of a tiny VAE": Row(
        lambda: named("encoder.layers.0.weight"), "VAE", "", says="taesd_decoder"
    ),
    "decoder of a tiny VAE": Row(
        lambda: mini.tiny_decoder_to_original(mini.state(mini.tiny_vae_module())),
        "VAE",
        "",
        layout="original",
        says="drafts",
    ),
    "tiny VAE, diffusers": Row(
        lambda: mini.state(mini.tiny_vae_module()),
        "VAE",
        "",
        layout="diffusers",
        says="drafts",
    ),
    "tiny VAE with 16 channels": Row(
        lambda: mini.state(mini.tiny_vae_module(latent=16)),
        "VAE",
        "",
        layout="diffusers",
        says="16 latent",
    ),
    "text encoder": Row(
        lambda: mini.text_state(mini.text_module()), "text encoder", taken_by=("text encoder",)
    ),
    "large text encoder": Row(
        lambda: mini.text_state(mini.text_module(hidden=1024, layers=1)),
        "text encoder",
        "SD2 or SDXL",
        says="1024",
    ),
}
MOTION = {
    "v1": Row(
        lambda: motion(mid=False, frames=24),
        "motion module",
        layout="original",
        says="v1",
        contents="24 frames",
        taken_by=("motion module",),
    ),
    "v2": Row(
        lambda: motion(mid=True, frames=32),
        "motion module",
        says="v2 (or Lightning)",
        taken_by=("motion module",),
    ),
    "v3": Row(
        lambda: motion(mid=False, frames=32),
        "motion module",
        says="v3",
        taken_by=("motion module",),
    ),
    "AnimateLCM": Row(
        lambda: motion(mid=True, frames=32, tables=False),
        "motion module",
        says="AnimateLCM",
        taken_by=("motion module",),
    ),
    "Lightning, diffusers": Row(
        lambda: motion(mid=True, frames=32, layout="diffusers"),
        "motion module",
        layout="diffusers",
        says="Lightning",
        taken_by=("motion module",),
    ),
    "LongAnimateDiff": Row(
        lambda: motion(mid=False, frames=64),
        "motion module",
        says="LongAnimateDiff",
        contents="64 frames",
        taken_by=("motion module",),
    ),
    "training checkpoint": Row(
        lambda: motion(mid=True, frames=32, layout="diffusers") | mini.state(mini.unet_module()),
        "motion module",
        contents="UNet beside",
        taken_by=("motion module",),
        wrap=lambda tensors: {
            "epoch": 1,
            "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()},
        },
    ),
    "HotshotXL": Row(
        lambda: named(
            "down_blocks.1.temporal_attentions.0.transformer_blocks.0.attention_blocks.0."
            "pos_encoder.positional_encoding"
        ),
        "motion module",
        "SDXL",
        says="HotshotXL",
    ),
    "AnimateDiff-SDXL": Row(lambda: MOTION_SDXL, "motion module", "SDXL", says="AnimateDiff-SDXL"),
    "PIA": Row(
        lambda: motion(mid=True, frames=32) | zeros(**{"conv_in.weight": (320, 9, 3, 3)}),
        "motion module",
        says="PIA motion module. Use the v3 motion module, and give it the picture as a keyframe: "
        "Keyframes with v3_sd15_sparsectrl_rgb",
    ),
    "PIA, diffusers": Row(
        lambda: (
            motion(mid=True, frames=32, layout="diffusers")
            | zeros(**{"conv_in.weight": (320, 9, 3, 3), "conv_in.bias": (320,)})
        ),
        "motion module",
        says="give it the picture as a keyframe",
    ),
    "PIA, nested": Row(
        lambda: motion(mid=True, frames=32) | zeros(**{"conv_in.weight": (320, 9, 3, 3)}),
        "motion module",
        says="PIA",
        wrap=lambda tensors: {
            "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}
        },
    ),
    "AnimateLCM-I2V, nested": Row(
        lambda: (
            motion(mid=True, frames=32, tables=False)
            | named("img_encoder.conv_in.weight", shape=(8, 4, 3, 3))
        ),
        "motion module",
        says="give it the picture as a keyframe",
        wrap=lambda tensors: {
            "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}
        },
    ),
    "AnimateLCM-I2V": Row(
        lambda: (
            motion(mid=True, frames=32, tables=False)
            | named("img_encoder.conv_in.weight", shape=(8, 4, 3, 3))
        ),
        "motion module",
        says="AnimateLCM-I2V motion module. Use AnimateLCM's own motion module, and give it the "
        "picture as a keyframe",
    ),
    "CameraCtrl": Row(
        lambda: named(
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
            "attention_blocks.0.processor.qkv_merge.weight"
        ),
        "motion module",
        says="CameraCtrl",
    ),
    "SparseCtrl, RGB": Row(
        lambda: mini.sparsectrl(takes_latents=True),
        "SparseCtrl",
        layout="original",
        says="pictures (RGB). Use it with Keyframes",
        taken_by=("SparseCtrl",),
    ),
    "SparseCtrl, scribbles, diffusers": Row(
        lambda: mini.sparsectrl("diffusers", takes_latents=False),
        "SparseCtrl",
        layout="diffusers",
        says="scribbles",
        taken_by=("SparseCtrl",),
    ),
    "SparseCtrl, middle block": Row(
        lambda: (
            mini.sparsectrl(takes_latents=True)
            | named("mid_block.motion_modules.0.temporal_transformer.proj_in.weight")
        ),
        "SparseCtrl",
        says="beside the motion module that it was trained with",
    ),
    "SparseCtrl, nested": Row(
        lambda: mini.sparsectrl(takes_latents=True),
        "SparseCtrl",
        says="RGB",
        taken_by=("SparseCtrl",),
        wrap=lambda tensors: {"controlnet": tensors},
    ),
    "FancyVideo": Row(
        lambda: motion(mid=False, frames=32) | named("FancyVideo.weight"),
        "motion module",
        says="FancyVideo",
    ),
    "motion LoRA": Row(
        motion_lora,
        "motion LoRA",
        layout="original",
        says="Use it as a motion LoRA",
        taken_by=("motion LoRA",),
    ),
    "motion LoRA, diffusers": Row(
        lambda: {
            f"unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.{key}": tensor
            for key, tensor in peft("to_q", width=32).items()
        },
        "motion LoRA",
        layout="diffusers",
        taken_by=("motion LoRA",),
    ),
}
PAIR = {"lora_up.weight": (32, 4), "lora_down.weight": (4, 32)}
LORA_FAMILIES = {
    "DoRA": PAIR | {"dora_scale": (32, 1)},
    "LoHa": {
        "hada_w1_a": (32, 4),
        "hada_w1_b": (4, 32),
        "hada_w2_a": (32, 4),
        "hada_w2_b": (4, 32),
    },
    "LoKr": {"lokr_w1": (4, 4), "lokr_w2": (8, 8)},
    "OFT": {"oft_blocks": (8, 4, 4)},
    "BOFT": {"oft_blocks": (3, 8, 4, 4)},
    "GLoRA": {f"{part}.weight": (32, 32) for part in ("a1", "a2", "b1", "b2")},
    "(IA)^3": {"weight": (32,), "on_input": ()},
    "full difference": {"diff": (32, 32)},
}
LORAS = {
    "kohya": Row(
        lambda: lora(f"{KOHYA}_attn2_to_k"),
        "LoRA",
        "",
        layout="kohya",
        says="Use it as a LoRA",
        taken_by=("LoRA",),
    ),
    "kohya, for the real width": Row(
        lambda: lora(f"{KOHYA}_attn2_to_k", width=768), "LoRA", "SD1.5", taken_by=()
    ),
    "diffusers": Row(
        lambda: lora(f"unet.{BLOCK}.attn2.to_k", up="lora.up", down="lora.down"),
        "LoRA",
        "",
        layout="diffusers",
        taken_by=("LoRA",),
    ),
    "PEFT": Row(
        lambda: peft(f"base_model.model.{BLOCK}.attn2.to_k"),
        "LoRA",
        "",
        layout="PEFT",
        taken_by=("LoRA",),
    ),
    "v3 domain adapter": Row(
        lambda: lora(f"{BLOCK}.attn2.processor.to_k_lora", up="up", down="down"),
        "v3 domain adapter",
        "",
        says="v3 domain adapter",
        taken_by=("LoRA",),
    ),
    "SD2": Row(
        lambda: lora(f"{KOHYA}_attn2_to_k", width=1024), "LoRA", "SD2", says="Stable Diffusion 2"
    ),
    "SDXL": Row(
        lambda: lora(f"{BIG_UNET_LORA}_1_attn2_to_k", width=2048), "LoRA", "SDXL", says="SDXL"
    ),
    "SDXL, text encoder": Row(
        lambda: lora("lora_te2_text_model_encoder_layers_0_mlp_fc1"), "LoRA", "SDXL", says="SDXL"
    ),
    "SD3": Row(lambda: peft("transformer.transformer_blocks.0.attn.add_k_proj"), "LoRA", "SD3"),
    "Flux": Row(
        lambda: lora("lora_unet_double_blocks_0_img_attn_proj"), "LoRA", "Flux", says="Flux"
    ),
    "another architecture": Row(
        lambda: peft("diffusion_model.towers.0.cross.k"),
        "LoRA",
        "another architecture",
        says="another architecture",
    ),
    "ComfyUI, text encoder": Row(
        lambda: lora(
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
        ),
        "LoRA",
        "",
        says="This is a LoRA. Use it as a LoRA.",
    ),
    "ComfyUI, text encoder of SDXL": Row(
        lambda: lora(
            "text_encoders.clip_g.transformer.text_model.encoder.layers.0.self_attn.q_proj"
        ),
        "LoRA",
        "SDXL",
        says="SDXL",
    ),
    "middle block alone, kohya on LDM names": Row(
        lambda: lora("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", width=32),
        "LoRA",
        "",
        says="Use it as a LoRA",
    ),
    "middle block alone, LDM names": Row(
        lambda: lora("diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k", width=768),
        "LoRA",
        "SD1.5",
        says="Use it as a LoRA",
    ),
    "middle block alone, diffusers": Row(
        lambda: peft("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"),
        "LoRA",
        "",
        says="Use it as a LoRA",
    ),
    "a motion LoRA and a LoRA": Row(
        lambda: motion_lora() | lora(f"{KOHYA}_attn2_to_k"),
        "motion LoRA",
        says="Use it as a motion LoRA on a v2 motion module, and as a LoRA for the rest of it",
        contents="1 layers, and 1 of a LoRA",
        taken_by=("motion LoRA", "LoRA"),
    ),
    **{
        family: Row(
            lambda shapes=shapes: zeros(
                **{f"{KOHYA}_attn1_to_q.{parameter}": shape for parameter, shape in shapes.items()}
            ),
            "LoRA",
            "",
            says=f"This is a LoRA of the family {family}. Use it as a LoRA.",
            taken_by=("LoRA",),
        )
        for family, shapes in LORA_FAMILIES.items()
    },
    "two families": Row(
        mini.every_lora_family, "LoRA", "", says="of the families", taken_by=("LoRA",)
    ),
}
OTHERS = {
    "textual inversion": Row(
        lambda: zeros(emb_params=(4, 768)), "textual inversion", says="in a prompt"
    ),
    "textual inversion, diffusers": Row(
        lambda: {"<cat-toy>": torch.zeros(768)}, "textual inversion"
    ),
    "textual inversion, Automatic1111": Row(
        lambda: zeros(**{"*": (4, 768)}),
        "textual inversion",
        wrap=lambda tensors: {"string_to_token": {"*": 265}, "string_to_param": tensors},
    ),
    "textual inversion, SDXL": Row(
        lambda: zeros(clip_l=(4, 768), clip_g=(4, 1280)),
        "textual inversion",
        "SDXL",
        says="the one for CLIP-L counts here",
    ),
    "textual inversion, of SD2's width": Row(
        lambda: zeros(emb_params=(4, 1024)), "textual inversion", "SD2", says="Diffusion 2"
    ),
    "textual inversion, with a batch's dimension": Row(
        lambda: zeros(emb_params=(1, 4, 768)), "textual inversion", says="in a prompt"
    ),
    "textual inversion, ParameterDict": Row(
        lambda: zeros(**{"*": (4, 768)}),
        "textual inversion",
        says="in a prompt",
        wrap=lambda tensors: {
            "string_to_token": {"*": 265},
            "string_to_param": torch.nn.ParameterDict(tensors),
        },
    ),
    "textual inversions, a list": Row(
        lambda: zeros(**{"<cat>": (768,), "<v1.5 dog>": (2, 768)}),
        "textual inversion",
        says="in a prompt",
        wrap=lambda tensors: [{name: tensor} for name, tensor in tensors.items()],
    ),
    "ControlNet": Row(
        lambda: mini.control_to_ldm(mini.state(mini.control_module())),
        "ControlNet",
        layout="LDM",
        says="Use it with ControlNet.",
        taken_by=("ControlNet",),
    ),
    "ControlNet without prefix": Row(
        lambda: mini.control_to_ldm(mini.state(mini.control_module()), prefix=""),
        "ControlNet",
        layout="LDM",
        taken_by=("ControlNet",),
    ),
    "ControlNet with its whole checkpoint": Row(
        lambda: mini.checkpoint() | mini.control_to_ldm(mini.state(mini.control_module())),
        "ControlNet",
        layout="LDM",
        taken_by=("ControlNet",),
        wrap=lambda tensors: {"state_dict": tensors},
    ),
    "ControlNet, diffusers": Row(
        lambda: mini.state(mini.control_module()),
        "ControlNet",
        layout="diffusers",
        taken_by=("ControlNet",),
    ),
    "ControlNet for SD2": Row(
        lambda: mini.state(mini.control_module(cross=1024)), "ControlNet", "SD2", says="Diffusion 2"
    ),
    "ControlNet for SDXL": Row(
        lambda: mini.state(mini.control_module(cross=2048)), "ControlNet", "SDXL", says="SDXL"
    ),
    "ControlNet for SDXL, LDM": Row(
        lambda: named("zero_convs.0.0.weight", "input_hint_block.0.weight", "label_emb.0.0.weight"),
        "ControlNet",
        "SDXL",
        says="SDXL",
    ),
    "ControlNet union": Row(
        lambda: mini.state(mini.control_module()) | named("task_embedding"),
        "ControlNet",
        "",
        says="several kinds",
    ),
    "ControlNet for Flux": Row(
        lambda: named("controlnet_blocks.0.weight", "double_blocks.0.img_attn.qkv.weight"),
        "ControlNet",
        "",
        says="Flux",
    ),
    "ControlNet for SD3": Row(
        lambda: named("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight"),
        "ControlNet",
        "",
        says="Stable Diffusion 3",
    ),
    "control-LoRA": Row(
        lambda: named(
            "lora_controlnet",
            "input_hint_block.0.weight",
            "zero_convs.0.0.weight",
            "input_blocks.0.0.up",
        ),
        "ControlNet",
        "",
        says="control-LoRA",
    ),
    "ControlNet-LLLite": Row(
        lambda: named("lllite_unet_input_blocks_4_1_attn1_to_q.conditioning1.0.weight"),
        "ControlNet",
        "SDXL",
        says="LLLite",
    ),
    "ControlNet as a difference": Row(
        lambda: named("difference", "zero_convs.0.0.weight", "input_hint_block.0.weight"),
        "ControlNet",
        says="difference",
    ),
    "T2I-Adapter": Row(
        mini.adapter_to_original,
        "ControlNet",
        layout="original",
        says="a T2I-Adapter",
        taken_by=("ControlNet",),
    ),
    "T2I-Adapter of one channel": Row(
        lambda: mini.adapter_to_original(in_channels=1),
        "ControlNet",
        taken_by=("ControlNet",),
    ),
    "T2I-Adapter, diffusers": Row(
        lambda: mini.state(mini.adapter_module()),
        "ControlNet",
        layout="diffusers",
        taken_by=("ControlNet",),
    ),
    "T2I-Adapter, light": Row(
        lambda: named(
            "body.0.in_conv.weight", "body.0.body.0.block1.weight", "body.0.out_conv.weight"
        ),
        "ControlNet",
        says="light T2I-Adapter",
    ),
    "T2I-Adapter for SDXL": Row(
        lambda: named("conv_in.weight", "body.0.block1.weight", shape=(320, 768, 3, 3)),
        "ControlNet",
        "SDXL",
        says="SDXL",
    ),
    "T2I style adapter": Row(
        lambda: named(
            "style_embedding", "proj", "ln_post.weight", "transformer_layes.0.ln_1.weight"
        ),
        "ControlNet",
        says="style adapter",
    ),
    "IP-Adapter": Row(
        lambda: mini.ip_adapter("base"),
        "IP-Adapter",
        layout="original",
        says="This is an IP-Adapter. Use it with IP-Adapter.",
        taken_by=("IP-Adapter",),
    ),
    "IP-Adapter, nested": Row(
        lambda: mini.ip_adapter("base"),
        "IP-Adapter",
        taken_by=("IP-Adapter",),
        wrap=lambda tensors: {
            part: {
                name.removeprefix(f"{part}."): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{part}.")
            }
            for part in ("image_proj", "ip_adapter")
        },
    ),
    "IP-Adapter Plus": Row(
        lambda: mini.ip_adapter("plus"),
        "IP-Adapter",
        says="an IP-Adapter Plus",
        taken_by=("IP-Adapter",),
    ),
    "IP-Adapter Full Face": Row(
        lambda: mini.ip_adapter("full"),
        "IP-Adapter",
        says="an IP-Adapter Full Face",
        taken_by=("IP-Adapter",),
    ),
    "IP-Adapter FaceID": Row(
        lambda: named("image_proj.proj.0.weight", "ip_adapter.1.to_k_ip.weight", shape=(8, 512)),
        "IP-Adapter",
        says="insightface",
    ),
    "IP-Adapter FaceID Plus": Row(
        lambda: named(
            "image_proj.perceiver_resampler.proj_in.weight", "ip_adapter.1.to_k_ip.weight"
        ),
        "IP-Adapter",
        says="insightface",
    ),
    "IP-Adapter for SDXL": Row(
        lambda: named("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight", shape=(8, 2048)),
        "IP-Adapter",
        "SDXL",
        says="SDXL",
    ),
    "vision model": Row(
        lambda: named("vision_model.embeddings.class_embedding", "visual_projection.weight"),
        "vision model",
        "",
        "Hugging Face's",
        says="a vision model of CLIP. It belongs in models/clip_vision",
    ),
    "vision model of OpenCLIP": Row(
        lambda: named("visual.transformer.resblocks.0.ln_1.weight", "visual.proj"),
        "vision model",
        "",
        "OpenCLIP's",
        says="a vision model of CLIP",
    ),
    "upscaler": Row(
        lambda: named("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
        "other model",
        "",
        says="model.0.weight",
    ),
    "nothing": Row(lambda: {}, "other model", "", says="no tensors"),
}
ROWS = {
    f"{group}: {name}": row
    for group, rows in (
        ("checkpoint", CHECKPOINTS),
        ("part", PARTS),
        ("motion", MOTION),
        ("LoRA", LORAS),
        ("other", OTHERS),
    )
    for name, row in rows.items()
}
