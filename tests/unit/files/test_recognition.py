"""Every kind of file that users have: its recognised kind, its loaders, and its messages."""

import sys

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import (
    LoraEntry,
    identify,
    load_checkpoint,
    load_control,
    load_ip_adapter,
    load_motion_module,
    load_sparsectrl,
    load_text_encoder,
    load_vae,
    merge_loras,
    merge_motion_loras,
    read_weights,
)
from safetensors.torch import save_file

from . import miniatures as mini
from .file_kinds import CHECKPOINTS, ROWS


def write(tmp_path, row):
    tensors = row.make()
    if row.wrap is None:
        path = tmp_path / "any name.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        path = tmp_path / "any name.ckpt"
        torch.save(row.wrap(tensors), path)
    return path


def merge_into_unet(path):
    unet = mini.state(mini.unet_module())
    return merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(path)])


def merge_into_motion_module(path):
    module = mini.motion_weights()
    return merge_motion_loras(motion_module=module, loras=[LoraEntry(path)])


LOADERS = {
    "checkpoint": load_checkpoint,
    "ControlNet": load_control,
    "SparseCtrl": load_sparsectrl,
    "IP-Adapter": load_ip_adapter,
    "VAE": load_vae,
    "text encoder": load_text_encoder,
    "motion module": load_motion_module,
    "LoRA": merge_into_unet,
    "motion LoRA": merge_into_motion_module,
}


@pytest.mark.parametrize("name", ROWS)
def test_recognised(name, tmp_path):
    row = ROWS[name]
    path = write(tmp_path, row)
    report = identify(path)
    assert report.path == path
    assert (report.kind, report.base_model) == (row.kind, row.base_model)
    assert row.layout in report.layout
    assert row.says in report.message
    assert row.contents in report.contents
    assert report.parameter_count == sum(tensor.numel() for tensor in row.make().values())
    assert report.usable or not row.taken_by
    assert report.message.endswith(".")


@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if "motion module" in row.taken_by]
)
def test_a_header_tells_how_long_a_clip_the_motion_module_takes(name, tmp_path):
    path = write(tmp_path, ROWS[name])
    assert identify(path).max_frames == load_motion_module(path).max_frames


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("loader", LOADERS)
def test_loaded_or_refused(name, loader, tmp_path):
    row = ROWS[name]
    path = write(tmp_path, row)
    if loader in row.taken_by:
        LOADERS[loader](path)
        return
    with pytest.raises(AnimateDiffV2VError) as raised:
        LOADERS[loader](path)
    sentence = str(raised.value)
    assert str(path) in sentence
    assert "None" not in sentence
    report = identify(path)
    if report.kind != loader and loader not in ("VAE", "text encoder"):
        phrase = report.message.removeprefix("This is ").split(".")[0]
        assert phrase in sentence or "does not fit" in sentence


UNREADABLE = {
    "web page": (b"<!DOCTYPE html><html><head><title>Log in</title>", "web page"),
    "web page after blanks": (b"\n\n  <HTML lang='en'>", "web page"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS"),
    "empty": (b"", "empty"),
    "GGUF": (b"GGUF\x03\0\0\0", "GGUF"),
    "text": (b"Entry not found", "not a model file"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "is a picture"),
    "WebP": (b"RIFF\x10\0\0\0WEBPVP8 ", "is a picture"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a picture"),
    "truncated archive": (b"PK\x03\x04" + b"\0" * 64, "damaged"),
    "truncated pickle": (b"\x80\x02}q\0", "damaged"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("loader", LOADERS)
def test_unreadable(name, loader, tmp_path):
    content, says = UNREADABLE[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    report = identify(path)
    assert (report.kind, report.usable) == ("not a model", False)
    assert says in report.message
    with pytest.raises(AnimateDiffV2VError, match=says):
        LOADERS[loader](path)


def test_truncated_safetensors(tmp_path):
    path = write(tmp_path, CHECKPOINTS["full"])
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 100, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(AnimateDiffV2VError, match="cut short"):
            read_weights(path)


def test_missing_file_and_folder(tmp_path):
    assert "no file" in identify(tmp_path / "absent.safetensors").message
    assert "folder" in identify(tmp_path).message


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_stored_precision(dtype, suffix, tmp_path):
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in mini.checkpoint().items()}
    path = tmp_path / f"model.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    assert identify(path).dtype == str(dtype).removeprefix("torch.")
    loaded = load_checkpoint(path)
    name = "conv_in.weight"
    assert loaded.unet[name].dtype == dtype
    expected = mini.state(mini.unet_module())[name].to(dtype)
    assert torch.equal(loaded.unet[name].float(), expected.float())


@pytest.mark.skipif(sys.platform == "win32", reason="NTFS would write the two gigabytes")
def test_two_gigabytes_are_not_read(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "large.safetensors"
    header = b'{"weight":{"dtype":"F16","shape":[1000000000],"data_offsets":[0,2000000000]}}'
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert identify(path).parameter_count == 1_000_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
