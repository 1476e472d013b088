"""This pack's guides for windows of ComfyUI's own sampling."""

from types import SimpleNamespace

import pytest
import torch
from animatediff_v2v.nodes.host.window_guides import WindowGuides
from animatediff_v2v.pipeline.models.residuals import Residuals
from torch import nn


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_network_may_have_another_dtype_than_the_model(dtype):
    network = nn.Conv2d(4, 8, 1, dtype=torch.bfloat16)
    seen = []

    def residuals(sample, timestep, context, windows):
        seen.append((len(timestep), context.dtype, windows))
        return Residuals([network(sample)], network(sample))

    control = SimpleNamespace(
        network=network, span=SimpleNamespace(contains=lambda *_: True), residuals=residuals
    )
    guides = WindowGuides(None, [control, control], [], lambda _share: None)
    rows = SimpleNamespace(window=[0, 1], conditionings=2)
    options = {"sigmas": torch.ones(4), "cond_or_uncond": [0, 1]}
    sample, context = torch.randn(4, 4, 2, 3).to(dtype), torch.zeros(4, 77, 8, dtype=dtype)
    made = guides.of(rows, sample, torch.full((4,), 500.0), context, options)["residuals"]
    assert {each.dtype for each in (*made.skips, made.middle)} == {dtype}
    assert seen == [(1, torch.bfloat16, [[0, 1], [0, 1]])] * 2
