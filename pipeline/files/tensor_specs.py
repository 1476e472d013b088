"""Names and shapes of tensors, which the layout tables are built from.

A table lists every tensor of a network once, with its name in diffusers' modules, its name in
the original (LDM) checkpoint and its shape. Conversion, checks and the matching of LoRA keys all
use this table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import AnimateDiffV2VError
from .finite import check_finite

if TYPE_CHECKING:  # names and shapes are read without PyTorch
    import torch

Layout = Literal["ldm", "diffusers"]
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a network: its name in each layout, and its shape."""

    name: str
    ldm_name: str
    shape: Shape


def affine(name: str, ldm_name: str, *shape: int, bias: bool = True) -> Iterator[TensorSpec]:
    """Yield weight and bias of a linear layer ``(out, in)``, convolution, or norm."""
    yield TensorSpec(f"{name}.weight", f"{ldm_name}.weight", shape)
    if bias:
        yield TensorSpec(f"{name}.bias", f"{ldm_name}.bias", shape[:1])


def take_tensors(
    weights: Mapping[str, torch.Tensor],
    specs: Iterable[TensorSpec],
    *,
    layout: Layout,
    prefix: str,
    path: Path,
) -> dict[str, torch.Tensor]:
    """Rename the tensors of a table to diffusers' names, without copying them.

    A 1x1 convolution is accepted in place of a linear layer, and the other way round.

    Args:
        weights: the tensors of the file.
        specs: the network's table.
        layout: ``"ldm"`` or ``"diffusers"``, the names that the file uses.
        prefix: the prefix of those names in the file.
        path: the file, for error messages.

    Raises:
        AnimateDiffV2VError: a tensor is missing, has another shape or has values that are not
            finite; names the first one.
    """
    taken = {}
    for spec in specs:
        name = prefix + (spec.ldm_name if layout == "ldm" else spec.name)
        tensor = weights.get(name)
        if tensor is None:
            raise AnimateDiffV2VError(
                f"{path} is incomplete: the tensor {name} of shape {list(spec.shape)} is missing."
            )
        check_finite(tensor, name=name, path=path)
        taken[spec.name] = _shaped(tensor, spec.shape, name=name, path=path)
    return taken


def _shaped(tensor: torch.Tensor, shape: Shape, *, name: str, path: Path) -> torch.Tensor:
    found = tuple(tensor.shape)
    if found == shape:
        return tensor
    if _without_1x1(found) == _without_1x1(shape):
        return tensor.reshape(shape)
    raise AnimateDiffV2VError(
        f"{path} does not fit together: the tensor {name} has the shape {list(found)} "
        f"where the rest of the file needs {list(shape)}."
    )


def _without_1x1(shape: Shape) -> Shape:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def shapes_of(weights: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, Shape]:
    """Return the shapes of the tensors with a prefix, by their names without it."""
    return {
        name[len(prefix) :]: tuple(tensor.shape)
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


def voted_size(shapes: Shapes, axes: Sequence[tuple[str, int]]) -> int | None:
    """Return the size that most of several tensors agree on, in case one of them is damaged.

    Args:
        shapes: the shapes of a file.
        axes: pairs of tensor name and axis; missing tensors do not vote.
    """
    votes = Counter(shapes[name][axis] for name, axis in axes if len(shapes.get(name, ())) > axis)
    return votes.most_common(1)[0][0] if votes else None
