"""Merge LoRA files into the weights of a network: ``W + sum(strength * delta)``.

Merging never changes a tensor in place: it returns a new dictionary in which changed tensors are
new objects and all others are the same ones. To remove a stack, use the original dictionary again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..curve import Curve
from ..errors import AnimateDiffV2VError
from .finite import check_finite, is_finite
from .kinds import LORA_KINDS, MOTION_LORA_KINDS, Kind
from .lora_entry import LoraEntry
from .lora_families import family_name, family_of
from .lora_formulas import Parameters, add_change
from .lora_keys import LoraModule, group_by_module, layer_names, split_key, split_network
from .motion_module import MotionModuleWeights, diffusers_name
from .peft_config import add_alphas
from .reading import Weights, read_weights
from .recognition import refusal
from .tensor_specs import TensorSpec, shapes_of
from .text_encoder_layout import infer_text_encoder_config, text_encoder_table
from .unet_layout import infer_unet_config, unet_table

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoraReport:
    """The result of merging one file of a stack.

    Attributes:
        path: the file.
        family: the families in it, the most common first: "LoRA", "LoCon, full difference".
        matched_modules: number of layers that it changes.
        unmatched_keys: keys of the file that match no layer, or no known family.
    """

    path: Path
    family: str
    matched_modules: int
    unmatched_keys: tuple[str, ...]


@dataclass(frozen=True)
class _Change:
    """The change of one tensor by one layer of a file."""

    parameters: Parameters
    strength: float
    path: Path
    key: str


_Changes = dict[str, list[_Change]]


def merge_loras(
    *, unet: Weights, text_encoder: Weights | None, loras: Sequence[LoraEntry]
) -> tuple[Tensors, Tensors | None, tuple[LoraReport, ...]]:
    """Merge a stack of LoRA files into a UNet and a text encoder, in the order given.

    Order matters if a change depends on the weight (DoRA, (IA)^3, GLoRA, OFT): each file
    is applied to the result of those before it.

    Args:
        unet: tensors by the names of diffusers' ``UNet2DConditionModel``.
        text_encoder: tensors by transformers' names, ``text_model.`` included; or None.
        loras: the stack; entries whose strengths are both 0 are skipped. Curves leave the UNet as
            it is; see `layered_loras`.

    Returns:
        Both networks with the changed tensors replaced, computed in float32 and stored in the
        dtype of the tensor that they replace; and a report for each file that was merged.

    Raises:
        AnimateDiffV2VError: a file cannot be read, is for another base model, matches nothing,
            or has shapes that do not fit.
    """
    bases: dict[str, Weights] = {"unet": unet}
    layers = {"unet": layer_names(_unet_specs(unet))}
    if text_encoder is not None:
        bases["text_encoder"] = text_encoder
        layers["text_encoder"] = layer_names(_text_encoder_specs(text_encoder))
    stack = [
        (entry.path, {"unet": entry.merged_strength, "text_encoder": entry.clip_strength})
        for entry in loras
    ]
    merged, reports = _merge(bases, layers, stack, kinds=LORA_KINDS)
    return merged["unet"], merged.get("text_encoder"), reports


def merge_motion_loras(
    *, motion_module: MotionModuleWeights, loras: Sequence[LoraEntry]
) -> tuple[MotionModuleWeights, tuple[LoraReport, ...]]:
    """Merge motion LoRAs into a motion module, in the order given; see `merge_loras`.

    Only the model strength is used.

    Raises:
        AnimateDiffV2VError: a file cannot be read, is not a motion LoRA, matches nothing, or has
            shapes that do not fit.
    """
    tensors = motion_module.tensors
    specs = [TensorSpec(n, diffusers_name(n), tuple(t.shape)) for n, t in tensors.items()]
    stack = []
    for entry in loras:
        if isinstance(entry.model_strength, Curve):
            raise AnimateDiffV2VError(
                f"{entry.path}: the strength of a motion LoRA is a number for the whole video, not "
                f"a curve ({entry.model_strength}); motion_scale can be a curve."
            )
        stack.append((entry.path, {"motion": entry.model_strength}))
    merged, reports = _merge(
        {"motion": tensors}, {"motion": layer_names(specs)}, stack, kinds=MOTION_LORA_KINDS
    )
    return replace(motion_module, tensors=merged["motion"]), reports


def _unet_specs(unet: Weights) -> Iterator[TensorSpec]:
    config = infer_unet_config(shapes_of(unet), layout="diffusers")
    return unet_table(config) if config else iter(())


def _text_encoder_specs(text_encoder: Weights) -> Iterator[TensorSpec]:
    config = infer_text_encoder_config(shapes_of(text_encoder, "text_model."))
    return text_encoder_table(config) if config else iter(())


_LayerNames = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class _Plan:
    """The networks, the names of their layers, and the changes of each tensor."""

    bases: Mapping[str, Weights]
    layers: _LayerNames
    changes: Mapping[str, _Changes]


def _merge(
    bases: Mapping[str, Weights],
    layers: _LayerNames,
    stack: Sequence[tuple[Path, Mapping[str, float]]],
    *,
    kinds: tuple[Kind, ...],
) -> tuple[dict[str, Tensors], tuple[LoraReport, ...]]:
    plan = _Plan(bases, layers, {network: defaultdict(list) for network in bases})
    reports = [
        _read_file(path, strengths=strengths, plan=plan, kinds=kinds)
        for path, strengths in stack
        if any(strengths.values())
    ]
    merged = {network: _merged(base, plan.changes[network]) for network, base in bases.items()}
    return merged, tuple(reports)


def changes_of(path: Path, unet: Weights) -> tuple[dict[str, Parameters], LoraReport]:
    """Return the changes of a UNet by a file, by the names of the tensors, and the report.

    Raises:
        AnimateDiffV2VError: as `merge_loras`.
    """
    layers = {"unet": layer_names(_unet_specs(unet))}
    plan = _Plan({"unet": unet}, layers, {"unet": defaultdict(list)})
    report = _read_file(path, strengths={"unet": 1.0}, plan=plan, kinds=LORA_KINDS)
    unmatched = tuple(key for key in report.unmatched_keys if not _is_of_text_encoder(key))
    changes = {name: stack[0].parameters for name, stack in plan.changes["unet"].items()}
    return changes, replace(report, unmatched_keys=unmatched)


def _is_of_text_encoder(key: str) -> bool:
    split = split_key(key)
    return split is not None and split_network(split[0])[0] == "text_encoder"


def _read_file(
    path: Path, *, strengths: Mapping[str, float], plan: _Plan, kinds: tuple[Kind, ...]
) -> LoraReport:
    weights = read_weights(path)
    wrong = refusal(weights, path, wanted=kinds)
    if wrong:
        raise AnimateDiffV2VError(wrong)
    return _add_file(weights, Path(path), strengths=strengths, plan=plan)


def _add_file(
    weights: Weights, path: Path, *, strengths: Mapping[str, float], plan: _Plan
) -> LoraReport:
    for key, tensor in weights.items():
        check_finite(tensor, name=key, path=path)
    modules, unmatched = group_by_module(weights)
    add_alphas(modules, path)
    families: Counter[str] = Counter()
    for module in modules:
        used = _add_module(module, path, strengths=strengths, plan=plan)
        families[_family(module)] += bool(used)
        unmatched.extend(key for parameter, key in module.keys.items() if parameter not in used)
    if not families.total():
        example = f", for example {next(iter(weights))}" if weights else ""
        raise AnimateDiffV2VError(
            f"{path} changes nothing in this model: none of its {len(weights)} keys matches a "
            f"layer{example}."
        )
    names = ", ".join(name for name, count in families.most_common() if count)
    return LoraReport(path, names, families.total(), tuple(unmatched))


def _add_module(
    module: LoraModule, path: Path, *, strengths: Mapping[str, float], plan: _Plan
) -> set[str]:
    """Record the changes of one layer of a file; return the parameters that matched."""
    used: set[str] = set()
    found = _target(module, plan.layers)
    if found is not None:
        network, name = found
        for tensor, parameters in _tensor_changes(module, name):
            if tensor in plan.bases[network]:
                key = module.keys[next(iter(parameters))]
                change = _Change(parameters, strengths[network], path, key)
                plan.changes[network][tensor].append(change)
                used |= parameters.keys()
    return used


def _target(module: LoraModule, layers: _LayerNames) -> tuple[str, str] | None:
    for network, names in layers.items():
        if module.network in (None, network) or network == "motion":
            name = names.get(module.layer)
            if name is not None:
                return network, name
    return None


def _tensor_changes(module: LoraModule, name: str) -> Iterator[tuple[str, Parameters]]:
    """Yield the tensors that a layer's parameters change, with the parameters of each."""
    own = dict(module.parameters)
    bias: Parameters = {p: own.pop(p) for p in ("diff_b", "b_norm") if p in own}
    if "w_norm" in own:
        yield f"{name}.weight", {"w_norm": own["w_norm"]}
    elif family_of(own):
        yield f"{name}.weight", own
    if bias:
        yield f"{name}.bias", bias


def _family(module: LoraModule) -> str:
    return family_name(shapes_of(module.parameters)) or "full difference"


def _merged(base: Weights, changes: _Changes) -> Tensors:
    merged = dict(base)
    for name, stack in changes.items():
        active = [change for change in stack if change.strength]
        if active:
            old = base[name]
            weight = old.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for change in active:
                weight = _changed(weight, change)
            merged[name] = weight.to(old.dtype)
            if not is_finite(merged[name]):
                raise AnimateDiffV2VError(
                    f"{active[-1].path} makes the weight {name} infinite in {old.dtype}: give it, "
                    "or the LoRAs before it, a lower strength."
                )
    return merged


def _changed(weight: torch.Tensor, change: _Change) -> torch.Tensor:
    try:
        return add_change(weight, change.parameters, strength=change.strength)
    except (ValueError, RuntimeError) as error:
        raise AnimateDiffV2VError(
            f"{change.path} does not fit this model: the layer of {change.key} has a weight of "
            f"the shape {list(weight.shape)} here ({error}). It was made for another base model."
        ) from error
