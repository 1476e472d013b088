"""ControlNets and T2I-Adapters in every layout load into diffusers' modules."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import load_control
from diffusers import ControlNetModel, T2IAdapter
from safetensors.torch import save_file

from . import miniatures as mini

ARCHITECTURES = {
    "two levels": ((32, 64), 1, None),
    "two layers": ((32, 64), 2, None),
    "three levels": ((64, 64, 96), 1, (True, True, True)),
    "as Stable Diffusion": ((32, 64, 96, 96), 2, (True, True, True, False)),
}


def write(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("layout", ["LDM", "LDM without prefix", "diffusers"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_controlnet_is_what_diffusers_builds(tmp_path, architecture, layout):
    channels, layers, attends = ARCHITECTURES[architecture]
    expected = mini.state(mini.control_module(channels, layers, attends))
    tensors = expected
    if layout != "diffusers":
        prefix = "control_model." if layout == "LDM" else ""
        tensors = mini.control_to_ldm(expected, layers, prefix=prefix)
    loaded = load_control(write(tmp_path / "model.safetensors", tensors))
    assert loaded.kind == "ControlNet"
    same(loaded.tensors, expected)
    with torch.device("meta"):
        module = ControlNetModel(**loaded.config)
    module.load_state_dict(loaded.tensors, strict=True, assign=True)


@pytest.mark.parametrize("channels", [(32, 64), (32, 64, 96, 96)])
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("layout", ["original", "nested", "diffusers"])
def test_t2i_adapter_is_what_diffusers_builds(tmp_path, channels, in_channels, layout):
    expected = mini.state(mini.adapter_module(channels, in_channels))
    original = mini.adapter_to_original(channels, in_channels)
    path = tmp_path / "model.pth"
    if layout == "nested":
        torch.save({"adapter": original}, path)
    else:
        write(path, expected if layout == "diffusers" else original)
    loaded = load_control(path)
    assert loaded.kind == "T2I-Adapter"
    same(loaded.tensors, expected)
    with torch.device("meta"):
        module = T2IAdapter(**loaded.config)
    module.load_state_dict(loaded.tensors, strict=True, assign=True)


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("control_v11e_sd15_shuffle.pth", True),
        ("control_v11e_sd15_shuffle/diffusion_pytorch_model.safetensors", True),
        ("control_v11p_sd15_canny.safetensors", False),
    ],
)
def test_shuffle_is_known_by_its_name(tmp_path, name, pools):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, mini.state(mini.control_module()))
    assert load_control(path).global_pooling is pools


def test_a_missing_tensor_is_named(tmp_path):
    tensors = mini.control_to_ldm(mini.state(mini.control_module()))
    del tensors["control_model.zero_convs.1.0.weight"]
    with pytest.raises(AnimateDiffV2VError, match=r"control_model\.zero_convs\.1\.0\.weight"):
        load_control(write(tmp_path / "model.safetensors", tensors))


def test_a_tensor_of_another_shape_is_named(tmp_path):
    tensors = mini.adapter_to_original()
    tensors["body.2.block1.weight"] = tensors["body.2.block1.weight"][:, :5]
    with pytest.raises(AnimateDiffV2VError, match=r"body\.1\.resnets\.0\.block1\.weight"):
        load_control(write(tmp_path / "model.safetensors", tensors))
