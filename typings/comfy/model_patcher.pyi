from collections.abc import Callable
from typing import Any

import torch

class ModelPatcher:
    # A network; the patcher sets attributes on it.
    model: Any
    load_device: torch.device
    offload_device: torch.device
    def __init__(
        self, model: torch.nn.Module, load_device: torch.device, offload_device: torch.device
    ) -> None: ...
    def model_size(self) -> int: ...
    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> Any: ...
    def partially_unload(
        self, device_to: Any, memory_to_free: float = 0, force_patch_weights: bool = False
    ) -> int: ...

def create_model_options_clone(orig_model_options: dict[str, Any]) -> dict[str, Any]: ...
def set_model_options_post_cfg_function(
    model_options: dict[str, Any],
    post_cfg_function: Callable[..., Any],
    disable_cfg1_optimization: bool = False,
) -> dict[str, Any]: ...
