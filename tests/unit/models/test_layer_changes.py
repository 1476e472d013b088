"""LoRAs whose strength varies act beside the weights as merged ones do."""

from __future__ import annotations

import copy

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, LoraEntry, ModelFiles, load_models
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.files import layered_loras, load_checkpoint
from animatediff_v2v.pipeline.files.lora_formulas import add_change, low_rank
from animatediff_v2v.pipeline.memory.copies import copy_to
from animatediff_v2v.pipeline.memory.tracer import to_meta_copy
from animatediff_v2v.pipeline.models.batching import ChunkSizes
from animatediff_v2v.pipeline.models.fp8_weights import copy_in_fp8
from animatediff_v2v.pipeline.models.ops.layer_changes import Rows, attach_all
from animatediff_v2v.pipeline.models.pass_strengths import PassStrengths
from safetensors.torch import load_file, save_file
from torch import nn

from ..files.test_lora_formulas import CASES, IN, LAYERS, TABLE, weight_of

CPU = torch.device("cpu")
STRENGTHS = torch.tensor([0.0, 0.5, -1.0])
LORA = "unet.{}.lora_{}.weight"
RANK = 2


@pytest.mark.parametrize(
    ("case", "layer"), [(case, layer) for case, layer in TABLE if not case.startswith("BOFT")]
)
@torch.inference_mode()
def test_each_row_is_that_of_the_weight_merged_with_its_strength(case, layer):
    weight = weight_of(layer)
    parameters, _ = CASES[case][0](weight)
    network = nn.Sequential(copy.deepcopy(LAYERS[layer]))
    network[0].weight.data.copy_(weight)
    size = (3, 5, IN) if layer == "linear" else (3, IN, 6, 4)
    rows = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected = []
    for row, strength in zip(rows, STRENGTHS.tolist(), strict=True):
        merged = copy.deepcopy(network)
        merged[0].weight.data = add_change(weight.clone(), parameters, strength=strength)
        expected.append(merged(row[None])[0])
    strengths = attach_all(network, [{"0": low_rank(weight, parameters)}], weight)
    with strengths.using(Rows.of(STRENGTHS[None], weight)):
        found = network(rows)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_a_change_that_is_no_multiple_of_its_strength_is_refused():
    parameters, weight = CASES["BOFT"][0](weight_of("linear"))
    with pytest.raises(ValueError, match="BOFT does not grow in proportion"):
        low_rank(weight, parameters)


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    """The checkpoint in float32, so that merged weights are not rounded to the file's dtype."""
    tensors = load_file(weights / "checkpoint.safetensors")
    path = tmp_path_factory.mktemp("checkpoint") / "float32.safetensors"
    save_file({name: tensor.float() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def lora(weights, tmp_path_factory):
    """A LoRA of every linear layer and convolution of the UNet, and one layer of the text."""
    unet = load_checkpoint(weights / "checkpoint.safetensors").unet
    generator, tensors = torch.Generator().manual_seed(4), {}
    for name, weight in unet.items():
        if name.endswith(".weight") and weight.ndim in (2, 4):
            layer = name.removesuffix(".weight")
            down = torch.randn(RANK, *weight.shape[1:], generator=generator)
            up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2), generator=generator)
            scale = 0.3 / weight[0].numel() ** 0.5
            tensors[LORA.format(layer, "A")] = down.contiguous()
            tensors[LORA.format(layer, "B")] = (up * scale).contiguous()
    text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}.weight"
    tensors[text.format("down")], tensors[text.format("up")] = torch.ones(1, 64), torch.ones(64, 1)
    path = tmp_path_factory.mktemp("lora") / "every_layer.safetensors"
    save_file(tensors, path)
    return path


def load(checkpoint, weights, *loras, **options):
    return load_models(
        checkpoint,
        motion_module=weights / "motion_module.safetensors",
        loras=loras,
        device=CPU,
        dtype=torch.float32,
        **options,
    )


def relative(one, other):
    return float((one - other).norm() / other.norm())


def run(unet, frames=3, prompts=2, **options):
    """Two videos, each with a prompt of its own, or with one in each frame."""
    generator = torch.Generator().manual_seed(2)
    sample = torch.randn(2 * frames, 4, 8, 12, generator=generator)
    context = torch.randn(prompts, 77, 64, generator=generator)
    return unet(sample, torch.tensor([500]), context, frames, **options)


