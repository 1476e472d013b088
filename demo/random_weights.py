"""Write a tiny network with seeded random weights, in the usual file layouts.

Usage: python demo/random_weights.py FOLDER

The files are checkpoint.safetensors (Stable Diffusion's LDM layout, with VAE and text encoder),
motion_module.safetensors (AnimateDiff's original layout, v2-shaped), style_lora.safetensors
(kohya's layout) and controlnet.safetensors (its original layout). They load like real ones and
are for testing: the pictures that they make are noise patterns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.pipeline.files.controlnet import controlnet_table
from animatediff_v2v.pipeline.files.text_encoder_layout import text_encoder_table
from animatediff_v2v.pipeline.files.unet_layout import unet_table
from animatediff_v2v.pipeline.files.vae_layout import vae_table
from animatediff_v2v.pipeline.models.motion_module import MotionModules, sinusoidal_encoding
from safetensors.torch import save_file
from torch import Tensor

SEED = 1234
CHANNELS = (64, 128)
TEXT_CHANNELS = 64
MOTION_FRAMES = 32

UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": CHANNELS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
}
TEXT_ENCODER = {
    "vocab_size": 49_408,
    "hidden_size": TEXT_CHANNELS,
    "intermediate_size": 4 * TEXT_CHANNELS,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
}


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder)
    print(f"wrote tiny random weights into {folder}")
    return 0


def write_weights(folder: Path) -> None:
    """Write the four files, the same bytes each time."""
    torch.manual_seed(SEED)
    save_file(checkpoint(), folder / "checkpoint.safetensors")
    save_file(motion_module(), folder / "motion_module.safetensors")
    save_file(lora(), folder / "style_lora.safetensors")
    save_file(controlnet(), folder / "controlnet.safetensors")


def checkpoint(
    unet: dict[str, Any] = UNET,
    vae: dict[str, Any] = VAE,
    text_encoder: dict[str, Any] = TEXT_ENCODER,
) -> dict[str, Tensor]:
    """Draw UNet, VAE and text encoder, under the names of an original checkpoint."""
    parts = {
        "model.diffusion_model.": ((spec.ldm_name, spec.shape) for spec in unet_table(unet)),
        "first_stage_model.": _vae_shapes(vae),
        "cond_stage_model.transformer.": (
            (spec.name, spec.shape) for spec in text_encoder_table(text_encoder)
        ),
    }
    return {
        prefix + name: tensor
        for prefix, names in parts.items()
        for name, tensor in _drawn(names).items()
    }


def _vae_shapes(vae: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield shapes; original checkpoints store attention's linear layers as 1x1 convolutions."""
    for spec in vae_table(vae):
        is_linear = ".mid.attn_1." in spec.ldm_name and len(spec.shape) == 2
        yield spec.ldm_name, (*spec.shape, 1, 1) if is_linear else spec.shape


def motion_module(unet: dict[str, Any] = UNET) -> dict[str, Tensor]:
    """Draw a v2-shaped motion module for a UNet, with its positional encoding."""
    with torch.device("meta"):
        modules = MotionModules(
            block_channels=unet["block_out_channels"],
            layers_per_block=unet["layers_per_block"],
            max_frames=MOTION_FRAMES,
            mid=True,
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in modules.state_dict().items()}
    tables = {name: shape for name, shape in shapes.items() if name.endswith(".pe")}
    drawn = _drawn((name, shape) for name, shape in shapes.items() if name not in tables)
    encodings = {name: sinusoidal_encoding(*shape[1:]) for name, shape in tables.items()}
    return drawn | encodings


def controlnet(unet: dict[str, Any] = UNET) -> dict[str, Tensor]:
    """Draw a ControlNet for a UNet of this architecture, in the original layout."""
    config = unet | {
        "conditioning_channels": 3,
        "conditioning_embedding_out_channels": (16, 32, 96, 256),
    }
    drawn = _drawn((spec.ldm_name, spec.shape) for spec in controlnet_table(config))
    return {f"control_model.{name}": tensor for name, tensor in drawn.items()}


def lora(unet: dict[str, Any] = UNET, *, rank: int = 4) -> dict[str, Tensor]:
    """Draw a LoRA for the attention of a UNet's first level."""
    tensors, channels = {}, unet["block_out_channels"][0]
    for side in ("attn1", "attn2"):
        block = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_{side}_to_q"
        tensors[f"{block}.lora_down.weight"] = torch.randn(rank, channels)
        tensors[f"{block}.lora_up.weight"] = torch.randn(channels, rank)
        tensors[f"{block}.alpha"] = torch.tensor(float(rank))
    return tensors


def _drawn(names: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    return {name: _tensor(name, shape).half() for name, shape in names}


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a tensor: norms are neutral, biases zero, and other weights keep the variance."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape) * fan_in**-0.5


if __name__ == "__main__":
    sys.exit(main())
