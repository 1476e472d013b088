"""Motion modules of every family and layout come out under the original names."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import load_motion_module
from safetensors.torch import save_file

from . import miniatures as mini

FAMILIES = {
    "v1": (False, 24, True),
    "v2": (True, 32, True),
    "v3": (False, 32, True),
    "long": (False, 64, True),
    "animatelcm": (True, 32, False),
}


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("wrapper", ["plain", "module.", "state_dict", "training"])
@pytest.mark.parametrize("family", FAMILIES)
def test_family(tmp_path, family, wrapper, layout):
    mid, frames, tables = FAMILIES[family]
    adapter = mini.state(mini.motion_module(mid=mid, frames=frames))
    expected = mini.motion_to_original(adapter, tables=tables)
    tensors = expected if layout == "original" else adapter
    if not tables:
        tensors = {n: t for n, t in tensors.items() if not n.endswith(".pe")}
    path = tmp_path / "mm.ckpt"
    if wrapper == "plain":
        path = tmp_path / "mm.safetensors"
        save_file(tensors, path)
    elif wrapper == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    elif wrapper == "state_dict":
        torch.save({"state_dict": tensors, "epoch": 3, "global_step": 1000}, path)
    else:
        unet = mini.state(mini.unet_module())
        full = {f"module.{name}": tensor for name, tensor in (unet | tensors).items()}
        torch.save({"epoch": 3, "global_step": 9, "state_dict": full}, path)
    loaded = load_motion_module(path)
    assert loaded.family == family
    assert loaded.has_mid_block is mid
    assert loaded.max_frames == (frames if tables else 64)
    found = loaded.tensors | (loaded.positional_encoding or {})
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


NAME = "up_blocks.1.motion_modules.1.temporal_transformer"


@pytest.mark.parametrize(
    "name",
    [
        f"{NAME}.norm.weight",
        f"{NAME}.transformer_blocks.0.attention_blocks.1.to_k.weight",
        f"{NAME}.transformer_blocks.0.attention_blocks.1.pos_encoder.pe",
        "mid_block.motion_modules.0.temporal_transformer.proj_out.bias",
    ],
)
@pytest.mark.parametrize("fault", ["missing", "misshapen"])
def test_one_bad_tensor_is_named(tmp_path, name, fault):
    tensors = mini.motion_to_original(mini.state(mini.motion_module()))
    if fault == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(7, *tensors[name].shape[1:])
    save_file(tensors, tmp_path / "mm.safetensors")
    with pytest.raises(AnimateDiffV2VError, match=name.replace(".", r"\.")):
        load_motion_module(tmp_path / "mm.safetensors")


@pytest.mark.parametrize("gone", [NAME, "up_blocks.1.", "down_blocks.0.motion_modules.0."])
def test_a_missing_part_is_named(tmp_path, gone):
    tensors = mini.motion_to_original(mini.state(mini.motion_module(layers=2)))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(gone)}
    save_file(kept, tmp_path / "mm.safetensors")
    with pytest.raises(AnimateDiffV2VError, match=r"_blocks\.\d\.motion_modules"):
        load_motion_module(tmp_path / "mm.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        f"{NAME}.transformer_blocks.1.norms.0.weight",
        "down_blocks.0.motion_modules.99999999999.temporal_transformer.norm.weight",
    ],
)
def test_an_unknown_tensor_is_named(tmp_path, name):
    tensors = mini.motion_to_original(mini.state(mini.motion_module()))
    save_file(tensors | {name: torch.zeros(32)}, tmp_path / "mm.safetensors")
    with pytest.raises(AnimateDiffV2VError, match="motion_modules"):
        load_motion_module(tmp_path / "mm.safetensors")
