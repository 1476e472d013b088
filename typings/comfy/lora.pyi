from collections.abc import Sequence
from typing import Any

from torch import Tensor

def calculate_weight(patches: Sequence[Any], weight: Tensor, key: str) -> Tensor: ...
