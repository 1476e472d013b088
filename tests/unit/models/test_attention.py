"""The choice of an attention kernel by a timed trial, with stand-ins for kernels and clock."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.models.ops import attention
from animatediff_v2v.pipeline.models.ops.attention import (
    TimedAttention,
    attention_on,
    plain,
    plain_attention,
)


def kernel(number):
    return lambda query, _key, _value: torch.full_like(query, number)


FAST, SLOW, BROKEN = kernel(1.0), kernel(2.0), kernel(3.0)


def timed(seconds, tried):
    def measure(attend, query, _key, _value):
        tried.append((attend, tuple(query.shape)))
        if attend is BROKEN:
            raise RuntimeError("No available kernel.")
        return seconds[attend]

    kernels = {"BROKEN": BROKEN, "SLOW": SLOW, "FAST": FAST}
    return TimedAttention(lambda: kernels, measure)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({plain: 1.0, SLOW: 2.0, FAST: 0.5}, 1.0),
        ({plain: 1.0, SLOW: 0.8, FAST: 0.5}, 1.0),
        ({plain: 1.0, SLOW: 0.8, FAST: 0.9}, 2.0),
        ({plain: 1.0, SLOW: 0.95, FAST: 0.92}, None),  # within the noise of a clock
        ({plain: 1.0, SLOW: 2.0, FAST: 3.0}, None),
    ],
)
def test_the_fastest_is_chosen_if_it_is_clearly_faster(seconds, chosen):
    query = torch.randn(2, 3, 5, 8)
    result = timed(seconds, [])(query, query, query)
    expected = plain(query, query, query) if chosen is None else torch.full_like(query, chosen)
    assert torch.equal(result, expected)


def test_a_shape_is_tried_once():
    tried = []
    attend = timed({plain: 1.0, SLOW: 2.0, FAST: 0.5}, tried)
    for rows in (1, 1, 2, 1):
        query = torch.randn(rows, 3, 5, 8)
        attend(query, query, query)
    attend(torch.randn(1, 3, 5, 8), torch.randn(1, 3, 7, 8), torch.randn(1, 3, 7, 8))
    assert len(tried) == 3 * 4


def test_beside_other_threads_none_is_chosen():
    tried, query = [], torch.randn(2, 3, 5, 8)
    attend = timed({plain: 1.0, SLOW: 2.0, FAST: 0.5}, tried)
    with plain_attention():
        assert torch.equal(attend(query, query, query), plain(query, query, query))
    assert tried == []
    assert torch.equal(attend(query, query, query), torch.full_like(query, 1.0))


def test_only_nvidia_cards_are_tried(monkeypatch):
    attention_on.cache_clear()
    assert attention_on("cpu") is attention_on("mps") is plain
    assert isinstance(attention_on("cuda"), TimedAttention)
    attention_on.cache_clear()
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert attention_on("cuda") is plain
    attention_on.cache_clear()


def test_this_pytorch_has_kernels_to_try():
    kernels = attention.candidates()
    assert "FLASH_ATTENTION" in kernels
    query = torch.randn(1, 2, 5, 8)
    assert torch.equal(kernels["FLASH_ATTENTION"](query, query, query), plain(query, query, query))
