"""Keys in LoRA files, and the tensors of the network that they change.

Trainers name the same layer in many ways: ``lora_unet_down_blocks_0_attentions_0_proj_in``
(kohya), ``lora_unet_input_blocks_1_1_proj_in`` (kohya on LDM names),
``unet.down_blocks.0.attentions.0.proj_in`` (diffusers, PEFT). All are compared in one spelling,
with underscores for dots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .tensor_specs import TensorSpec

if TYPE_CHECKING:  # names are read without PyTorch
    import torch

Network = Literal["unet", "text_encoder"]

_DIRECTIONS = {"up": "lora_up", "down": "lora_down", "mid": "lora_mid"}
_DIRECTIONS |= {"B": "lora_up", "A": "lora_down"}
_ADAPTER = r"(?:\.(?!weight$)[^.]+)?"  # PEFT may keep the adapter's name inside the key
# Endings of keys -> LyCORIS' names of the parameters. The first match counts.
_ENDINGS = tuple(
    re.compile(rf"(?P<module>.+?){ending}$")
    for ending in (
        r"[._]lora\.(?P<direction>up|down)\.weight",
        r"\.lora_linear_layer\.(?P<direction>up|down)\.weight",
        r"\.lora_(?P<direction>up|down|mid)\.weight",
        rf"\.lora_(?P<direction>A|B){_ADAPTER}\.weight",
        r"\.(?P<name>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12]))",
        r"\.(?P<name>a1|a2|b1|b2|bm)\.weight",
        r"\.(?P<name>alpha|dora_scale|oft_blocks|rescale|diff_b|diff|w_norm|b_norm|on_input)",
        r"\.network_(?P<name>alpha)",
        rf"\.(?P<name>lora_magnitude_vector){_ADAPTER}(?:\.weight)?",
        r"\.(?P<name>weight)",
    )
)
_STANDARD_NAMES = {"lora_magnitude_vector": "dora_scale"}
_PREFIXES: tuple[tuple[str, Network | None], ...] = (
    ("module.", None),
    ("base_model.model.", None),
    ("lora_unet_", "unet"),
    ("oft_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("oft_te_", "text_encoder"),
    ("lycoris_", None),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),  # ComfyUI's own extraction and training
)


@dataclass
class LoraModule:
    """The parameters that a LoRA file holds for one layer.

    Attributes:
        network: the network that the key names, or None.
        layer: the layer's name with underscores for dots, without the network's prefix.
        parameters: tensors by LyCORIS' names: ``lora_up``, ``lora_down``, ``alpha`` and so on.
        keys: the keys of the file, by parameter.
    """

    network: Network | None
    layer: str
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def group_by_module(weights: Mapping[str, torch.Tensor]) -> tuple[list[LoraModule], list[str]]:
    """Group a LoRA file's tensors by layer; return the groups and the unknown keys."""
    modules: dict[tuple[Network | None, str], LoraModule] = {}
    strange = []
    for key, tensor in weights.items():
        split = split_key(key)
        if split is None:
            strange.append(key)
            continue
        module_name, parameter = split
        layer = split_network(module_name)
        module = modules.setdefault(layer, LoraModule(*layer))
        module.parameters[parameter] = tensor
        module.keys[parameter] = key
    return list(modules.values()), strange


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into the layer as the file spells it and the parameter's standard name."""
    for ending in _ENDINGS:
        match = ending.match(key)
        if match:
            found = match.groupdict()
            name = found.get("name")
            name = _DIRECTIONS[found["direction"]] if name is None else name
            return found["module"], _STANDARD_NAMES.get(name, name)
    return None


def split_network(module: str) -> tuple[Network | None, str]:
    """Split a layer's name into its network and the layer, with underscores for dots."""
    network: Network | None = None
    for prefix, named in _PREFIXES:
        if module.startswith(prefix):
            module, network = module[len(prefix) :], named or network
    return network, module.replace(".processor.", ".").replace(".", "_")


def layer_names(specs: Iterable[TensorSpec]) -> dict[str, str]:
    """Map every spelling of a layer to the name of its module in diffusers."""
    names: dict[str, str] = {}
    for spec in specs:
        for name in (spec.name, spec.ldm_name):
            module, _, parameter = name.rpartition(".")
            if parameter == "weight":
                for spelling in _spellings(module):
                    names.setdefault(spelling, spec.name.rpartition(".")[0])
    return names


def _spellings(module: str) -> Iterable[str]:
    layer = module.replace(".", "_")
    yield layer
    if layer.endswith("to_out_0"):
        yield layer.removesuffix("_0")
    if "self_attn" in layer:  # diffusers before 0.22 gave the text encoder the UNet's names
        yield re.sub(r"([qkv])_proj$", r"to_\1", layer).replace("out_proj", "to_out")
