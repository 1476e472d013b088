"""The scale of LoRAs in PEFT's layout, which is stored outside the tensors.

diffusers writes it into the header of the safetensors file ("lora_adapter_metadata", since 0.34),
PEFT into ``adapter_config.json`` beside ``adapter_model.safetensors``. Without either, alpha
equals the rank, so the scale is 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import AnimateDiffV2VError
from .lora_keys import LoraModule

_Config = Mapping[str, Any]


def add_alphas(modules: Sequence[LoraModule], path: Path) -> None:
    """Add the alpha in the file's configuration to LoRA modules without one.

    Raises:
        AnimateDiffV2VError: there is a configuration, but it cannot be parsed.
    """
    plain = [m for m in modules if "lora_down" in m.parameters and "alpha" not in m.parameters]
    config = _config(path) if plain else {}
    try:
        for module in plain:
            alpha = _alpha(module, _section(config, module))
            if alpha is not None:
                module.parameters["alpha"] = torch.tensor(alpha)
    except (TypeError, ValueError, AttributeError) as error:
        raise AnimateDiffV2VError(
            f"{path} states the scale of its LoRA in a way that cannot be read: {error}."
        ) from error


def config_file(path: Path) -> Path | None:
    """Return PEFT's configuration file that belongs to this file, or None."""
    beside = path.with_name("adapter_config.json")
    return beside if path.stem == "adapter_model" and beside.is_file() else None


def _config(path: Path) -> _Config:
    """Return the configuration with diffusers' names, ``unet.lora_alpha``, or PEFT's."""
    text, beside = _header_entry(path), config_file(path)
    if text is None and beside is not None:
        text = beside.read_text(encoding="utf-8")
    try:
        config = json.loads(text or "{}")
    except ValueError as error:
        raise AnimateDiffV2VError(f"{path} has a damaged LoRA configuration: {error}.") from error
    return config if isinstance(config, dict) else {}


def _header_entry(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("lora_adapter_metadata")
    except (SafetensorError, OSError):
        return None  # a pickle, which has no such header


def _section(config: _Config, module: LoraModule) -> _Config:
    prefix = f"{module.network or 'unet'}."
    own = {key[len(prefix) :]: value for key, value in config.items() if key.startswith(prefix)}
    return own or config


def _alpha(module: LoraModule, config: _Config) -> float | None:
    patterns = config.get("alpha_pattern") or {}
    fitting = [a for name, a in patterns.items() if module.layer.endswith(name.replace(".", "_"))]
    alpha = fitting[0] if fitting else config.get("lora_alpha")
    if alpha is None:
        return None
    rank = module.parameters["lora_down"].shape[0]
    return float(alpha) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)
