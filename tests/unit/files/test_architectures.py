"""Other diffusion models are named by their layers, in checkpoints and LoRAs, in every spelling."""

import pytest
import torch
from animatediff_v2v.pipeline.files.architectures import architecture_of, with_article
from animatediff_v2v.pipeline.files.kinds import Keys
from animatediff_v2v.pipeline.files.recognition import find_kind

from . import miniatures as mini

# Layers as the models' own files and ComfyUI name them, with their (out, in) channels.
OWN_NAMES = {
    "Wan": [
        {"blocks.0.self_attn.q": (5120, 5120)},
        {"blocks.39.cross_attn.k_img": (5120, 5120)},
        {"blocks.3.ffn.0": (8960, 1536), "blocks.3.ffn.2": (1536, 8960)},
        {"blocks.0.attn2.add_k_proj": (5120, 5120)},
        {"vace_blocks.0.self_attn.q": (1536, 1536)},
    ],
    "Flux": [
        {"double_blocks.0.img_attn.qkv": (9216, 3072), "single_blocks.37.linear1": (21504, 3072)},
        {"single_blocks.7.linear2": (3072, 15360)},
        {"single_transformer_blocks.7.attn.to_q": (3072, 3072)},
    ],
    "Flux2": [
        {"double_blocks.0.img_attn.qkv": (18432, 6144)},
        {"single_blocks.47.linear1": (55296, 6144)},
        {"single_transformer_blocks.0.attn.to_qkv_mlp_proj": (55296, 6144)},
    ],
    "Chroma": [{"distilled_guidance_layer.layers.0.in_layer": (5120, 5120)}],
    "HunyuanVideo": [
        {
            "double_blocks.0.img_attn_qkv": (9216, 3072),
            "double_blocks.0.img_mlp.fc1": (12288, 3072),
        },
        {"double_blocks.0.img_mod.linear": (18432, 3072)},
        {"double_blocks.19.img_attn.qkv": (9216, 3072)},
        {"single_blocks.39.linear1": (21504, 3072)},
        {"txt_in.individual_token_refiner.blocks.0.self_attn.qkv": (9216, 3072)},
    ],
    "Qwen-Image": [
        {"transformer_blocks.0.attn.add_k_proj": (3072, 3072)},
        {"transformer_blocks.59.img_mlp.net.0.proj": (12288, 3072)},
        {"transformer_blocks.0.txt_mod.1": (18432, 3072)},
    ],
    "SD3": [
        {"joint_blocks.0.x_block.attn.qkv": (4608, 1536)},
        {"transformer_blocks.0.attn.add_k_proj": (1536, 1536)},
        {"transformer_blocks.0.attn.to_q": (2432, 2432)},
    ],
    "LTX": [
        {"transformer_blocks.0.attn1.to_k": (2048, 2048)},
        {"transformer_blocks.27.attn2.to_out.0": (4096, 4096)},
        {"transformer_blocks.0.audio_attn1.to_q": (2048, 2048)},
        {"patchify_proj": (2048, 128)},
    ],
    "Z-Image": [
        {"layers.0.attention.qkv": (11520, 3840)},
        {"layers.29.attention.to_q": (3840, 3840)},
        {"noise_refiner.0.feed_forward.w1": (10240, 3840)},
        {"layers.0.adaLN_modulation.0": (15360, 256)},
    ],
    "Lumina2": [{"layers.0.attention.qkv": (4608, 2304)}, {"layers.0.attn.to_q": (2304, 2304)}],
    "OmniGen": [{"layers.0.attn.to_q": (2520, 2520)}, {"llm.layers.0.self_attn.qkv_proj": (8, 8)}],
    "HiDream": [{"double_stream_blocks.0.block.attn1.to_q": (2560, 2560)}],
    "AuraFlow": [
        {"double_layers.0.attn.w1q": (3072, 3072)},
        {"joint_transformer_blocks.0.attn.to_q": (3072, 3072)},
    ],
    "HunyuanDiT": [
        {"blocks.0.attn1.Wqkv": (4224, 1408)},
        {"blocks.0.attn1.to_q": (1408, 1408)},
        {"blocks.20.skip_linear": (1408, 2816)},
    ],
    "Cosmos": [
        {"blocks.block0.blocks.0.block.attn.to_q.0": (4096, 4096)},
        {"blocks.0.cross_attn.q_proj": (2048, 2048)},
        {"transformer_blocks.0.attn2.to_k": (4096, 1024)},
    ],
    "Mochi": [
        {"blocks.0.attn.qkv_x": (9216, 3072)},
        {"transformer_blocks.0.attn1.add_k_proj": (3072, 1536)},
    ],
    "PixArt": [
        {"blocks.0.attn.qkv": (3456, 1152)},
        {"blocks.0.cross_attn.q_linear": (1152, 1152)},
        {"transformer_blocks.0.attn1.to_q": (1152, 1152)},
    ],
    "Sana": [{"transformer_blocks.0.ff.conv_inverted": (11200, 2240)}],
    "CogVideoX": [{"transformer_blocks.0.attn1.to_q": (3072, 3072)}],
    "Kandinsky": [
        {"visual_transformer_blocks.0.self_attention.to_query": (1792, 1792)},
        {"down_blocks.0.attentions.0.add_k_proj": (384, 768)},
    ],
    "Stable Cascade": [{"down_blocks.0.2.attention.attn.to_q": (2048, 2048)}],
    "SVD": [{"down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q": (320, 320)}],
}
PREFIXES = {
    "as they are": lambda layer: layer,
    "ComfyUI": lambda layer: f"diffusion_model.{layer}",
    "diffusers": lambda layer: f"transformer.{layer}",
    "PEFT": lambda layer: f"base_model.model.{layer}",
    "kohya": lambda layer: f"lora_unet_{layer.replace('.', '_')}",
    "OneTrainer": lambda layer: f"lora_transformer_{layer.replace('.', '_')}",
    "SimpleTuner": lambda layer: f"lycoris_{layer.replace('.', '_')}",
}
FILES = [
    (label, tuple(layers.items()), prefix)
    for label, files in OWN_NAMES.items()
    for layers in files
    for prefix in PREFIXES
]


