"""Weights in 8 bits with scales give the same values as in ComfyUI 0.33."""

import json

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import identify, load_checkpoint, load_vae, read_weights
from safetensors.torch import save_file

from . import miniatures as mini

FP8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def as_text(value):
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.03


def stored_in_fp8(weight, dtype=torch.float8_e4m3fn, *, per_row=False):
    """Quantise as ComfyUI does, the largest value at the top of the range: weight and scale."""
    others = tuple(range(1, weight.ndim))
    greatest = weight.abs().amax(dim=others, keepdim=True) if per_row else weight.abs().amax()
    scale = greatest / torch.finfo(dtype).max
    return (weight / scale).to(dtype), scale


def write(path, tensors, **options):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, **options)
    return path


SPELLINGS = {
    "comfy_quant": lambda w, s, f: (
        {"a.weight": w, "a.weight_scale": s, "a.comfy_quant": as_text({"format": f})},
        None,
    ),
    "header": lambda w, s, f: (
        {"a.weight": w, "a.weight_scale": s},
        {"_quantization_metadata": json.dumps({"layers": {"a": {"format": f}}})},
    ),
    "scaled_fp8": lambda w, s, f: (
        {"scaled_fp8": torch.zeros(2, dtype=w.dtype), "a.weight": w, "a.scale_weight": s},
        None,
    ),
    "a scale alone": lambda w, s, f: ({"a.weight": w, "a.weight_scale": s}, None),
}


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("shape", [(24, 64), (24, 8, 3, 3)])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("dtype", FP8)
def test_fp8(tmp_path, dtype, spelling, shape, per_row):
    weight, scale = stored_in_fp8(random(*shape), FP8[dtype], per_row=per_row)
    tensors, metadata = SPELLINGS[spelling](weight, scale, dtype)
    beside = {
        "a.bias": random(24).half(),
        "a.input_scale": torch.tensor(0.5),
        "b.weight": random(4, 4).half(),
    }
    path = write(tmp_path / "model.safetensors", tensors | beside, metadata=metadata)
    found = read_weights(path)
    assert set(found) == {"a.weight", "a.bias", "b.weight"}
    assert torch.equal(found["a.weight"], weight.float() * scale)
    assert torch.equal(found["b.weight"], beside["b.weight"])
    assert found["b.weight"].dtype == torch.float16


