"""Read the tensors of a model file: memory-mapped, and without executing anything in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import AnimateDiffV2VError
from .pickles import read_pickle

Weights = Mapping[str, torch.Tensor]

_SNIFFED_BYTES = 1024
_LARGEST_HEADER_BYTES = 100_000_000  # what the safetensors format allows
_AGAIN = "Download it again."


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a ``.safetensors``, ``.ckpt``, ``.pt``, ``.pth`` or ``.bin`` file.

    The tensors are views of the memory-mapped file in its stored dtype: they cost no memory
    until they are used, and must not be changed in place. The format is told by the content,
    not by the suffix. A ``state_dict`` wrapper is opened; nested dictionaries get dotted names;
    what is no tensor is left out.

    Raises:
        AnimateDiffV2VError: the file is missing, a folder, empty, cut short, a web page, a Git
            LFS pointer, no model file at all, or a pickle that asks for foreign classes.
    """
    path = Path(path)
    head = _read_head(path)
    refusal = _not_a_model(head)
    if refusal:
        raise AnimateDiffV2VError(f"{path} {refusal}")
    if looks_like_safetensors(head):
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return read_pickle(path)
    raise AnimateDiffV2VError(
        f"{path} is no model file: it is neither safetensors nor a PyTorch checkpoint. {_AGAIN}"
    )


def looks_like_safetensors(head: bytes) -> bool:
    """Tell by the first bytes of a file: a length of eight bytes, then a JSON object."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and length <= _LARGEST_HEADER_BYTES


def _read_head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise AnimateDiffV2VError(f"{path} is a folder. Name the model file inside it.")
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except FileNotFoundError:
        raise AnimateDiffV2VError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise AnimateDiffV2VError(f"{path} cannot be read: {error}.") from error
    if not head:
        raise AnimateDiffV2VError(f"{path} is empty (0 bytes). {_AGAIN}")
    return head


def _not_a_model(head: bytes) -> str | None:
    """What else a downloaded "model" turns out to be, as the end of a sentence."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return (
            "is a web page that was saved under a model's name, not a model. "
            "Download the file itself; the site may want you to log in first."
        )
    if text.startswith(b"version https://git-lfs"):
        return (
            "is a Git LFS pointer, a note of about 130 bytes in place of the model. "
            "Run `git lfs pull`, or download the file itself."
        )
    if head.startswith(b"GGUF"):
        return "is a GGUF file, which this pack cannot read. Use the .safetensors version."
    return None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise AnimateDiffV2VError(_damage(path, error)) from error


def _damage(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    if header > size or "incomplete" in str(error).lower() or "not fully covered" in str(error):
        return f"{path} is cut short or damaged ({size} bytes are there: {error}). {_AGAIN}"
    return f"{path} is a damaged safetensors file ({error}). {_AGAIN}"
