"""Textual inversions: the vectors behind `embedding:name` in a prompt."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from ..files import read_weights
from .chunks import FindEmbedding

EXTENSIONS = (".safetensors", ".pt", ".bin")
# Keys of the vectors: Automatic1111's trainer, its safetensors, files with several encoders.
KEYS = ("string_to_param.*", "emb_params", "clip_l")
WIDTH = 768  # width of CLIP-L's tokens; a file may have vectors for other encoders as well
_LISTED = re.compile(r"\d+\.")


def embedding_finder(folder: Path) -> FindEmbedding:
    """Return a function that looks up names in `folder`, with or without their extension.

    Raises:
        AnimateDiffV2VError: when the folder does not exist.
    """
    folder = checked_path("folder", folder)
    if not folder.is_dir():
        raise AnimateDiffV2VError(f"{folder} is not a folder; give one that contains embeddings.")
    root = folder.resolve()

    def find(name: str) -> Tensor | None:
        for candidate in (name, *(name + extension for extension in EXTENSIONS)):
            path = _file_in(root, candidate)
            if path is not None:
                return read_embedding(path)
        return None

    return find


def read_embedding(path: Path) -> Tensor:
    """Read the vectors [count, channels] of a textual inversion, .pt, .bin or .safetensors.

    Raises:
        AnimateDiffV2VError: when the file has none.
    """
    tensors = read_weights(path)
    vectors = {n: found for n, t in tensors.items() if (found := _as_vectors(t)) is not None}
    if vectors and all(_LISTED.match(name) for name in vectors):
        return _joined([vectors[n] for n in sorted(vectors, key=lambda n: int(n.split(".")[0]))])
    in_strings = [name for name in vectors if name.startswith("string_to_param.")]
    # diffusers stores the vectors under the token that they were trained for, which can be any.
    for name in [*KEYS, *in_strings, *vectors]:
        if name in vectors:
            return vectors[name]
    raise AnimateDiffV2VError(f"{path} is not a textual inversion: it has no vectors.")


def _file_in(root: Path, name: str) -> Path | None:
    try:
        path = (root / name).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None
    except (
        OSError,
        ValueError,
    ):  # too long for a file name, or with characters that are not allowed
        return None


def _as_vectors(tensor: Tensor) -> Tensor | None:
    """Return a tensor as [count, channels]; None if it has another shape or type."""
    if tensor.ndim == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or not tensor.numel():
        return None
    return tensor.reshape(-1, tensor.shape[-1])


def _joined(vectors: list[Tensor]) -> Tensor:
    """Concatenate the vectors of a list of inversions, as ComfyUI does."""
    widths = {each.shape[1] for each in vectors}
    width = WIDTH if WIDTH in widths else vectors[0].shape[1]
    return torch.cat([each for each in vectors if each.shape[1] == width])