@pytest.mark.parametrize(("label", "layers", "prefix"), FILES)
def test_a_lora_is_named_and_refused(label, layers, prefix):
    shapes = {}
    for layer, (rows, columns) in layers:
        name = PREFIXES[prefix](layer)
        shapes |= {f"{name}.lora_down.weight": (4, columns), f"{name}.lora_up.weight": (rows, 4)}
    found = find_kind(shapes)
    assert (found.kind, found.base_model, found.usable) == ("LoRA", label, False)
    assert "LoRAs do not carry over from" in found.advice


def test_what_a_dot_tells_apart():
    """HunyuanVideo has an underscore where Flux has a dot."""
    for layer, label in (("img_attn_qkv", "HunyuanVideo"), ("img_attn.qkv", "Flux")):
        shapes = {f"diffusion_model.double_blocks.0.{layer}.lora_A.weight": (4, 3072)}
        assert architecture_of(Keys(shapes)).label == label


# Stable Video Diffusion's checkpoints are only recognised by their complete UNet.
CHECKPOINTS = [
    (label, layers, prefix)
    for label, files in OWN_NAMES.items()
    for layers in files
    for prefix in ("", "model.diffusion_model.")
    if label != "SVD"
]


@pytest.mark.parametrize(("label", "layers", "prefix"), CHECKPOINTS)
def test_a_checkpoint_is_named_and_refused(label, layers, prefix):
    found = find_kind({f"{prefix}{layer}.weight": shape for layer, shape in layers.items()})
    assert (found.kind, found.base_model, found.usable) == ("checkpoint", label, False)
    assert found.phrase.startswith(("a ", "an "))
    assert "Stable Diffusion 1.5" in found.advice


# As diffusers builds them, and the label that their checkpoints and LoRAs get.
MODULES = {
    "AuraFlowTransformer2DModel": "AuraFlow",
    "CogVideoXTransformer3DModel": "CogVideoX",
    "CosmosTransformer3DModel": "Cosmos",
    "FluxTransformer2DModel": "Flux",
    "Lumina2Transformer2DModel": "Lumina2",
    "LTXVideoTransformer3DModel": "LTX",
    "MochiTransformer3DModel": "Mochi",
    "PixArtTransformer2DModel": "PixArt",
    "SanaTransformer2DModel": "Sana",
    "SD3Transformer2DModel": "SD3",
    "WanTransformer3DModel": "Wan",
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_whole_transformer_of_diffusers(module):
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        state = getattr(diffusers, module)().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    layers = {n.removesuffix(".weight"): s for n, s in shapes.items() if len(s) == 2}
    lora = {
        f"lora_unet_{n.replace('.', '_')}.lora_down.weight": (4, s[1]) for n, s in layers.items()
    }
    peft = {f"transformer.{n}.lora_A.weight": (4, s[1]) for n, s in layers.items()}
    for names in (shapes, lora, peft):
        assert architecture_of(Keys(names)).label == MODULES[module]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_stable_diffusion_is_none_of_them(prefix):
    """Neither its UNet nor its other parts match, in any naming scheme."""
    unet = mini.state(mini.unet_module((32, 64, 96, 96), 2, (True, True, True, False)))
    parts = [
        unet,
        mini.unet_to_ldm(unet, 2, prefix=""),
        mini.checkpoint(),
        mini.text_state(mini.text_module()),
        mini.state(mini.vae_module()),
        mini.vae_to_ldm(mini.state(mini.vae_module()), prefix=""),
        mini.state(mini.motion_module()),
        mini.motion_to_original(mini.state(mini.motion_module())),
        mini.state(mini.control_module()),
        mini.control_to_ldm(mini.state(mini.control_module())),
        mini.adapter_to_original(),
        mini.ip_adapter("plus"),
    ]
    for part in parts:
        shapes = {PREFIXES[prefix](name): tuple(tensor.shape) for name, tensor in part.items()}
        assert architecture_of(Keys(shapes)) is None


def test_articles():
    names = ("AuraFlow", "OmniGen", "LTX-Video", "Wan 2.1 or 2.2", "Lumina 2", "HiDream")
    spoken = [with_article(name).split()[0] for name in names]
    assert spoken == ["an", "an", "an", "a", "a", "a"]
