from typing import Any

from comfy.model_sampling import EPS, ModelSamplingDiscrete
from torch import Tensor

class LCM(EPS): ...

class ModelSamplingDiscreteDistilled(ModelSamplingDiscrete):
    skip_steps: int
    def __init__(self, model_config: Any = None) -> None: ...
    def set_sigmas(self, sigmas: Tensor) -> None: ...
