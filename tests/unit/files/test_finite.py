"""Files whose weights are not finite are refused by the tensor's name."""

import math
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import (
    LoraEntry,
    load_checkpoint,
    load_control,
    load_ip_adapter,
    load_motion_module,
    load_text_encoder,
    load_vae,
    merge_loras,
    read_weights,
    unet_of,
)
from animatediff_v2v.pipeline.files.finite import is_finite
from animatediff_v2v.pipeline.models.text_encoder import ClipTextEncoder
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

MODELS = Path(__file__).parents[3] / "demo" / "models"
CHECKPOINT = MODELS / "checkpoints" / "miniature.safetensors"
MOTION = MODELS / "animatediff_models" / "miniature_motion.safetensors"
LORA = MODELS / "loras" / "miniature_outlined.safetensors"


def merge(path):
    checkpoint = load_checkpoint(CHECKPOINT)
    entry = LoraEntry(path)
    merge_loras(unet=checkpoint.unet, text_encoder=checkpoint.text_encoder, loras=[entry])


def connect(path):
    unet_of(read_weights(path), source=str(path))


# File, the beginning of the name of a tensor in it, what loads it.
FILES = {
    "UNet": (CHECKPOINT, "model.diffusion_model.out.2.weight", load_checkpoint),
    "VAE": (CHECKPOINT, "first_stage_model.decoder", load_checkpoint),
    "text encoder": (CHECKPOINT, "cond_stage_model.", load_checkpoint),
    "VAE alone": (CHECKPOINT, "first_stage_model.encoder", load_vae),
    "text encoder alone": (CHECKPOINT, "cond_stage_model.", load_text_encoder),
    "MODEL": (CHECKPOINT, "model.diffusion_model.input_blocks.0.0.bias", connect),
    "motion module": (MOTION, "", load_motion_module),
    "LoRA": (LORA, "", merge),
    "ControlNet": (MODELS / "controlnet" / "miniature_canny.safetensors", "", load_control),
    "IP-Adapter": (MODELS / "ipadapter" / "miniature_style.safetensors", "", load_ip_adapter),
}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", FILES)
def test_refused_by_name(kind, number, tmp_path):
    path, prefix, load = FILES[kind]
    load(path)
    tensors = {name: tensor.clone() for name, tensor in read_weights(path).items()}
    name = next(
        name for name, tensor in tensors.items()
        if name.startswith(prefix) and tensor.is_floating_point() and tensor.ndim
    )  # fmt: skip
    tensors[name].view(-1)[-1] = number
    damaged = tmp_path / path.name
    save_file(tensors, damaged)
    with pytest.raises(AnimateDiffV2VError) as caught:
        load(damaged)
    assert f"{damaged} is damaged: the tensor {name} holds numbers that are not" in str(
        caught.value
    )


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(
    st.sampled_from([*FLOATS, torch.float8_e4m3fn, torch.float8_e5m2]),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 10**6),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_a_number_at_any_place_is_found(dtype, shape, place, number):
    tensor = torch.linspace(-3, 3, math.prod(shape)).reshape(shape)
    assert is_finite(tensor.to(dtype))
    tensor.view(-1)[place % tensor.numel()] = number
    if dtype == torch.float8_e4m3fn:  # it has no infinity
        number = math.nan
        tensor.nan_to_num_(nan=math.nan, posinf=math.nan, neginf=math.nan)
    assert not is_finite(tensor.to(dtype))
    assert not is_finite(tensor.to(dtype).expand(2, *shape).transpose(0, -1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sum_that_overflows_is_no_damage(dtype):
    tensor = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(tensor)
    tensor[2, 1] = math.nan
    assert not is_finite(tensor)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
def test_other_numbers_of_8_bits(dtype):
    assert is_finite(torch.ones(3).to(dtype))
    assert not is_finite(torch.tensor([1.0, math.nan]).to(dtype))


@pytest.mark.parametrize("tensor", [torch.tensor([1, 2]), torch.empty(0), torch.ones(())])
def test_what_is_no_weight_is_left_alone(tensor):
    assert is_finite(tensor)


def test_a_sum_that_overflows_names_the_lora(tmp_path):
    base = load_checkpoint(CHECKPOINT)
    strong = {name: tensor.float() * 1e3 for name, tensor in read_weights(LORA).items()}
    path = tmp_path / "strong.safetensors"
    save_file(strong, path)
    with pytest.raises(AnimateDiffV2VError, match=r"strong.safetensors makes the weight .* infin"):
        merge_loras(
            unet={name: tensor.half() for name, tensor in base.unet.items()},
            text_encoder=None,
            loras=[LoraEntry(path, 10.0)],
        )


def test_an_embedding_that_is_not_finite_is_refused(models):
    network = models.text_encoder.network
    vectors = torch.full((1, network.channels), math.nan)
    encoder = ClipTextEncoder(network, find_embedding=lambda _name: vectors)
    with pytest.raises(AnimateDiffV2VError, match="embedding:sick holds numbers that are not fin"):
        encoder.encode("a fox, embedding:sick")


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf, 11, -10.5, 1e30])
@pytest.mark.parametrize("which", ["model_strength", "clip_strength"])
def test_strengths_out_of_range_are_refused(strength, which):
    with pytest.raises(AnimateDiffV2VError, match=r"strength of a\.pt is .*from -10 to 10, 1 is"):
        LoraEntry(Path("a.pt"), **{which: strength})
