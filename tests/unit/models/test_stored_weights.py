"""Layers that keep their weights in 16 bits: equal results, and unchanged layers."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from animatediff_v2v.pipeline.memory.tracer import META
from animatediff_v2v.pipeline.models.ops import linear as linear_ops
from animatediff_v2v.pipeline.models.ops.casting import weight_in
from animatediff_v2v.pipeline.models.ops.linear import linear, project_together
from animatediff_v2v.pipeline.models.ops.stored_layers import store_weights
from animatediff_v2v.pipeline.models.vae import UpsampleConv2d
from torch import nn
from torch.nn import functional


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.GroupNorm(2, 6), nn.Flatten(2)]
    return nn.Sequential(*layers, nn.Linear(6, 5), nn.Linear(5, 3, bias=False)).eval()


@torch.inference_mode()
def test_stored_weights_give_the_bits_of_weights_cast_before():
    cast, stored = network(), network()
    names = store_weights(stored)
    assert names == {"0.weight", "3.weight", "4.weight"}
    half = {name: tensor.half() for name, tensor in cast.state_dict().items()}
    cast.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    kept = {name: t if name in names else t.float() for name, t in half.items()}
    stored.load_state_dict(kept, assign=True)
    again = network()
    store_weights(again)
    again.load_state_dict(cast.state_dict(), assign=True)

    pixels = torch.randn(2, 4, 6, 4)
    assert torch.equal(stored(pixels), again(pixels))
    assert torch.allclose(stored(pixels), cast(pixels), rtol=1e-5, atol=1e-6)
    assert stored[0].weight.dtype == torch.float16 and stored[0].bias.dtype == torch.float32


def half_network():
    stored = network()
    store_weights(stored)
    for layer in (stored[0], stored[3], stored[4]):
        layer.weight = nn.Parameter(layer.weight.detach().half(), requires_grad=False)
    return stored


def test_weights_are_cast_into_one_memory():
    stored = half_network()
    with torch.inference_mode():
        first = weight_in(stored[0], torch.float32)
        assert torch.equal(first, stored[0].weight.float())
        second = weight_in(stored[3], torch.float32)
    with torch.no_grad():  # and outside of inference mode
        third = weight_in(stored[0], torch.float32)
    assert first.data_ptr() == second.data_ptr() == third.data_ptr()
    # Where a weight is needed later, or nothing is cast, no memory is shared.
    assert weight_in(stored[0], torch.float32).data_ptr() != first.data_ptr()
    with torch.no_grad():
        assert weight_in(stored[0], torch.float16) is stored[0].weight


@torch.inference_mode()
def test_threads_and_copies_cast_into_memory_of_their_own():
    stored = half_network()
    memories = [weight_in(stored[0], torch.float32)]
    with ThreadPoolExecutor(1) as other:
        memories.append(other.submit(weight_in, stored[0], torch.float32).result())
    copied = copy.deepcopy(stored)
    memories.append(weight_in(copied[0], torch.float32))
    assert len({memory.data_ptr() for memory in memories}) == 3
    assert all(torch.equal(memory, stored[0].weight.float()) for memory in memories)


def test_stored_weights_can_be_trained_through():
    stored = network()
    store_weights(stored)
    pixels = torch.randn(1, 4, 6, 4, requires_grad=True)
    stored(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (7, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
@torch.inference_mode()
def test_doubling_in_one_step_equals_doubling_and_a_convolution(height, width, channels_last):
    torch.manual_seed(height)
    conv = nn.Conv2d(5, 6, 3, padding=1)
    features = torch.randn(2, 5, height, width)
    expected = conv(functional.interpolate(features, scale_factor=2.0, mode="nearest"))
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    result = UpsampleConv2d(conv)(features)
    assert torch.allclose(result, expected, rtol=1e-5, atol=1e-5)


def three_layers(device="cpu"):
    torch.manual_seed(0)
    return [nn.Linear(8, 8, bias=False, device=device) for _ in range(3)]


@torch.inference_mode()
def test_layers_together_make_what_each_makes(monkeypatch):
    layers, tokens = three_layers(), torch.randn(2, 5, 3, 8)
    alone = project_together(tokens, *layers)
    assert all(map(torch.equal, alone, (layer(tokens) for layer in layers)))
    monkeypatch.setattr(linear_ops, "_pays", lambda _tokens, _layers: True)
    for one, other in zip(project_together(tokens, *layers), alone, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rows", "are_joined"), [(24, False), (25, True)])
def test_layers_go_together_where_there_are_more_tokens_than_weights(rows, are_joined):
    query, key, _ = project_together(torch.empty(rows, 8, device=META), *three_layers(META))
    assert query.stride() == ((24, 1) if are_joined else (8, 1))
    assert (query.untyped_storage()._cdata == key.untyped_storage()._cdata) == are_joined


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 13, 33, 77])
@pytest.mark.parametrize(("width", "out"), [(32, 256), (320, 320), (768, 320)])
@pytest.mark.parametrize("has_bias", [True, False])
@torch.inference_mode()
def test_with_mkl_a_row_does_not_depend_on_how_many_go_together(rows, width, out, has_bias):
    if linear_ops._has_onednn_linear():
        pytest.skip("oneDNN is the faster one on this CPU")
    torch.manual_seed(0)
    tokens, weight = torch.randn(300, width), torch.randn(out, width)
    bias = torch.randn(out) if has_bias else None
    parts = torch.cat([linear(part, weight, bias) for part in tokens.split(rows)])
    together = linear(tokens, weight, bias)
    assert torch.equal(parts, together)
    assert torch.allclose(together, functional.linear(tokens, weight, bias), atol=1e-3)
