"""Merging: the formula in every module, order, stacks, and nothing changed in place."""

import json
import re

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import LoraEntry, merge_loras, merge_motion_loras
from safetensors.torch import load_file, save_file

from . import miniatures as mini

RANK, ALPHA = 4, 2.0


def layers(tensors):
    """Return the linear layers and convolutions of a network, by their modules' names."""
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


TEXT_SPELLINGS = {
    "kohya": "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
    "kohya, first of two": "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
    "diffusers": "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}."
    "weight",
    "diffusers, older": "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.{}.weight",
    "PEFT": "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight",
    "PEFT, transformers 5": "text_encoder.encoder.layers.0.self_attn.q_proj.lora_{}.weight",
    "ComfyUI": "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj."
    "lora_{}.weight",
}


def text_lora(spelling, seed=5):
    generator = torch.Generator().manual_seed(seed)
    directions = ("B", "A") if spelling.startswith("PEFT") else ("up", "down")
    shapes = ((mini.CROSS, RANK), (RANK, mini.CROSS))
    pattern = TEXT_SPELLINGS[spelling]
    return {
        pattern.format(direction): torch.randn(shape, generator=generator)
        for direction, shape in zip(directions, shapes, strict=True)
    }


@pytest.mark.parametrize("spelling", TEXT_SPELLINGS)
def test_text_encoder_in_every_spelling(tmp_path, spelling):
    text = mini.text_state(mini.text_module())
    tensors = text_lora(spelling)
    save_file(tensors, tmp_path / "lora.safetensors")
    _, merged, (report,) = merge_loras(
        unet=mini.state(mini.unet_module()),
        text_encoder=text,
        loras=[LoraEntry(tmp_path / "lora.safetensors", 0.9, 0.25)],
    )
    name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    expected = expected_weight(text[name], tuple(tensors.values()), 0.25)
    torch.testing.assert_close(merged[name].double(), expected, rtol=0, atol=1e-5)
    assert report.matched_modules == 1
    assert not report.unmatched_keys
    assert sum(merged[other] is not text[other] for other in text) == 1


@pytest.fixture
def stack(tmp_path):
    """Two LoRAs for every layer; the second is a DoRA, so that the order matters."""
    unet = mini.state(mini.unet_module())
    paths = []
    for seed in (1, 2):
        pairs = random_pairs(layers(unet), seed=seed)
        path = write_pairs(tmp_path / f"{seed}.safetensors", pairs, UNET_LAYOUTS["kohya"])
        paths.append(path)
    tensors = load_file(paths[1])
    for name, weight in layers(unet).items():
        tensors[f"{kohya(name)}.dora_scale"] = torch.ones(weight.shape[0], *[1] * (weight.ndim - 1))
    save_file(tensors, paths[1])
    return unet, paths


def merged_unet(unet, *entries):
    return merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(*e) for e in entries])[0]


def test_a_stack_is_its_files_one_after_the_other(stack):
    unet, (first, second) = stack
    at_once = merged_unet(unet, (first, 0.7), (second, -0.5))
    in_turn = merged_unet(merged_unet(unet, (first, 0.7)), (second, -0.5))
    assert all(torch.equal(at_once[name], in_turn[name]) for name in unet)


