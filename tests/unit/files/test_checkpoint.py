"""Checkpoints and VAEs in every layout load into diffusers' and transformers' modules."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import load_checkpoint, load_vae
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from . import miniatures as mini

ARCHITECTURES = {
    "two levels": ((32, 64), 1, None),
    "three levels": ((64, 96, 128), 1, (True, True, True)),
    "two layers": ((32, 64), 2, None),
    "as Stable Diffusion": ((32, 64, 96, 96), 2, (True, True, True, False)),
    "inner level without attention": ((32, 64, 64), 1, (True, False, True)),
}


def write(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("layout", ["ldm", "diffusers"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unet_is_what_diffusers_builds(tmp_path, architecture, layout):
    channels, layers, attends = ARCHITECTURES[architecture]
    expected = mini.state(mini.unet_module(channels, layers, attends))
    tensors = mini.unet_to_ldm(expected, layers) if layout == "ldm" else expected
    loaded = load_checkpoint(write(tmp_path / "model.safetensors", tensors))
    same(loaded.unet, expected)
    with torch.device("meta"):
        module = UNet2DConditionModel(**loaded.unet_config)
    module.load_state_dict(loaded.unet, strict=True, assign=True)
    assert loaded.vae is None
    assert loaded.text_encoder is None


@pytest.mark.parametrize("old_text", [False, True])
def test_whole_checkpoint(tmp_path, old_text):
    tensors = mini.checkpoint(old_text=old_text)
    tensors["model_ema.decay"] = torch.tensor(0.9)
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    loaded = load_checkpoint(write(tmp_path / "model.safetensors", tensors))
    same(loaded.unet, mini.state(mini.unet_module()))
    same(loaded.vae, mini.state(mini.vae_module()))
    same(loaded.text_encoder, mini.text_state(mini.text_module()))
    with torch.device("meta"):
        vae = AutoencoderKL(**loaded.vae_config)
        text = CLIPTextModel(CLIPTextConfig(**loaded.text_encoder_config))
    vae.load_state_dict(loaded.vae, strict=True, assign=True)
    names = {name.removeprefix("text_model.") for name in loaded.text_encoder}
    assert names == {name.removeprefix("text_model.") for name in text.state_dict()}
    assert loaded.text_encoder_config["num_attention_heads"] == 1


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
@pytest.mark.parametrize(("channels", "layers"), [((32, 64), 1), ((32, 64, 64, 96), 2)])
def test_vae_alone(tmp_path, channels, layers, prefix):
    expected = mini.state(mini.vae_module(channels, layers))
    ldm = mini.vae_to_ldm(expected, len(channels), prefix=prefix)
    config, tensors = load_vae(write(tmp_path / "ldm.safetensors", ldm))
    same(tensors, expected)
    assert config["block_out_channels"] == channels
    _, tensors = load_vae(write(tmp_path / "diffusers.safetensors", expected))
    same(tensors, expected)


def test_vae_from_old_diffusers(tmp_path):
    expected = mini.state(mini.vae_module())
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = dict(expected)
    for name in expected:
        for ours, theirs in old.items():
            if f".{ours}." in name:
                tensors[name.replace(ours, theirs)] = tensors.pop(name)
    _, found = load_vae(write(tmp_path / "vae.safetensors", tensors))
    same(found, expected)


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.99999999999.0.op.weight",
        "first_stage_model.encoder.down.99999999999.block.0.norm1.weight",
        "first_stage_model.encoder.down.0.block.99999999999.norm1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.99999999999.mlp.fc1.weight",
    ],
)
def test_absurd_indices_end_in_an_error(tmp_path, name):
    tensors = mini.checkpoint() | {name: torch.zeros(64, 64)}
    with pytest.raises(AnimateDiffV2VError, match="missing"):
        load_checkpoint(write(tmp_path / "model.safetensors", tensors))


def test_nothing_is_copied(monkeypatch):
    weights = mini.checkpoint()
    monkeypatch.setattr(f"{load_checkpoint.__module__}.read_weights", lambda path: weights)
    loaded = load_checkpoint("model.safetensors")
    known = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    for tensors in (loaded.unet, loaded.vae, loaded.text_encoder):
        assert {tensor.untyped_storage().data_ptr() for tensor in tensors.values()} <= known


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.1.0.out_layers.3.weight",
        "model.diffusion_model.output_blocks.0.0.skip_connection.bias",
        "model.diffusion_model.time_embed.0.weight",
        "first_stage_model.encoder.down.0.block.0.conv2.weight",
        "first_stage_model.decoder.mid.attn_1.k.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias",
    ],
)
@pytest.mark.parametrize("fault", ["missing", "misshapen"])
def test_one_bad_tensor_is_named(tmp_path, name, fault):
    tensors = mini.checkpoint()
    if fault == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(7, *tensors[name].shape[1:])
    path = write(tmp_path / "model.safetensors", tensors)
    with pytest.raises(AnimateDiffV2VError, match=name.replace(".", r"\.")):
        load_checkpoint(path)
