"""3x3 convolutions by Winograd's scheme, and the choice of it."""

import pytest
import torch
from animatediff_v2v.pipeline.models.layers import ResnetBlock, Upsampler
from animatediff_v2v.pipeline.models.ops import winograd
from animatediff_v2v.pipeline.models.ops.convolution import Convolution, is_wide
from animatediff_v2v.pipeline.models.ops.stored_layers import StoredConv2d, store_weights
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(made: torch.Tensor, exact: torch.Tensor) -> float:
    return float((made - exact).norm() / exact.norm())


@given(
    shape=st.tuples(*(st.integers(1, most) for most in (5, 24, 21, 21))),
    outputs=st.integers(1, 24),
    is_last=st.booleans(),
    has_bias=st.booleans(),
)
def test_equals_the_sum_one_by_one(shape, outputs, is_last, has_bias):
    features, channels = drawn(*shape), shape[1]
    if is_last:
        features = features.contiguous(memory_format=torch.channels_last)
    weight, bias = drawn(outputs, channels, 3, 3, seed=1), drawn(outputs, seed=2)
    bias = bias if has_bias else None
    made = winograd.convolve(features, weight, bias)
    exact = functional.conv2d(
        features.double(), weight.double(), bias if bias is None else bias.double(), padding=1
    )
    assert made.shape == exact.shape
    assert error(made.double(), exact) < 2e-5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_layout_of_its_input(layout):
    features = drawn(2, 8, 8, 12).contiguous(memory_format=layout)
    made = winograd.convolve(features, drawn(8, 8, 3, 3), None)
    assert made.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("sums_at_once", "kernels_at_once"),
    [(1, 1), (36 * 256 * 5, 36 * 256 * 40), (36 * 256 * 16, 36 * 256 * 256)],
)
def test_parts_make_the_whole(monkeypatch, sums_at_once, kernels_at_once):
    features, weight, bias = drawn(3, 256, 13, 18), drawn(64, 256, 3, 3, seed=1), drawn(64, seed=2)
    whole = winograd.convolve(features, weight, bias)
    monkeypatch.setattr(winograd, "_SUMS_AT_ONCE", sums_at_once)
    monkeypatch.setattr(winograd, "_KERNELS_AT_ONCE", kernels_at_once)
    assert error(winograd.convolve(features, weight, bias), whole) < 5e-6


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("channels", "side"), [(256, 8), (320, 12), (640, 9)])
def test_a_row_does_not_depend_on_the_others(threads, channels, side):
    features, weight = drawn(17, channels, side, side), drawn(channels, channels, 3, 3, seed=1)
    before = torch.get_num_threads()
    together = winograd.convolve(features, weight, None)
    try:
        torch.set_num_threads(threads)
        for rows in (slice(0, 1), slice(3, 5), slice(9, 17), slice(1, 17)):
            assert torch.equal(winograd.convolve(features[rows], weight, None), together[rows])
    finally:
        torch.set_num_threads(before)


WIDE = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"out_channels": 320}, True),
        ({"out_channels": 128}, False),
        ({"in_channels": 128}, False),
        ({"stride": 2}, False),
        ({"padding": 0}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
        ({"kernel_size": 1, "padding": 0}, False),
        ({"padding_mode": "circular"}, False),
    ],
)
def test_which_layers_are_wide(changes, expected):
    layer = nn.Conv2d(**{**WIDE, **changes}, device="meta")
    features = torch.zeros(1, layer.in_channels, 8, 8)
    assert is_wide(layer, features) is expected
    assert not is_wide(layer, features.bfloat16())
    assert not is_wide(layer, features.to("meta"))
    with torch.enable_grad():
        assert not is_wide(layer, features)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (6, 9), (7, 7), (8, 8), (8, 64)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_layer_equals_the_sum_one_by_one(size, layout):
    layer = Convolution(**WIDE)
    features = drawn(3, 256, *size).contiguous(memory_format=layout)
    exact = functional.conv2d(
        features.double(), layer.weight.double(), layer.bias.double(), padding=1
    )
    made = layer(features)
    assert error(made.double(), exact) < 1e-5
    assert torch.equal(layer(features[1:2]), made[1:2])


def test_wide_layers_of_the_networks_use_it(monkeypatch):
    calls = []
    monkeypatch.setattr(
        winograd,
        "convolve",
        lambda *arguments: calls.append(arguments) or functional.conv2d(*arguments, padding=1),
    )
    block = ResnetBlock(256, 256, groups=32, epsilon=1e-5)
    features = drawn(1, 256, 8, 8)
    block.conv2(block.conv1(features))
    Upsampler(256)(features)
    assert len(calls) == 3
    stored = Upsampler(256)
    stored.conv.weight.data = stored.conv.weight.half()
    store_weights(stored_network := nn.Sequential(stored))
    assert type(stored.conv) is StoredConv2d
    stored_network(features)
    assert len(calls) == 4
    assert calls[3][1].dtype == torch.float32
    ResnetBlock(128, 128, groups=32, epsilon=1e-5).conv1(features[:, :128])
    block.conv1(features[:, :, :4])
    assert len(calls) == 4


def test_a_stored_layer_casts_its_weight_first():
    plain = Convolution(**WIDE)
    plain.weight.data = plain.weight.half()
    stored = StoredConv2d(plain)
    features = drawn(1, 256, 8, 8)
    expected = winograd.convolve(features, plain.weight.float(), plain.bias)
    assert torch.equal(stored(features), expected)
