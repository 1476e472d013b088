"""LoRAs whose strength varies: their changes stay beside the weights, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..curve import Curve
from ..errors import AnimateDiffV2VError
from .lora import LoraReport, changes_of
from .lora_entry import LoraEntry
from .lora_formulas import Parameters, low_rank
from .reading import Weights


class Factors(NamedTuple):
    """The change of a weight, as a product of small matrices where its family has them."""

    down: torch.Tensor | None
    """[rank, in, ...], float32; None where `up` is the whole change."""
    up: torch.Tensor
    """[out, rank], or the shape of the weight."""


@dataclass(frozen=True)
class LayeredLora:
    """A LoRA whose strength is a curve, with its changes by the names of layers."""

    strength: Curve
    layers: dict[str, Factors]


def layered_loras(
    unet: Weights, loras: Sequence[LoraEntry]
) -> tuple[list[LayeredLora], list[LoraReport]]:
    """Return those of a stack whose strength is a curve, with reports as `merge_loras` makes them.

    Args:
        unet: The UNet's tensors, with the other LoRAs merged: changes may depend on the weights.
        loras: The stack.

    Raises:
        AnimateDiffV2VError: a file is refused as by `merge_loras`, or changes norms or biases.
    """
    found, reports = [], []
    for entry in loras:
        if isinstance(entry.model_strength, Curve):
            changes, report = changes_of(entry.path, unet)
            factors = {
                name.removesuffix(".weight"): _factors(entry.path, name, unet[name], parameters)
                for name, parameters in changes.items()
            }
            # A rank of 0 changes nothing.
            layers = {name: each for name, each in factors.items() if each.up.numel()}
            found.append(LayeredLora(entry.model_strength, layers))
            reports.append(report)
    return found, reports


def _factors(path: Path, name: str, weight: torch.Tensor, parameters: Parameters) -> Factors:
    if not name.endswith(".weight") or weight.ndim == 1:
        raise AnimateDiffV2VError(
            f"{path} changes a norm or a bias ({name}), which cannot vary along the video: give it "
            "a number as strength instead of a curve."
        )
    try:
        return Factors(*low_rank(weight, parameters))
    except (ValueError, RuntimeError) as error:
        raise AnimateDiffV2VError(
            f"{path} does not fit this model, or its strength cannot be a curve: the layer {name} "
            f"has a weight of the shape {list(weight.shape)} here, and {error}."
        ) from error