def test_order_counts(stack):
    unet, (first, second) = stack
    forth = merged_unet(unet, (first, 0.7), (second, 0.5))
    back = merged_unet(unet, (second, 0.5), (first, 0.7))
    assert not torch.equal(forth["conv_in.weight"], back["conv_in.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_merging_changes_nothing_in_place(stack, dtype):
    unet, (first, second) = stack
    unet = {name: tensor.to(dtype) for name, tensor in unet.items()}
    before = {name: tensor.clone() for name, tensor in unet.items()}
    merged = merged_unet(unet, (first, 1.0), (second, 1.0))
    touched = {f"{name}.weight" for name in layers(unet)}
    for name, tensor in unet.items():
        assert torch.equal(tensor.float(), before[name].float())
        assert (merged[name] is tensor) == (name not in touched)
        assert merged[name].dtype == dtype
    again = merged_unet(unet)
    assert all(again[name] is tensor for name, tensor in unet.items())
    repeated = merged_unet(unet, (first, 1.0), (second, 1.0))
    assert all(torch.equal(repeated[n].float(), merged[n].float()) for n in unet)


def test_strength_zero_is_skipped(stack, tmp_path):
    unet, (first, _) = stack
    absent = tmp_path / "absent.safetensors"
    alone = merged_unet(unet, (first, 0.7))
    padded, _, reports = merge_loras(
        unet=unet,
        text_encoder=None,
        loras=[LoraEntry(absent, 0, 0), LoraEntry(first, 0.7, 0), LoraEntry(absent, 0.0, 0.0)],
    )
    assert [report.path for report in reports] == [first]
    assert all(torch.equal(alone[name], padded[name]) for name in unet)


def test_norms_and_biases(tmp_path):
    unet = mini.state(mini.unet_module())
    tensors = {
        "lora_unet_conv_norm_out.w_norm": torch.full((32,), 0.5),
        "lora_unet_conv_norm_out.b_norm": torch.full((32,), -0.5),
        "lora_unet_conv_in.diff": torch.ones(32, 4, 3, 3),
        "lora_unet_conv_in.diff_b": torch.ones(32),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    merged, _, (report,) = merge_loras(
        unet=unet, text_encoder=None, loras=[LoraEntry(tmp_path / "lora.safetensors", 2.0)]
    )
    changes = {"conv_norm_out.weight": 1, "conv_norm_out.bias": -1}
    changes |= {"conv_in.weight": 2, "conv_in.bias": 2}
    for name, tensor in unet.items():
        assert torch.equal(merged[name], tensor + changes.get(name, 0)), name
    assert report.matched_modules == 2


def test_report_names_what_matched_nothing(tmp_path):
    unet = mini.state(mini.unet_module())
    layer = kohya("down_blocks.0.attentions.0.proj_in")
    strays = {
        "lora_unet_down_blocks_7_attentions_0_proj_in.lora_up.weight": torch.ones(32, 4),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(32, 4),
        "bundle_emb.token.string_to_param.*": torch.ones(2, 64),
        f"{kohya('conv_in')}.lora_down.weight": torch.ones(4, 4, 3, 3),
    }
    pair = {
        f"{layer}.lora_up.weight": torch.ones(32, 4),
        f"{layer}.lora_down.weight": torch.ones(4, 32),
    }
    save_file(pair | strays, tmp_path / "lora.safetensors")
    _, _, (report,) = merge_loras(
        unet=unet, text_encoder=None, loras=[LoraEntry(tmp_path / "lora.safetensors")]
    )
    assert report.matched_modules == 1
    assert set(report.unmatched_keys) == set(strays)
    assert report.family == "LoRA"


MOTION_SPELLINGS = {
    "original": lambda place, d: f"{place}_lora.{d}.weight".replace(".to_", ".processor.to_"),
    "module.": lambda place, d: f"module.{place}_lora.{d}.weight",
    "diffusers": lambda place, d: f"unet.{in_diffusers(place)}.lora_{'AB'[d == 'up']}.weight",
}


def in_diffusers(place):
    place = place.replace(".temporal_transformer", "")
    place = re.sub(r"\.to_out$", ".to_out.0", place)
    return re.sub(r"attention_blocks\.(\d)", lambda m: f"attn{int(m[1]) + 1}", place)


@pytest.mark.parametrize("spelling", MOTION_SPELLINGS)
def test_motion_lora(tmp_path, spelling):
    module = mini.motion_weights()
    weights = {n: t for n, t in layers(module.tensors).items() if ".attention_blocks." in n}
    pairs = random_pairs(weights, seed=6)
    tensors = {}
    for name, (up, down) in pairs.items():
        place = name.removesuffix(".0") if name.endswith("to_out.0") else name
        spell = MOTION_SPELLINGS[spelling]
        tensors |= {spell(place, "up"): up, spell(place, "down"): down}
    path = tmp_path / "motion lora.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    merged, (report,) = merge_motion_loras(motion_module=module, loras=[LoraEntry(path, 0.5)])
    assert report.matched_modules == len(weights)
    assert not report.unmatched_keys
    assert merged.positional_encoding is module.positional_encoding
    for name, tensor in module.tensors.items():
        pair = pairs.get(name.removesuffix(".weight"))
        if pair is None:
            assert merged.tensors[name] is tensor
        else:
            expected = expected_weight(tensor, pair, 0.5)
            torch.testing.assert_close(merged.tensors[name].double(), expected, rtol=0, atol=1e-5)


def test_a_lora_of_another_width_says_so(tmp_path):
    layer = kohya("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
    tensors = {
        f"{layer}.lora_up.weight": torch.ones(320, 4),
        f"{layer}.lora_down.weight": torch.ones(4, 320),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(AnimateDiffV2VError, match=r"does not fit .*\[32, 32\].*\[320, 320\]"):
        merged_unet(mini.state(mini.unet_module()), (tmp_path / "lora.safetensors",))


PEFT_CONFIGS = {
    "none": ({}, 1.0),
    "alpha": ({"lora_alpha": 2, "r": RANK}, 2 / RANK),
    "rank-stabilised": ({"lora_alpha": 2, "r": RANK, "use_rslora": True}, 2 / RANK**0.5),
    "pattern": ({"lora_alpha": 2, "alpha_pattern": {"conv_in": 8}}, 8 / RANK),
}


@pytest.mark.parametrize("place", ["header", "beside"])
@pytest.mark.parametrize("config", PEFT_CONFIGS)
def test_scale_of_peft_files(tmp_path, config, place):
    """The scale is not among the tensors: diffusers keeps it in the header, PEFT in a file."""
    values, scale = PEFT_CONFIGS[config]
    unet = mini.state(mini.unet_module())
    up, down = random_pairs({"conv_in": unet["conv_in.weight"]}, seed=7)["conv_in"]
    tensors = {"unet.conv_in.lora_B.weight": up, "unet.conv_in.lora_A.weight": down}
    path = tmp_path / "adapter_model.safetensors"
    if place == "header":
        packed = {f"unet.{key}": value for key, value in values.items()}
        save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(packed)})
    else:
        save_file(tensors, path)
        (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    merged = merged_unet(unet, (path,))
    expected = expected_weight(unet["conv_in.weight"], (up, down), scale)
    torch.testing.assert_close(merged["conv_in.weight"].double(), expected, rtol=0, atol=1e-5)


def test_damaged_peft_config(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    save_file({"unet.conv_in.lora_A.weight": torch.ones(4, 4, 3, 3)}, path)
    for text in ("{", '{"lora_alpha": "large"}', '{"alpha_pattern": 3}'):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(AnimateDiffV2VError, match="adapter_model"):
            merged_unet(mini.state(mini.unet_module()), (path,))


def test_files_without_strength_are_not_read(stack, tmp_path):
    unet, _ = stack
    idle = LoraEntry(tmp_path / "absent.safetensors", 0.0, 0.0)
    merged, _, reports = merge_loras(unet=unet, text_encoder=None, loras=[idle])
    assert all(merged[name] is tensor for name, tensor in unet.items()) and reports == ()
    with pytest.raises(AnimateDiffV2VError, match="absent"):
        merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(idle.path)])
