"""Reading the tensors of a model file, memory-mapped, without executing anything in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from safetensors import SafetensorError, safe_open

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .weight_formats import FORMAT_ENDING, known_formats

if TYPE_CHECKING:  # a header is read without PyTorch
    import torch

Weights: TypeAlias = "Mapping[str, torch.Tensor]"

_SNIFFED_BYTES = 1024
_LARGEST_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_AGAIN = "Download it again."
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a ``.safetensors``, ``.ckpt``, ``.pt``, ``.pth`` or ``.bin`` file.

    The tensors are views of the memory-mapped file in its stored dtype: they cost no memory
    until they are used, and must not be changed in place. The format is detected by the content,
    not by the suffix. A ``state_dict`` is unwrapped; nested dictionaries get dotted names;
    values other than tensors are ignored. Weights in 8 bits with a scale are widened to float32.

    Raises:
        AnimateDiffV2VError: the file is missing, a folder, empty, truncated, a web page, a Git
            LFS pointer, not a model file, a pickle that needs classes that are not allowed, or
            has weights in an unsupported format.
    """
    from .scaled_weights import widen_scaled  # noqa: PLC0415 - loads PyTorch

    path = checked_path("path", path)
    if _format(path) != "safetensors":
        return widen_scaled(_read_pickle(path), path=path, metadata={})
    tensors, metadata = _read_safetensors(path)
    return widen_scaled(tensors, path=path, metadata=metadata)


@dataclass(frozen=True)
class TensorHeader:
    """The shape and dtype (torch's name) of one tensor in a file's header."""

    shape: tuple[int, ...]
    dtype: str


def read_header(path: str | Path) -> dict[str, TensorHeader]:
    """Read the names, shapes and dtypes of a file's tensors, but not their values.

    Raises:
        AnimateDiffV2VError: as `read_weights`, except for scales that do not fit their weights.
    """
    path = checked_path("path", path)
    if _format(path) == "safetensors":
        return _safetensors_header(path)
    return {
        name: TensorHeader(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in _read_pickle(path).items()
    }


def is_pickle(path: Path) -> bool:
    """Return whether a file is a PyTorch checkpoint; raises what `read_header` raises."""
    return _format(path) == "pickle"


def _format(path: Path) -> Literal["safetensors", "pickle"]:
    head = _read_head(path)
    refusal = _not_a_model(head)
    if refusal:
        raise AnimateDiffV2VError(f"{path} {refusal}")
    header_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header_bytes <= _LARGEST_HEADER_BYTES:
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "pickle"
    raise AnimateDiffV2VError(
        f"{path} is not a model file: it is neither safetensors nor a PyTorch checkpoint. "
        "Choose another file, or download this one again."
    )


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
    """Return what a file is instead of a model, as the end of a sentence; None if unknown."""
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
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (head[:4], head[8:12]) == (
        b"RIFF",
        b"WEBP",
    ):
        return (
            "is a picture. Textual inversions that are hidden in pictures are not read here: "
            "use the .safetensors or .pt version."
        )
    if head.startswith(b"GGUF"):
        return "is a GGUF file, which this pack cannot read. Use the .safetensors version."
    return None


_UNREADABLE = (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            _check_names(path)
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except _UNREADABLE as error:
        raise AnimateDiffV2VError(_damage(path, error)) from error


def _safetensors_header(path: Path) -> dict[str, TensorHeader]:
    header = {}
    texts = {}  # tensors that state the format of a layer's weight
    try:
        with safe_open(path, framework="np") as file:
            _check_names(path)
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                dtype = _DTYPES.get(part.get_dtype(), part.get_dtype())
                header[name] = TensorHeader(tuple(part.get_shape()), dtype)
                if name.endswith(FORMAT_ENDING) and dtype == "uint8":
                    texts[name] = file.get_tensor(name).tobytes()
    except _UNREADABLE as error:
        raise AnimateDiffV2VError(_damage(path, error)) from error
    dtypes = {name: tensor.dtype for name, tensor in header.items()}
    known_formats(dtypes, texts, path=path, metadata=metadata)
    return header


def _check_names(path: Path) -> None:
    """Raise ValueError for a tensor that is named twice, which the format forbids.

    The library would silently take the last one.
    """
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    json.loads(header, object_pairs_hook=_with_names_once)


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(name for name, value in pairs if isinstance(value, dict))
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"its header names the tensor {twice} more than once")
    return dict(pairs)


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    from .pickles import read_pickle  # noqa: PLC0415 - loads PyTorch

    return read_pickle(path)


def _damage(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    if header > size or "incomplete" in str(error).lower() or "not fully covered" in str(error):
        return f"{path} is cut short or damaged ({size} bytes are there: {error}). {_AGAIN}"
    return f"{path} is a damaged safetensors file ({error}). {_AGAIN}"
