"""Read PyTorch's pickled checkpoints without executing anything in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import AnimateDiffV2VError

_FOREIGN = re.compile(r"(?:GLOBAL|Unsupported (?:class|global:? ?(?:GLOBAL)?))\s+([\w.]+)")


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a ``torch.save`` file, memory-mapped where the file allows it.

    Raises:
        AnimateDiffV2VError: the file is damaged, or asks for classes other than tensors.
    """
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        if foreign is None:
            raise _damaged(path, error) from error
        raise AnimateDiffV2VError(
            f"{path} was refused: it is a pickle that wants the Python class {foreign[1]}, "
            "and such files can run any code. Use a .safetensors version of it."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return _tensors(state, path)


def _damaged(path: Path, error: Exception) -> AnimateDiffV2VError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
    return AnimateDiffV2VError(
        f"{path} is a damaged PyTorch checkpoint ({reason}). Download it again."
    )


def _tensors(state: Any, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping):
        raise AnimateDiffV2VError(
            f"{path} holds a {type(state).__name__}, not named weights, so it is no model file."
        )
    inner = state.get("state_dict")
    return flatten(inner if isinstance(inner, Mapping) else state)


def flatten(state: Mapping[Any, Any], *, prefix: str = "") -> dict[str, torch.Tensor]:
    """Give the tensors of nested dictionaries dotted names; drop everything else."""
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, torch.Tensor):
            tensors[name] = value.detach()
        elif isinstance(value, Mapping):
            tensors |= flatten(value, prefix=f"{name}.")
    return tensors
