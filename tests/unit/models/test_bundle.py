"""Loading all networks of a job, and the errors for unsuitable files."""

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, LoraEntry, load_models
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")


def load(checkpoint, **options):
    return load_models(checkpoint, device=CPU, dtype=torch.float32, **options)


@pytest.fixture
def without(weights, tmp_path):
    """Write the checkpoint without the parts whose keys have these prefixes."""

    def write(prefix):
        tensors = load_file(weights / "checkpoint.safetensors")
        path = tmp_path / "part.safetensors"
        save_file({k: t for k, t in tensors.items() if not k.startswith(prefix)}, path)
        return path

    return write


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("cond_stage_model", "holds no text encoder: .*use a full checkpoint"),
        ("first_stage_model", "holds no VAE: give one as vae, for example vae-ft-mse"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused(without, prefix, sentence):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        load(without(prefix))


def test_a_vae_of_its_own_fills_the_gap(without, weights, models, tmp_path):
    prefix = "first_stage_model."
    tensors = load_file(weights / "checkpoint.safetensors")
    vae = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    save_file(vae, tmp_path / "vae.safetensors")
    loaded = load(without(prefix), vae=tmp_path / "vae.safetensors")
    frames = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    assert torch.equal(loaded.codec.encode(frames), models.codec.encode(frames))


def test_a_text_encoder_of_its_own_fills_the_gap(without, weights, models, tmp_path):
    prefix = "cond_stage_model.transformer."
    tensors = load_file(weights / "checkpoint.safetensors")
    text = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    save_file(text, tmp_path / "text_encoder.safetensors")
    loaded = load(without(prefix), text_encoder=tmp_path / "text_encoder.safetensors")
    assert torch.equal(loaded.text_encoder.encode("a fox"), models.text_encoder.encode("a fox"))


def test_a_text_encoder_of_another_width_is_refused(weights, tmp_path):
    narrow = ClipTextModel(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=77,
    )
    save_file(narrow.state_dict(), tmp_path / "narrow.safetensors")
    with pytest.raises(AnimateDiffV2VError, match=r"tokens of 32 channels, .* takes 64: use the"):
        load(weights / "checkpoint.safetensors", text_encoder=tmp_path / "narrow.safetensors")


def test_a_motion_module_of_another_size_is_refused(weights, tmp_path):
    with torch.device("meta"):
        shapes = MotionModules(
            block_channels=(32, 64), layers_per_block=1, max_frames=16, mid=True
        ).state_dict()
    path = tmp_path / "motion.safetensors"
    save_file({name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}, path)
    with pytest.raises(
        AnimateDiffV2VError,
        match=r"another size than the checkpoint's UNet \(64, 128 channels\): use one that",
    ):
        load(weights / "checkpoint.safetensors", motion_module=path)


@torch.inference_mode()
def test_loading_twice_gives_the_same_networks_and_a_lora_others(weights, models):
    inputs = torch.ones(2, 4, 4, 4), torch.tensor([500]), torch.ones(2, 77, 64), 2
    motion = weights / "motion_module.safetensors"
    again = load(weights / "checkpoint.safetensors", motion_module=motion)
    assert torch.equal(again.unet(*inputs), models.unet(*inputs))
    lora = LoraEntry(weights / "style_lora.safetensors")
    styled = load(weights / "checkpoint.safetensors", motion_module=motion, loras=[lora])
    assert not torch.allclose(styled.unet(*inputs), models.unet(*inputs), atol=1e-4)


def test_weights_are_frozen_and_in_evaluation(models):
    unet = models.unet
    for network in (unet.unet, unet.motion, models.codec.vae, models.text_encoder.network):
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training
