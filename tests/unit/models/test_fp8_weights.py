"""Weights in 8 bits: their error, the layers that stay exact, and the unchanged original."""

import copy
import math

import pytest
import torch
from animatediff_v2v.pipeline import Conditioning, SamplingSettings, load_models, sample_latents
from animatediff_v2v.pipeline.models.fp8_weights import (
    STORED,
    copy_in_fp8,
    has_fp8_weights,
    in_fp8,
    store_in_fp8,
)
from animatediff_v2v.pipeline.models.ops import fp8_product
from animatediff_v2v.pipeline.models.ops.fp8_product import multiply_in_fp8
from animatediff_v2v.pipeline.models.ops.stored_layers import StoredLinear, fp8_products
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import SpeedOptions
from torch import nn


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(3, 4, 6, 5, generator=generator)
    return sample, torch.tensor([481]), torch.randn(3, 77, 64, generator=generator), 3


def relative(ours, exact):
    return float((ours - exact).norm() / exact.norm())


@pytest.mark.parametrize("size", [1e-4, 0.02, 1.0, 3000.0])
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
@torch.inference_mode()
def test_weights_of_any_size_keep_three_bits_of_mantissa(size, kind):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32) if kind is nn.Linear else nn.Conv2d(16, 8, 3, stride=2, padding=1)
    nn.init.normal_(layer.weight, std=size)
    stored = in_fp8(layer)
    rows = torch.randn(5, 64) if kind is nn.Linear else torch.randn(2, 16, 7, 6)
    assert stored.weight.dtype == STORED and stored.bias is layer.bias
    assert relative(stored.weight.float() * stored.scale, layer.weight) < 2**-4 / 3**0.5
    assert relative(stored(rows), layer(rows)) < 0.05


@torch.inference_mode()
def test_a_weight_of_zeros_stays_so():
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    assert torch.equal(in_fp8(layer)(torch.ones(1, 4)), layer.bias.unsqueeze(0))


@pytest.mark.parametrize("family", ["v2", "v1"])
@torch.inference_mode()
def test_a_network_in_8_bits_is_near_the_exact_one_and_half_of_float16(models, family):
    exact = MotionUNet(
        copy.deepcopy(models.unet.unet), copy.deepcopy(models.unet.motion), family=family
    )
    before = exact(*inputs())
    stored = copy_in_fp8(exact)
    assert has_fp8_weights(stored) and not has_fp8_weights(exact)
    assert 0 < relative(stored(*inputs()), before) < 0.15
    assert torch.equal(exact(*inputs()), before)
    assert (stored.dtype, stored.device, stored.max_frames, stored.beta_schedule) == (
        exact.dtype, exact.device, exact.max_frames, exact.beta_schedule
    )  # fmt: skip
    eight = sum(each.numel() for each in stored.parameters() if each.dtype == STORED)
    whole = sum(each.numel() for each in exact.parameters())
    assert eight > 0.8 * whole


def test_a_copy_shares_no_memory(models):
    """Otherwise a host that moves one of them would move parts of the other."""
    stored = copy_in_fp8(models.unet)
    theirs = {each.data_ptr() for each in models.unet.state_dict().values()}
    assert not theirs & {each.data_ptr() for each in stored.state_dict().values()}


