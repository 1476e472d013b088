"""Merge LoRA files into the weights of a network: ``W + sum(strength * delta)``.

Merging never changes a tensor: it gives a new dictionary in which the touched tensors are new
and all others are the same objects. A stack taken away is the dictionary that was there before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import AnimateDiffV2VError
from .lora_formulas import lora_delta
from .lora_keys import LoraModule, group_by_module, places_of
from .motion_module import MotionModuleWeights
from .reading import Weights, read_weights
from .tensor_specs import TensorSpec, shapes_of
from .text_encoder_layout import infer_text_encoder_config, text_encoder_table
from .unet_layout import infer_unet_config, unet_table

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoraEntry:
    """One file of a stack. Strengths are usually 0 to 1; 0 leaves that network alone."""

    path: Path
    model_strength: float = 1.0
    clip_strength: float = 1.0


@dataclass(frozen=True)
class LoraReport:
    """What became of one file of a stack."""

    path: Path
    family: str
    matched_modules: int
    unmatched_keys: tuple[str, ...]


@dataclass(frozen=True)
class _Change:
    module: LoraModule
    strength: float


_Changes = dict[str, list[_Change]]


def merge_loras(
    *, unet: Weights, text_encoder: Weights | None, loras: Sequence[LoraEntry]
) -> tuple[Tensors, Tensors | None, tuple[LoraReport, ...]]:
    """Merge a stack of LoRA files into a UNet and a text encoder, in the order given.

    Args:
        unet: tensors by the names of diffusers' ``UNet2DConditionModel``.
        text_encoder: tensors by transformers' names, ``text_model.`` included; or None.
        loras: the stack; entries whose strengths are both 0 are skipped.

    Returns:
        Both networks with the touched tensors replaced, computed in float32 and stored in the
        dtype of the tensor that they replace; and a report for each file that was merged.

    Raises:
        AnimateDiffV2VError: a file cannot be read, matches nothing, or does not fit.
    """
    places = {"unet": places_of(_unet_specs(unet))}
    bases: dict[str, Weights] = {"unet": unet}
    if text_encoder is not None:
        places["text_encoder"] = places_of(_text_encoder_specs(text_encoder))
        bases["text_encoder"] = text_encoder
    changes: dict[str, _Changes] = {network: defaultdict(list) for network in bases}
    reports = []
    for entry in loras:
        strengths = {"unet": entry.model_strength, "text_encoder": entry.clip_strength}
        if any(strengths.values()):
            reports.append(_plan(entry.path, strengths=strengths, places=places, changes=changes))
    merged = {network: _merged(base, changes[network]) for network, base in bases.items()}
    return merged["unet"], merged.get("text_encoder"), tuple(reports)


def merge_motion_loras(
    *, motion_module: MotionModuleWeights, loras: Sequence[LoraEntry]
) -> tuple[MotionModuleWeights, tuple[LoraReport, ...]]:
    """Merge motion LoRAs into a motion module, in the order given; see `merge_loras`.

    Raises:
        AnimateDiffV2VError: a file cannot be read, matches nothing, or does not fit.
    """
    places = {"motion": places_of(_motion_specs(motion_module.tensors))}
    changes: dict[str, _Changes] = {"motion": defaultdict(list)}
    reports = [
        _plan(
            entry.path,
            strengths={"motion": entry.model_strength},
            places=places,
            changes=changes,
        )
        for entry in loras
        if entry.model_strength
    ]
    tensors = _merged(motion_module.tensors, changes["motion"])
    return replace(motion_module, tensors=tensors), tuple(reports)


def _unet_specs(unet: Weights) -> list[TensorSpec]:
    config = infer_unet_config(shapes_of(unet), layout="diffusers")
    return list(unet_table(config)) if config else []


def _text_encoder_specs(text_encoder: Weights) -> list[TensorSpec]:
    config = infer_text_encoder_config(shapes_of(text_encoder, "text_model."))
    return list(text_encoder_table(config)) if config else []


def _motion_specs(tensors: Weights) -> list[TensorSpec]:
    return [TensorSpec(name, name, tuple(tensor.shape)) for name, tensor in tensors.items()]


def _plan(
    path: Path,
    *,
    strengths: Mapping[str, float],
    places: Mapping[str, Mapping[str, str]],
    changes: Mapping[str, _Changes],
) -> LoraReport:
    modules, unmatched = group_by_module(read_weights(path))
    matched = 0
    for module in modules:
        target = _target(module, places)
        if target is None:
            unmatched.extend(module.keys)
            continue
        matched += 1
        network, name = target
        if strengths[network]:
            changes[network][f"{name}.weight"].append(_Change(module, strengths[network]))
    if not matched:
        raise AnimateDiffV2VError(f"{path} matches no layer of this model.")
    return LoraReport(
        path=path, family="LoRA", matched_modules=matched, unmatched_keys=tuple(unmatched)
    )


def _target(module: LoraModule, places: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    for network, names in places.items():
        if module.network in (None, network) and module.place in names:
            return network, names[module.place]
    return None


def _merged(base: Weights, changes: _Changes) -> Tensors:
    merged = dict(base)
    for name, stack in changes.items():
        weight = base[name].float()
        for change in stack:
            delta = lora_delta(change.module.parameters)
            weight = weight + delta.reshape(weight.shape) * change.strength
        merged[name] = weight.to(base[name].dtype)
    return merged
