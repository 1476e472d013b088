"""The miniature at the sizes of Stable Diffusion 1.5 and CLIP does what it does at its own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from animatediff_v2v.demo.widening import (
    UNET_LEVELS,
    in_turn,
    side_by_side,
    widened_checkpoint,
    widened_ip_adapter,
    widened_lora,
    widened_motion_module,
    widened_vision_model,
)
from animatediff_v2v.pipeline.files import load_checkpoint, load_ip_adapter
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

MODELS = Path(__file__).parents[3] / "demo" / "models"
MOTION_MODULE = MODELS / "animatediff_models" / "miniature_motion.safetensors"
VISION = MODELS / "clip_vision" / "miniature_vision.safetensors"
IP_ADAPTER = MODELS / "ipadapter" / "miniature_style.safetensors"
LEVELS = (64, 96, 96)
# Heads, layers and sizes as ComfyUI builds them for a file of CLIP's ViT-L/14.
VIT_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
}
MINIATURE = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "projection_dim": 32,
}


@pytest.fixture(scope="module")
def narrow():
    return load_checkpoint(MODELS / "checkpoints" / "miniature.safetensors")


@pytest.fixture(scope="module")
def wide(narrow, tmp_path_factory):
    """The wide checkpoint, as it is read from its file."""
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    save_file(widened_checkpoint(narrow), path)
    yield load_checkpoint(path)
    path.unlink()


def filled(network, tensors):
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_checkpoint_has_the_sizes_of_stable_diffusion(wide):
    assert wide.unet_config["block_out_channels"] == (320, 960, 960)
    assert wide.unet_config["cross_attention_dim"] == 768
    assert wide.vae_config["block_out_channels"] == (128, 256, 512, 512)
    assert wide.vae_config["layers_per_block"] == 2
    assert wide.text_encoder_config["hidden_size"] == 768
    assert wide.text_encoder_config["num_hidden_layers"] == 12
    tensors = [*wide.unet.values(), *wide.vae.values(), *wide.text_encoder.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float16}


def test_the_vae_does_the_same(narrow, wide):
    first, second = (filled(AutoencoderKL(**each.vae_config), each.vae) for each in (narrow, wide))
    pictures = drawn(1, 3, 64, 64).clamp(-1, 1)
    latents = first.encode(pictures).latent_dist.mean
    torch.testing.assert_close(
        second.encode(pictures).latent_dist.mean, latents, rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(
        second.decode(latents).sample, first.decode(latents).sample, rtol=1e-4, atol=1e-3
    )


def test_the_text_encoder_does_the_same(narrow, wide):
    first, second = (
        filled(
            ClipTextModel(
                **{k: v for k, v in each.text_encoder_config.items() if k != "hidden_act"}
            ),
            each.text_encoder,
        )
        for each in (narrow, wide)
    )
    tokens = torch.tensor([[49406, 320, 736, 7353, *[49407] * 73]])
    expected = first(first.embed(tokens))
    result = second(second.embed(tokens))
    copies = in_turn(expected.shape[-1], result.shape[-1])
    torch.testing.assert_close(result, expected[..., copies], rtol=0, atol=3e-3)


class _GroupedAsWide(nn.Module):
    """A norm over features from below and those of a skip, in the wide network's groups."""

    def __init__(self, norm, *, below):
        super().__init__()
        self.norm, self.below = norm, below

    def forward(self, features):
        norm, below = self.norm, self.below
        parts = zip(
            (features[:, :below], features[:, below:]),
            (norm.weight[:below], norm.weight[below:]),
            (norm.bias[:below], norm.bias[below:]),
            (24, 8),
            strict=True,
        )
        normed = [
            functional.group_norm(part, groups, weight, bias, norm.eps)
            for part, weight, bias, groups in parts
        ]
        return torch.cat(normed, dim=1)


