"""Names in LoRA files: what each key means, and which tensor of the network it changes.

Trainers spell one place in many ways: ``lora_unet_down_blocks_0_attentions_0_proj_in`` (kohya),
``lora_unet_input_blocks_1_1_proj_in`` (kohya on LDM names), ``unet.down_blocks.0.attentions.0
.proj_in`` (diffusers, PEFT). All are compared in one spelling, with underscores for dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from .tensor_specs import TensorSpec

Network = Literal["unet", "text_encoder"]

# The last part of a key, and the parameter that it holds. LyCORIS' names are the standard here.
_PARAMETERS = (
    (r"[._]lora\.(?:up)\.weight", "lora_up"),
    (r"[._]lora\.(?:down)\.weight", "lora_down"),
    (r"\.lora_linear_layer\.up\.weight", "lora_up"),
    (r"\.lora_linear_layer\.down\.weight", "lora_down"),
    (r"\.lora_B(?:\.[^.]+)?\.weight", "lora_up"),
    (r"\.lora_A(?:\.[^.]+)?\.weight", "lora_down"),
    (r"\.lora_(up|down|mid)\.weight", r"lora_\2"),
    (r"\.(?:network_)?alpha", "alpha"),
)
_SUFFIX = [(re.compile(rf"(.+?){pattern}$"), name) for pattern, name in _PARAMETERS]
_PREFIXES: tuple[tuple[str, Network | None], ...] = (
    ("base_model.model.", None),
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lycoris_", None),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
)


@dataclass
class LoraModule:
    """The parameters that a LoRA file holds for one layer.

    Attributes:
        network: the network that the key names, None where it names none.
        place: the layer, in underscores, without the network's prefix.
        parameters: tensors by LyCORIS' names: ``lora_up``, ``lora_down``, ``alpha`` and so on.
        keys: the keys of the file that these came from.
    """

    network: Network | None
    place: str
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def group_by_module(
    weights: Mapping[str, torch.Tensor],
) -> tuple[list[LoraModule], list[str]]:
    """Gather a LoRA file's tensors by the layer they change; second, the keys not understood."""
    modules: dict[tuple[Network | None, str], LoraModule] = {}
    strange = []
    for key, tensor in weights.items():
        split = _split(key)
        if split is None:
            strange.append(key)
            continue
        network, place, parameter = split
        module = modules.setdefault((network, place), LoraModule(network, place))
        module.parameters[parameter] = tensor
        module.keys.append(key)
    return list(modules.values()), strange


def _split(key: str) -> tuple[Network | None, str, str] | None:
    for pattern, parameter in _SUFFIX:
        match = pattern.match(key)
        if match:
            network, place = _network_and_place(match[1])
            return network, place, match.expand(parameter)
    return None


def _network_and_place(module: str) -> tuple[Network | None, str]:
    network: Network | None = None
    for prefix, named in _PREFIXES:
        if module.startswith(prefix):
            module, network = module[len(prefix) :], named or network
    return network, module.replace(".processor.", ".").replace(".", "_")


def places_of(specs: Iterable[TensorSpec]) -> dict[str, str]:
    """Map every spelling of a layer to the name of its module in diffusers."""
    places: dict[str, str] = {}
    for spec in specs:
        for name in (spec.name, spec.ldm_name):
            module, _, parameter = name.rpartition(".")
            if parameter == "weight":
                for spelling in _spellings(module):
                    places.setdefault(spelling, spec.name.rpartition(".")[0])
    return places


def _spellings(module: str) -> Iterable[str]:
    place = module.replace(".", "_")
    yield place
    if place.endswith("to_out_0"):
        yield place[:-2]
    if "self_attn" in place:  # diffusers before 0.22 named the text encoder's like the UNet's
        yield re.sub(r"([qkv])_proj$", r"to_\1", place).replace("out_proj", "to_out")
