"""Weights in 8 bits: their error, the layers that stay exact, and the unchanged original."""

import copy

import pytest
import torch
from animatediff_v2v.pipeline import load_models
from animatediff_v2v.pipeline.models.fp8_weights import (
    STORED,
    copy_in_fp8,
    has_fp8_weights,
    in_fp8,
    store_in_fp8,
)
from animatediff_v2v.pipeline.models.unet import MotionUNet
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
