"""TAESD's decoder as the VAE of a job: diffusers' AutoencoderTiny is the reference."""

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, load_models
from animatediff_v2v.pipeline.models.vae import LATENT_SCALE
from safetensors.torch import save_file

from ..files import miniatures as mini

LAYOUTS = {
    "original": mini.tiny_decoder_to_original,
    "original, inside another file": lambda state: mini.tiny_decoder_to_original(
        state, prefix="taesd_decoder."
    ),
    "diffusers": lambda state: state,
}


def loaded(weights, vae, tmp_path, name="taesd_decoder.safetensors"):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(vae, path)
    else:
        save_file({key: tensor.contiguous() for key, tensor in vae.items()}, path)
    return load_models(
        weights / "checkpoint.safetensors",
        vae=path,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.mark.parametrize("name", ["taesd_decoder.safetensors", "taesd_decoder.pth"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_decodes_as_diffusers_does(still_models, weights, tmp_path, layout, name):
    module = mini.tiny_vae_module()
    models = loaded(weights, LAYOUTS[layout](mini.state(module)), tmp_path, name)
    latents = 20 * torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module.decode(latents * LATENT_SCALE).sample.permute(0, 2, 3, 1) / 2 + 0.5
    frames = torch.cat(list(models.codec.decode(latents)))
    assert frames.shape == (3, 40, 48, 3)
    assert expected.std() > 0.01
    assert torch.allclose(frames, expected.clamp(0, 1), atol=1e-6)


def test_the_checkpoint_s_vae_encodes(still_models, weights, tmp_path):
    models = loaded(weights, mini.state(mini.tiny_vae_module()), tmp_path)
    frames = torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(models.codec.encode(frames), still_models.codec.encode(frames))


REFUSED = {
    "an encoder": (
        lambda state: {name: each for name, each in state.items() if name.startswith("encoder.")},
        "needs its decoder, taesd_decoder",
    ),
    "another number of latent channels": (
        lambda _: mini.state(mini.tiny_vae_module(latent=16)),
        "16 latent channels",
    ),
    "a tensor missing": (
        lambda state: {name: each for name, each in state.items() if "layers.8." not in name},
        "is incomplete",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_decode_is_refused(weights, tmp_path, case):
    make, says = REFUSED[case]
    with pytest.raises(AnimateDiffV2VError, match=says):
        loaded(weights, make(mini.state(mini.tiny_vae_module())), tmp_path)