@pytest.mark.parametrize("timestep", [20, 300, 900])
def test_the_unet_does_the_same_but_for_two_norms(narrow, wide, timestep):
    exact, widened = (
        filled(UNet2DConditionModel(**each.unet_config), each.unet) for each in (narrow, wide)
    )
    regrouped = copy.deepcopy(exact)
    for block in (regrouped.up_blocks[1].resnets[1], regrouped.up_blocks[2].resnets[0]):
        block.norm1 = _GroupedAsWide(block.norm1, below=96)
    sample, context = drawn(1, 4, 16, 16), drawn(1, 77, 32, seed=1)
    noise, expected, result = (
        network(sample, timestep, text, return_dict=False)[0]
        for network, text in (
            (exact, context),
            (regrouped, context),
            (widened, context[..., in_turn(32, 768)]),
        )
    )
    # Queries are rounded to 16 bits once more.
    assert (result - expected).std() < 2e-4 * expected.std()
    assert (result - noise).std() < 0.05 * noise.std()


def test_a_lora_changes_the_same(narrow):
    tensors = load_file(MODELS / "loras" / "miniature_outlined.safetensors")
    config = narrow.unet_config
    loaded = widened_lora(tensors, config)
    layers = (
        # entering channels, leaving ones, copies of them, and what a query is scaled by
        ("down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 5, 5, 5**-0.5),
        ("mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0", 10, 10, 1.0),
        ("mid_block_resnets_0_conv2", 10, 10, 1.0),
    )
    for layer, entering, leaving, scale in layers:
        few, many = (_change(each, f"lora_unet_{layer}") for each in (tensors, loaded))
        assert many.shape[:2] == (few.shape[0] * leaving, few.shape[1] * entering)
        read = many.unflatten(1, (-1, entering)).sum(dim=2)[::leaving]
        torch.testing.assert_close(read, few * scale, rtol=1e-2, atol=1e-3)


def _change(tensors, layer):
    up, down = (tensors[f"{layer}.lora_{part}.weight"].float() for part in ("up", "down"))
    return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


def test_the_motion_module_does_the_same():
    tensors = load_file(MOTION_MODULE)
    first, second = (
        filled(
            MotionModules(block_channels=levels, layers_per_block=1, max_frames=32, mid=True), each
        )
        for levels, each in ((LEVELS, tensors), (UNET_LEVELS, widened_motion_module(tensors)))
    )
    for level, (few, many) in enumerate(zip(LEVELS, UNET_LEVELS, strict=True)):
        features, copies = drawn(8, few, 4, 4), side_by_side(few, many)
        expected, result = (
            modules.down_blocks[level].motion_modules[0](each, 8)
            for modules, each in ((first, features), (second, features[:, copies]))
        )
        torch.testing.assert_close(result, expected[:, copies], rtol=0, atol=2e-3)
        assert (expected - features).abs().max() > 0.1


def test_vision_model_and_ip_adapter_do_the_same():
    pixels = drawn(2, 3, 224, 224)
    tensors, adapter = load_file(VISION), load_file(IP_ADAPTER)
    tokens = []
    for sizes, vision, weights in (
        (MINIATURE, tensors, adapter),
        (VIT_L, widened_vision_model(tensors), widened_ip_adapter(adapter)),
    ):
        config = CLIPVisionConfig(**sizes, image_size=224, patch_size=14, hidden_act="quick_gelu")
        network = filled(CLIPVisionModelWithProjection(config), vision)
        projection = functional.linear(
            network(pixels).image_embeds,
            weights["image_proj.proj.weight"].float(),
            weights["image_proj.proj.bias"].float(),
        )
        tokens.append(projection)
    torch.testing.assert_close(tokens[1], tokens[0], rtol=0, atol=5e-3)
    assert tokens[0][0].sub(tokens[0][1]).abs().max() > 0.1


def test_the_wide_ip_adapter_is_one(tmp_path):
    path = tmp_path / "wide.safetensors"
    save_file(widened_ip_adapter(load_file(IP_ADAPTER)), path)
    loaded, before = load_ip_adapter(path), load_ip_adapter(IP_ADAPTER)
    assert loaded.family == before.family == "base"
    assert (loaded.sizes.image_channels, before.sizes.image_channels) == (768, 32)
    assert loaded.sizes.layers == before.sizes.layers
