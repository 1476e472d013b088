from typing import Any

from torch import Tensor

class CFGGuider:
    model_patcher: Any
    inner_model: Any
    conds: dict[str, list[Any]]
    cfg: float
    def __init__(self, model_patcher: Any) -> None: ...
    def inner_set_conds(self, conds: dict[str, list[Any]]) -> None: ...
    def set_cfg(self, cfg: float) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def predict_noise(
        self,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor: ...
    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor: ...

def sampling_function(
    model: Any,
    x: Tensor,
    timestep: Tensor,
    uncond: Any,
    cond: Any,
    cond_scale: float,
    model_options: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Tensor: ...