def test_storing_twice_is_storing_once(models):
    stored = copy_in_fp8(models.unet)
    before = {name: tensor.clone() for name, tensor in stored.state_dict().items()}
    store_in_fp8(stored)
    for name, tensor in stored.state_dict().items():
        assert torch.equal(tensor.float(), before[name].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_loading_in_8_bits_equals_storing_what_was_loaded(weights, dtype):
    stored, loaded = (
        load_models(
            weights / "checkpoint.safetensors",
            motion_module=weights / "motion_module.safetensors",
            device=torch.device("cpu"),
            dtype=dtype,
            fp8_weights=fp8_weights,
        ).unet
        for fp8_weights in (True, False)
    )
    assert stored.dtype == dtype and has_fp8_weights(stored)
    sample, timestep, context, frames = inputs()
    arguments = sample.to(dtype), timestep, context.to(dtype), frames
    assert torch.equal(stored(*arguments), copy_in_fp8(loaded)(*arguments))


SIZES = {"tokens": (5, 3, 64), "one row": (1, 64), "wide": (40, 320)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 3000.0])
@torch.inference_mode()
def test_a_product_in_8_bits_is_that_of_the_rounded_matrices(size, magnitude, dtype):
    torch.manual_seed(0)
    tokens = (magnitude * torch.randn(SIZES[size])).to(dtype)
    layer = nn.Linear(tokens.shape[-1], 32, bias=False)
    stored = in_fp8(layer)
    product = multiply_in_fp8(tokens, stored.weight, stored.scale, None)
    assert product.shape == (*tokens.shape[:-1], 32) and product.dtype == dtype
    # Each has three bits of mantissa, so rounding is off by at most a sixteenth.
    assert 0.005 < relative(product.float(), layer(tokens.float())) < 2**-4
    step = 2.0 ** math.ceil(math.log2(float(tokens.abs().max()) / 448))
    rounded = (tokens.float() / step).to(STORED).float() * step
    exact = rounded @ (stored.weight.float() * stored.scale).T
    assert relative(product.float(), exact) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_the_operator_gets_what_a_graphics_card_takes(dtype, monkeypatch):
    multiply = torch._scaled_mm

    def as_on_a_card(left, right, *scales, bias, out_dtype):
        assert left.is_contiguous() and right.t().is_contiguous(), "rows, and columns"
        assert bias is None or (out_dtype != torch.float32 and bias.dtype == out_dtype)
        return multiply(left, right, *scales, bias=bias, out_dtype=out_dtype)

    monkeypatch.setattr(torch, "_scaled_mm", as_on_a_card)
    torch.manual_seed(0)
    layer = nn.Linear(32, 16).to(dtype)
    stored = in_fp8(layer)
    pixels_of_one_row = torch.randn(1, 32, 2, 3).to(dtype).permute(0, 2, 3, 1).reshape(1, 6, 32)
    product = multiply_in_fp8(pixels_of_one_row, stored.weight, stored.scale, stored.bias)
    assert relative(product.float(), layer(pixels_of_one_row).float()) < 2**-4


@torch.inference_mode()
def test_tokens_of_zeros_give_the_bias():
    layer = in_fp8(nn.Linear(32, 16))
    product = multiply_in_fp8(torch.zeros(2, 32), layer.weight, layer.scale, layer.bias)
    assert torch.equal(product, layer.bias.expand(2, 16))


@torch.inference_mode()
def test_a_network_multiplies_in_8_bits_while_told_to(models, monkeypatch):
    unet = copy_in_fp8(models.unet)
    before = unet(*inputs())
    with fp8_products([unet], on=True) as count:
        assert count == 0, "a CPU has no units for it"
        assert torch.equal(unet(*inputs()), before)
    monkeypatch.setattr(fp8_product, "has_fp8_products", lambda device: True)
    with fp8_products([unet, models.unet], on=True) as count:
        in_8_bits = [
            layer
            for layer in unet.modules()
            if isinstance(layer, StoredLinear) and layer.weight.dtype == STORED
        ]
        assert count == len(in_8_bits) > 40
        assert 0.001 < relative(unet(*inputs()), before) < 0.1
    assert torch.equal(unet(*inputs()), before)
    with fp8_products([unet], on=False) as count:
        assert count == 0
    with pytest.raises(ZeroDivisionError), fp8_products([unet], on=True):
        raise ZeroDivisionError
    assert torch.equal(unet(*inputs()), before)


def test_reduced_precision_multiplies_8_bit_weights_in_8_bits(models, monkeypatch):
    monkeypatch.setattr(fp8_product, "has_fp8_products", lambda device: True)
    stored = copy_in_fp8(models.unet)
    latents = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(3))
    prompts = Conditioning.of(
        *torch.randn(2, 1, 77, 64, generator=torch.Generator().manual_seed(4))
    )

    def sampled(unet, *, reduced):
        speed = SpeedOptions(reduced_precision=reduced)
        settings = SamplingSettings(steps=1, seed=1, speed=speed)
        return sample_latents(unet, latents, prompts, settings)

    assert torch.equal(sampled(models.unet, reduced=True), sampled(models.unet, reduced=False))
    exact, fast = sampled(stored, reduced=False), sampled(stored, reduced=True)
    assert 0 < relative(fast, exact) < 0.5
