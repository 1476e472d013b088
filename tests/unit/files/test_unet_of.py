"""The UNet of a model that is in memory already."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import unet_of

from .miniatures import checkpoint, state, unet_module


def test_is_the_one_of_the_checkpoint():
    weights = {name: t for name, t in checkpoint().items() if name.startswith("model.")}
    _, tensors = unet_of(weights, source="The connected MODEL")
    expected = state(unet_module())
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("weights", [{}, {"model.diffusion_model.joint_blocks.0.x": torch.ones(1)}])
def test_another_models_is_refused(weights):
    with pytest.raises(AnimateDiffV2VError, match="The connected MODEL"):
        unet_of(weights, source="The connected MODEL")
