"""The networks' own layers: the names, the shapes and the bits of diffusers' modules."""

import diffusers
import pytest
import torch
from animatediff_v2v.pipeline.models.autoencoder import Autoencoder, VaeSizes, vae_sizes
from animatediff_v2v.pipeline.models.control_layers import ControlNet, T2IAdapter
from animatediff_v2v.pipeline.models.spatial_unet import SpatialUNet, UNetSizes
from animatediff_v2v.pipeline.models.unet import MotionUNet

VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
}
UNET = {
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 2,
    "cross_attention_dim": 48,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
CONTROL = {name: UNET[name] for name in UNET if name != "up_block_types"}
ADAPTER = {"in_channels": 1, "channels": [32, 64, 64], "num_res_blocks": 2, "downscale_factor": 8}


def vae_config(channels, groups):
    """Return the arguments of diffusers' AutoencoderKL, as a file gives them."""
    levels = len(channels)
    return VAE | {
        "block_out_channels": channels,
        "norm_num_groups": groups,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": 0.18215,
    }


def shapes(network):
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


NETWORKS = {
    "UNet": (
        lambda: SpatialUNet(UNetSizes()),
        lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
    ),
    "VAE": (
        lambda: Autoencoder(VaeSizes()),
        lambda: diffusers.AutoencoderKL(**vae_config((128, 256, 512, 512), 32)),
    ),
    "ControlNet": (ControlNet, lambda: diffusers.ControlNetModel(cross_attention_dim=768)),
    "T2I-Adapter": (
        lambda: T2IAdapter(**ADAPTER | {"channels": [320, 640, 1280, 1280]}),
        lambda: diffusers.T2IAdapter(**ADAPTER | {"channels": [320, 640, 1280, 1280]}),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tensors_of_full_size_have_diffusers_names_and_shapes(name):
    with torch.device("meta"):
        ours, theirs = (build() for build in NETWORKS[name])
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("size", [(16, 16), (9, 11)], ids=str)
@torch.inference_mode()
def test_the_unet_gives_the_bits_of_diffusers_layers(size):
    torch.manual_seed(1)
    theirs = diffusers.UNet2DConditionModel(**UNET).eval()
    ours = SpatialUNet(UNetSizes(**UNET)).eval()
    ours.load_state_dict(theirs.state_dict())
    given = (torch.randn(3, 4, *size), torch.tensor([481.25]), torch.randn(1, 7, 48), 3)
    assert torch.equal(MotionUNet(ours, None)(*given), MotionUNet(theirs, None)(*given))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("channels", "groups"), [((8, 16), 4), ((32, 64), 32)])
@torch.inference_mode()
def test_the_vae_gives_diffusers_bits(channels, groups, layout):
    torch.manual_seed(1)
    config = vae_config(channels, groups)
    theirs = diffusers.AutoencoderKL(**config).eval().to(memory_format=layout)
    ours = Autoencoder(vae_sizes(config)).eval().to(memory_format=layout)
    ours.load_state_dict(theirs.state_dict())
    frames = torch.randn(2, 3, 16, 24)
    latents = theirs.encode(frames).latent_dist.mode()
    assert torch.equal(ours.encode(frames), latents)
    assert torch.equal(ours.decode(latents), theirs.decode(latents).sample)
    again = theirs.decode(latents).sample
    assert torch.equal(ours.decode(latents), again), "an input was written to"


@torch.inference_mode()
def test_a_t2i_adapter_gives_diffusers_bits():
    torch.manual_seed(1)
    theirs, ours = diffusers.T2IAdapter(**ADAPTER).eval(), T2IAdapter(**ADAPTER).eval()
    ours.load_state_dict(theirs.state_dict())
    frames = torch.rand(2, 1, 72, 88)
    for expected, features in zip(theirs(frames), ours(frames), strict=True):
        assert torch.equal(features, expected)