@torch.inference_mode()
def test_a_level_curve_is_the_merged_lora(checkpoint, weights, lora):
    plain = load(checkpoint, weights).unet
    merged = load(checkpoint, weights, LoraEntry(lora, 0.6, 0.0)).unet
    beside = load(checkpoint, weights, LoraEntry(lora, Curve("0: 0.6"), 0.0)).unet
    half = load(
        checkpoint, weights, LoraEntry(lora, 0.4, 0.0), LoraEntry(lora, Curve("0: 0.2"), 0.0)
    ).unet
    strengths = PassStrengths(loras=torch.full((1, 6), 0.6))
    few = ChunkSizes(passes=2, tokens=96)
    for options in ({}, {"chunks": few}, {"prompts": 6}):
        expected = run(merged, **options)
        assert relative(expected, run(plain, **options)) > 0.05
        assert relative(run(beside, strengths=strengths, **options), expected) < 1e-5
        strong = PassStrengths(loras=torch.full((1, 6), 0.2))
        assert relative(run(half, strengths=strong, **options), expected) < 1e-5
    # Without a number for its rows, as in estimates of memory, it acts fully.
    whole = load(checkpoint, weights, LoraEntry(lora, 1.0, 0.0)).unet
    assert relative(run(beside), run(whole)) < 1e-5
    none = run(beside, strengths=PassStrengths(loras=torch.zeros(1, 6)))
    assert torch.equal(none, run(plain))


@torch.inference_mode()
def test_copies_of_the_network_keep_its_loras(checkpoint, weights, lora):
    unet = load(checkpoint, weights, LoraEntry(lora, Curve("0: 0.6"), 0.0)).unet
    strengths = PassStrengths(loras=torch.linspace(0, 1, 6)[None])
    expected = run(unet, strengths=strengths)
    assert torch.equal(run(copy_to(unet, CPU), strengths=strengths), expected)
    plain_fp8 = copy_in_fp8(load(checkpoint, weights).unet)
    fp8 = copy_in_fp8(unet)
    found = run(fp8, strengths=strengths)
    assert relative(found, expected) < 0.5 * relative(run(plain_fp8), expected)
    meta = torch.device("meta")
    inputs = torch.zeros(4, 4, 8, 8), torch.tensor([500]), torch.zeros(2, 77, 64)
    counted = to_meta_copy(unet)(*(each.to(meta) for each in inputs), 2)
    assert counted.device == meta


@torch.inference_mode()
def test_a_text_encoder_takes_its_own_strength(checkpoint, weights, lora):
    curve = Curve("0: 0, 4: 1")
    plain = load(checkpoint, weights).text_encoder.encode("a fox")
    merged = load(checkpoint, weights, LoraEntry(lora, 0.0, 0.5)).text_encoder.encode("a fox")
    assert not torch.equal(plain, merged)
    for strength, expected in ((0.0, plain), (0.5, merged)):
        found = load(checkpoint, weights, LoraEntry(lora, curve, strength)).text_encoder.encode(
            "a fox"
        )
        assert torch.equal(found, expected)


def test_what_cannot_vary_is_refused(checkpoint, weights, tmp_path):
    curve, norm = Curve("0: 0, 4: 1"), "lora_unet_down_blocks_0_resnets_0_norm1"
    unet = load_checkpoint(weights / "checkpoint.safetensors").unet
    size = len(unet["down_blocks.0.resnets.0.norm1.weight"])
    save_file({f"{norm}.w_norm": torch.ones(size)}, tmp_path / "norm.safetensors")
    with pytest.raises(AnimateDiffV2VError, match="changes a norm or a bias"):
        layered_loras(unet, [LoraEntry(tmp_path / "norm.safetensors", curve)])
    name = "down_blocks.0.resnets.0.conv1"
    blocks = torch.randn(2, unet[f"{name}.weight"].shape[0] // 4, 4, 4)
    key = f"lora_unet_{name.replace('.', '_')}.oft_blocks"
    save_file(
        {key: blocks, key.replace("oft_blocks", "alpha"): torch.tensor(0.1)},
        tmp_path / "b.safetensors",
    )
    with pytest.raises(AnimateDiffV2VError, match=r"its strength cannot be a curve: .*BOFT"):
        layered_loras(unet, [LoraEntry(tmp_path / "b.safetensors", curve)])
    entry = LoraEntry(weights / "motion_lora.safetensors", curve)
    with pytest.raises(AnimateDiffV2VError, match="the strength of a motion LoRA is a number"):
        load(checkpoint, weights, motion_loras=[entry])
    with pytest.raises(AnimateDiffV2VError, match=r"the strength of a\.safetensors is 11"):
        LoraEntry(tmp_path / "a.safetensors", Curve("0: 1, 4: 11"))
    with pytest.raises(AnimateDiffV2VError, match=r"motion_scale is a curve that acts from 0\.2"):
        ModelFiles(checkpoint=tmp_path, motion_scale=Curve("0: 1", start=0.2))
