"""The bytes alive on a device, counted on the meta device."""

import pytest
import torch
from animatediff_v2v.pipeline.memory.tracer import META, live_bytes, to_meta_copy, weight_bytes
from torch import nn
from torch.nn import functional

KB = 1024  # of a tensor [16, 16] in float32


def square():
    return torch.empty(16, 16, device=META)


def frees_what_it_lets_go():
    for _ in range(3):
        kept = square()
        kept = kept + kept
    return kept


def makes_views():
    whole = square()
    return [
        whole.view(256),
        whole.t(),
        whole[3:],
        whole.chunk(2),
        whole.unsqueeze(0).expand(9, -1, -1),
    ]


def works_in_place():
    return square().add_(1).mul_(2)


def narrows():
    return square().half()


def attends():
    query = torch.empty(1, 1, 16, 16, device=META)
    return functional.scaled_dot_product_attention(query, query, query)


def runs_a_composite_operator():
    # It copies what is not contiguous, which is seen only from inside.
    return functional.linear(square().t().reshape(2, 8, 16), square())


@pytest.mark.parametrize(
    ("work", "peak"),
    [
        (square, KB),
        (frees_what_it_lets_go, 2 * KB),
        (lambda: square().new_zeros(4).view(2, 2).cpu(), KB + 16),
        (makes_views, KB),
        (works_in_place, KB),
        (narrows, KB + KB // 2),
        (attends, 2 * KB),
        (runs_a_composite_operator, 3 * KB),
        (lambda: torch.empty(999), 0),
    ],
)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_peak(work, peak, context):
    with context(), live_bytes() as counted:
        work()
    assert counted.peak == peak
    assert counted.now == 0


def test_the_peak_tells_what_was_alive():
    with live_bytes() as counted:
        first = square()
        (first + first).half()
    assert [(each.size, each.operator) for each in counted.at_peak] == [
        (KB, "aten::empty.memory_format"),
        (KB, "aten::add.Tensor"),
        (KB // 2, "aten::_to_copy"),
    ]


def test_a_job_goes_on_with_what_comes_back_from_the_device():
    with live_bytes():
        first, second = square(), square()
        assert torch.equal(first, second)
        assert first.cpu().double().sum() == 0


def test_a_twin_has_the_network_s_shapes_and_none_of_its_memory():
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).half()
    network.to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with live_bytes() as counted:
        copied = to_meta_copy(network)
    assert counted.peak == weight_bytes(network) == weight_bytes(copied)
    for name, tensor in copied.state_dict().items():
        assert (tensor.device, tensor.dtype) == (META, before[name].dtype)
        assert tensor.stride() == network.state_dict()[name].stride()
    assert all(torch.equal(before[name], found) for name, found in network.state_dict().items())