def test_int8(tmp_path):
    weight = torch.randint(-127, 128, (24, 64), dtype=torch.int8)
    tensors = SPELLINGS["comfy_quant"](weight, torch.tensor(0.01), "int8_tensorwise")[0]
    found = read_weights(write(tmp_path / "model.safetensors", tensors))
    assert torch.equal(found["a.weight"], weight.float() * torch.tensor(0.01))


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (160, 320), (320, 768)])
def test_mxfp8(tmp_path, rows, columns):
    """The scales lie in tiles of 128 rows and 4 columns, as cuBLAS takes them."""
    weight = random(rows, columns).mul(1000).to(torch.float8_e4m3fn)
    exponents = torch.randint(110, 130, (rows, columns // 32), dtype=torch.uint8)
    padded = torch.zeros(-(-rows // 128) * 128, -(-(columns // 32) // 4) * 4, dtype=torch.uint8)
    padded[:rows, : columns // 32] = exponents
    tiles = padded.reshape(-1, 4, 32, padded.shape[1] // 4, 4).permute(0, 3, 2, 1, 4)
    tensors = SPELLINGS["comfy_quant"](weight, tiles.reshape(padded.shape), "mxfp8")[0]
    found = read_weights(write(tmp_path / "model.safetensors", tensors))
    factors = torch.exp2(exponents.float() - 127).repeat_interleave(32, dim=1)
    assert torch.equal(found["a.weight"], weight.float() * factors)


def test_every_part_of_a_checkpoint(tmp_path):
    tensors, expected = {}, {}
    for name, tensor in mini.checkpoint().items():
        tensors[name] = expected[name] = tensor
        if name.endswith(".weight") and tensor.ndim > 1:
            weight, scale = stored_in_fp8(tensor)
            layer = name.removesuffix(".weight")
            tensors |= {name: weight, f"{layer}.scale_weight": scale}
            tensors[f"{layer}.scale_input"] = torch.ones(())
            expected[name] = weight.float() * scale
    tensors["model.diffusion_model.scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    tensors["cond_stage_model.scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    path = write(tmp_path / "model.safetensors", tensors)
    plain = load_checkpoint(write(tmp_path / "plain.safetensors", expected))
    found = load_checkpoint(path)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(found, part), getattr(plain, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(torch.equal(tensor, plain.vae[name]) for name, tensor in load_vae(path)[1].items())
    assert identify(path).usable


@pytest.mark.parametrize("dtype", FP8)
def test_plain_fp8_stays_as_it_is(tmp_path, dtype):
    tensors = {"a.weight": random(4, 4).to(FP8[dtype])}
    found = read_weights(write(tmp_path / "model.safetensors", tensors))
    assert found["a.weight"].dtype == FP8[dtype]


W8, S = stored_in_fp8(random(24, 64))
PACKED = torch.zeros(24, 32, dtype=torch.uint8)
REFUSED = {
    "nvfp4": (
        {
            "a.weight": PACKED,
            "a.weight_scale": W8,
            "a.weight_scale_2": S,
            "a.comfy_quant": as_text({"format": "nvfp4"}),
        },
        "layer a .*nvfp4",
    ),
    "nvfp4 without its name": ({"a.weight": PACKED, "a.weight_scale_2": S}, "weight_scale_2"),
    "blocks of another sort": (
        {"a.weight": W8, "a.weight_scale_inv": torch.ones(1, 1)},
        "scale_inv",
    ),
    "ConvRot": (
        {
            "a.weight": W8.view(torch.int8),
            "a.weight_scale": S,
            "a.comfy_quant": as_text({"format": "int8_tensorwise", "convrot": True}),
        },
        "ConvRot",
    ),
    "a format to come": (
        {"a.weight": W8, "a.weight_scale": S, "a.comfy_quant": as_text({"format": "float3"})},
        "float3",
    ),
    "a scale beside float16": ({"a.weight": W8.half(), "a.scale_weight": S}, "layer a .*float16"),
    "no format": (
        {"a.weight": W8, "a.weight_scale": S, "a.comfy_quant": as_text([])},
        "cannot be read",
    ),
    "no JSON": (
        {"a.weight": W8, "a.comfy_quant": torch.zeros(9, dtype=torch.uint8)},
        "cannot be read",
    ),
    "no weight": ({"a.comfy_quant": as_text({"format": "float8_e4m3fn"})}, "missing"),
}
MISFITS = {
    "no scale": (
        {"a.weight": W8, "a.comfy_quant": as_text({"format": "float8_e4m3fn"})},
        "is missing",
    ),
    "a scale for each column": ({"a.weight": W8, "a.weight_scale": torch.ones(64)}, "shape"),
    "blocks that do not fit": (
        {
            "a.weight": W8,
            "a.weight_scale": torch.ones(3, dtype=torch.uint8),
            "a.comfy_quant": as_text({"format": "mxfp8"}),
        },
        "3 numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED | MISFITS)
def test_what_is_not_known_is_refused_by_name(tmp_path, case):
    tensors, says = (REFUSED | MISFITS)[case]
    path = write(tmp_path / "model.safetensors", tensors)
    with pytest.raises(AnimateDiffV2VError, match=rf"model\.safetensors.*{says}"):
        read_weights(path)
    assert case in MISFITS or not identify(path).usable


def test_a_damaged_header_is_refused(tmp_path):
    for text in ("{", "[]", '{"layers": 3}', '{"layers": {"a": 3}}'):
        path = write(
            tmp_path / "m.safetensors", {"a.weight": W8}, metadata={"_quantization_metadata": text}
        )
        with pytest.raises(AnimateDiffV2VError, match="cannot be read"):
            read_weights(path)
        assert not identify(path).usable
