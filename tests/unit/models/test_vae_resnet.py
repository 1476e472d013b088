"""The VAE in fewer tensors: the same bits, under the same names."""

import copy

import pytest
import torch
from animatediff_v2v.pipeline.models.vae import VaeResnet, fuse_norm_silu
from diffusers import AutoencoderKL

VAE = {
    "block_out_channels": (8, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_it_gives_diffusers_bits(layout):
    torch.manual_seed(1)
    theirs = AutoencoderKL(**VAE).eval().to(memory_format=layout)
    ours = copy.deepcopy(theirs)
    fuse_norm_silu(ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert sum(isinstance(module, VaeResnet) for module in ours.modules()) == 2 * 2 + 2 * 3 + 2 * 2
    frames = torch.randn(2, 3, 16, 24)
    with torch.inference_mode():
        latents = theirs.encode(frames).latent_dist.mean
        assert torch.equal(ours.encode(frames).latent_dist.mean, latents)
        assert torch.equal(ours.decode(latents).sample, theirs.decode(latents).sample)
        again = theirs.decode(latents).sample
        assert torch.equal(ours.decode(latents).sample, again), "an input was written to"
