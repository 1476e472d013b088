"""Merging: the formula in every module, order, stacks, and nothing changed in place."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import LoraEntry, merge_loras
from safetensors.torch import save_file

from . import miniatures as mini

RANK, ALPHA = 4, 2.0


def layers(tensors):
    """The linear layers and convolutions of a network, by their modules' names."""
    return {n.removesuffix(".weight"): t for n, t in tensors.items() if t.ndim in (2, 4)}


def random_pairs(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, weight in weights.items():
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        up = torch.randn(weight.shape[0], RANK, generator=generator)
        pairs[name] = (up[..., None, None] if weight.ndim == 4 else up, down)
    return pairs


def ldm_name(name):
    renamed = mini.unet_to_ldm({f"{name}.weight": None}, prefix="")
    return next(iter(renamed)).removesuffix(".weight")


def kohya(name):
    return f"lora_unet_{name.replace('.', '_')}"


def old_diffusers(name, direction):
    block, part = name.removesuffix(".0").rsplit(".", 1)
    return f"unet.{block}.processor.{part}_lora.{direction}.weight"


UNET_LAYOUTS = {
    "kohya": lambda n, d: f"{kohya(n)}.lora_{d}.weight",
    "kohya on LDM names": lambda n, d: f"{kohya(ldm_name(n))}.lora_{d}.weight",
    "LDM names": lambda n, d: f"diffusion_model.{ldm_name(n)}.lora_{d}.weight",
    "diffusers": lambda n, d: f"unet.{n}.lora.{d}.weight",
    "PEFT in diffusers": lambda n, d: f"unet.{n}.lora_{'AB'[d == 'up']}.weight",
    "PEFT": lambda n, d: f"base_model.model.{n}.lora_{'AB'[d == 'up']}.weight",
    "PEFT, adapter named": lambda n, d: f"base_model.model.{n}.lora_{'AB'[d == 'up']}.a.weight",
    "PEFT without prefix": lambda n, d: f"{n}.lora_{'AB'[d == 'up']}.weight",
}


def write_pairs(path, pairs, spell, *, alpha=False):
    tensors = {}
    for name, (up, down) in pairs.items():
        tensors |= {spell(name, "up"): up, spell(name, "down"): down}
        if alpha:
            tensors[f"{kohya(name)}.alpha"] = torch.tensor(ALPHA)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def expected_weight(weight, pairs, strength):
    up, down = pairs
    delta = up.flatten(1).double() @ down.flatten(1).double()
    return weight.double() + strength * delta.reshape(weight.shape)


@pytest.mark.parametrize("layout", UNET_LAYOUTS)
def test_every_layer_in_every_spelling(tmp_path, layout):
    unet = mini.state(mini.unet_module())
    pairs = random_pairs(layers(unet), seed=1)
    path = write_pairs(tmp_path / "lora.safetensors", pairs, UNET_LAYOUTS[layout])
    merged, _, (report,) = merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(path, 0.5)])
    assert report.matched_modules == len(pairs)
    assert report.unmatched_keys == ()
    for name, pair in pairs.items():
        weight = f"{name}.weight"
        wanted = expected_weight(unet[weight], pair, 0.5)
        torch.testing.assert_close(merged[weight].double(), wanted, rtol=0, atol=1e-5)


def test_old_diffusers_names_reach_the_attention_layers(tmp_path):
    unet = mini.state(mini.unet_module())
    attention = {n: t for n, t in layers(unet).items() if ".attn" in n}
    pairs = random_pairs(attention, seed=2)
    path = write_pairs(tmp_path / "lora.safetensors", pairs, old_diffusers)
    _, _, (report,) = merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(path)])
    assert report.matched_modules == len(attention)
    assert report.unmatched_keys == ()


def test_alpha_over_rank(tmp_path):
    unet = mini.state(mini.unet_module())
    pairs = random_pairs(layers(unet), seed=3)
    spell = UNET_LAYOUTS["kohya"]
    path = write_pairs(tmp_path / "lora.safetensors", pairs, spell, alpha=True)
    merged, _, _ = merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(path)])
    for name, pair in pairs.items():
        weight = f"{name}.weight"
        wanted = expected_weight(unet[weight], pair, ALPHA / RANK)
        torch.testing.assert_close(merged[weight].double(), wanted, rtol=0, atol=1e-5)


def test_no_match_is_an_error(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_nowhere.lora_up.weight": torch.ones(2, 2)}, path)
    with pytest.raises(AnimateDiffV2VError, match="lora"):
        merge_loras(unet=mini.state(mini.unet_module()), text_encoder=None, loras=[LoraEntry(path)])
