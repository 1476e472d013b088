from collections.abc import Callable

from torch import Tensor, nn

class SpatialTransformer(nn.Module):
    transformer_blocks: nn.ModuleList

optimized_attention: Callable[..., Tensor]
