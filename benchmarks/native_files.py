"""Write what `native.py` needs: Stable Diffusion 1.5 at a tenth of its widths, with drawn weights.

Usage: python native_files.py FOLDER

The files are in the layouts that users have: a checkpoint, motion modules v1, v2, v3, AnimateLCM,
a ControlNet, a LoRA and an IP-Adapter.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.demo import random_weights
from animatediff_v2v.pipeline.files.unet_layout import unet_table
from animatediff_v2v.pipeline.models.motion_module import MotionModules, sinusoidal_encoding
from safetensors.torch import save_file
from torch import Tensor, nn

SEED = 1234
CHANNELS = (32, 64, 128, 128)
TEXT_CHANNELS, IMAGE_CHANNELS = 64, 1024
UNET = random_weights.UNET | {
    "block_out_channels": CHANNELS,
    "layers_per_block": 2,
    "cross_attention_dim": TEXT_CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
# Kind of a motion module: the frames of its positional encoding, and whether it has a middle block.
MOTION = {"v1": (24, False), "v2": (32, True), "v3": (32, False), "lcm": (32, True)}


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    checkpoint = random_weights.checkpoint(UNET)
    save_file(checkpoint, folder / "checkpoint.safetensors")
    for kind, (frames, mid) in MOTION.items():
        tensors = motion_module(frames, mid=mid)
        if kind == "lcm":  # AnimateLCM's file has no tables
            tensors = {name: each for name, each in tensors.items() if not name.endswith(".pe")}
        save_file(tensors, folder / f"motion_{kind}.safetensors")
    save_file(random_weights.controlnet(UNET), folder / "control.safetensors")
    save_file(lora(), folder / "lora.safetensors")
    save_file(ip_adapter(), folder / "ip_adapter.safetensors")
    return 0


def motion_module(
    frames: int, *, mid: bool, channels: tuple[int, ...] = CHANNELS
) -> dict[str, Tensor]:
    with torch.device("meta"):
        modules = MotionModules(
            block_channels=channels, layers_per_block=2, max_frames=frames, mid=mid
        )
    return drawn_weights(modules)


def drawn_weights(network: nn.Module) -> dict[str, Tensor]:
    """Draw all weights of a network, except its tables of positions."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    return {
        name: sinusoidal_encoding(*shape[1:]) if name.endswith(".pe") else _drawn(shape)
        for name, shape in shapes.items()
    }


def lora(rank: int = 4) -> dict[str, Tensor]:
    """Draw a LoRA on every query of the UNet, under ComfyUI's own names."""
    tensors: dict[str, Tensor] = {}
    for spec in unet_table(UNET):
        if spec.ldm_name.endswith("to_q.weight"):
            outputs, inputs = spec.shape
            base = "diffusion_model." + spec.ldm_name.removesuffix(".weight")
            tensors[f"{base}.lora_up.weight"] = _drawn((outputs, rank))
            tensors[f"{base}.lora_down.weight"] = _drawn((rank, inputs))
            tensors[f"{base}.alpha"] = torch.tensor(float(rank))
    return tensors


def ip_adapter() -> dict[str, Tensor]:
    """Draw an IP-Adapter of the plain kind."""
    drawn: dict[str, Any] = {
        "image_proj.proj.weight": _drawn((4 * TEXT_CHANNELS, IMAGE_CHANNELS)),
        "image_proj.proj.bias": torch.zeros(4 * TEXT_CHANNELS),
        "image_proj.norm.weight": torch.ones(TEXT_CHANNELS),
        "image_proj.norm.bias": torch.zeros(TEXT_CHANNELS),
    }
    down = [width for width in CHANNELS[:3] for _ in range(2)]
    up = [width for width in reversed(CHANNELS[:3]) for _ in range(3)]
    for index, width in enumerate((*down, *up, CHANNELS[-1])):
        for part in ("k", "v"):
            drawn[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"] = _drawn(
                (width, TEXT_CHANNELS)
            )
    return drawn


def _drawn(shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1:
        return torch.randn(shape) * 0.1 + 0.5
    return torch.randn(shape) * torch.Size(shape[1:]).numel() ** -0.5


if __name__ == "__main__":
    sys.exit(main())
