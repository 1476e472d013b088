from collections.abc import Callable

from torch import Tensor, nn

class SpatialTransformer(nn.Module): ...

optimized_attention: Callable[..., Tensor]
