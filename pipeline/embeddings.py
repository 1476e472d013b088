"""Textual inversions: the vectors behind `embedding:name` in a prompt."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .choices import checked_path
from .errors import AnimateDiffV2VError
from .files import read_weights
from .prompts.chunks import FindEmbedding

EXTENSIONS = (".safetensors", ".pt", ".bin")
# Where the vectors stand: Automatic1111's trainer, its safetensors, files with several encoders.
KEYS = ("string_to_param.*", "emb_params", "clip_l")


def embedding_finder(folder: Path) -> FindEmbedding:
    """Give a function that looks names up in `folder`, with or without their extension.

    Raises AnimateDiffV2VError when the folder does not exist.
    """
    folder = checked_path("folder", folder)
    if not folder.is_dir():
        raise AnimateDiffV2VError(f"{folder} is no folder; give one that holds embeddings.")
    root = folder.resolve()

    def find(name: str) -> Tensor | None:
        for candidate in (name, *(name + extension for extension in EXTENSIONS)):
            path = (root / candidate).resolve()
            if path.is_relative_to(root) and path.is_file():
                return read_embedding(path)
        return None

    return find


def read_embedding(path: Path) -> Tensor:
    """Read the vectors [count, channels] of a textual inversion, .pt, .bin or .safetensors.

    Raises AnimateDiffV2VError when the file holds none.
    """
    tensors = read_weights(path)
    # diffusers keeps the vectors under the token that they were trained for, whatever its name.
    for tensor in [tensors[key] for key in KEYS if key in tensors] + list(tensors.values()):
        if tensor.is_floating_point() and tensor.ndim in (1, 2):
            return tensor.reshape(-1, tensor.shape[-1])
    raise AnimateDiffV2VError(f"{path} is no textual inversion: it holds no vectors.")
