from typing import Any

from torch import nn

class Downsample(nn.Module): ...
class ResBlock(nn.Module): ...
class Upsample(nn.Module): ...

class UNetModel(nn.Module):
    model_channels: int
    time_embed: nn.Sequential
    input_blocks: nn.ModuleList
    # The layers of a block; ComfyUI runs them one by one.
    middle_block: Any
    output_blocks: nn.ModuleList
    out: nn.Sequential
