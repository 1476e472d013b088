"""Load ControlNets and T2I-Adapters for Stable Diffusion 1.5.

LDM names follow lllyasviel/ControlNet, cldm/cldm.py; T2I-Adapters' follow TencentARC/T2I-Adapter,
ldm/modules/encoders/adapter.py; diffusers' names follow its ControlNetModel and T2IAdapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..choices import checked_path
from ..errors import AnimateDiffV2VError
from .guidance_kinds import is_t2i_adapter
from .kinds import Keys
from .reading import read_weights
from .recognition import refusal
from .tensor_specs import Shapes, TensorSpec, affine, shapes_of, take_tensors, voted_size
from .unet_layout import encoder_table, infer_unet_config, unet_names

ControlKind = Literal["ControlNet", "T2I-Adapter"]

_PREFIXES = ("control_model.", "controlnet.", "")
_HINT_WIDTHS = 4  # the size is halved three times, from pixels to latents
_ADAPTER_RESNETS = 2
_ADAPTER_BLOCK = re.compile(r"body\.(\d{1,3})\.")
_PIXELS_SHUFFLED = 64  # 8x8 pixels become channels of one latent pixel


@dataclass(frozen=True)
class ControlWeights:
    """A ControlNet or T2I-Adapter, under diffusers' names.

    Attributes:
        kind: the kind of network.
        config: keyword arguments of ``diffusers.ControlNetModel`` or ``diffusers.T2IAdapter``.
        tensors: the weights, in the stored dtype.
        global_pooling: True if each residual is averaged over the picture, as in ControlNet
            Shuffle.
    """

    kind: ControlKind
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    global_pooling: bool = False


def load_control(path: str | Path) -> ControlWeights:
    """Load a ControlNet or T2I-Adapter of Stable Diffusion 1.5.

    The architecture is inferred from the shapes, so smaller networks in the same layout load too.

    Raises:
        AnimateDiffV2VError: the file cannot be read, is not such a network, or a tensor is missing
            or has the wrong shape.
    """
    path = checked_path("path", path)
    stored = read_weights(path)
    wrong = refusal(stored, path, wanted=("ControlNet",))
    if wrong:
        raise AnimateDiffV2VError(wrong)
    weights = {name.removeprefix("module."): tensor for name, tensor in stored.items()}
    if is_t2i_adapter(Keys(shapes_of(weights))):
        return _t2i_adapter(weights, path)
    return _controlnet(weights, path)


def _controlnet(weights: Mapping[str, torch.Tensor], path: Path) -> ControlWeights:
    for prefix in _PREFIXES:
        shapes = shapes_of(weights, prefix)
        layout = unet_names(shapes)
        config = infer_unet_config(shapes, layout=layout)
        if config:
            config = controlnet_config(config, shapes, ldm=layout == "ldm")
            specs = controlnet_table(config)
            tensors = take_tensors(weights, specs, layout=layout, prefix=prefix, path=path)
            return ControlWeights("ControlNet", config, tensors, global_pooling=_shuffles(path))
    raise AnimateDiffV2VError(f"{path} holds no ControlNet of Stable Diffusion 1.5.")


def _shuffles(path: Path) -> bool:
    """Return whether a file is ControlNet Shuffle, by its name, as in ComfyUI."""
    name = path.parent.name if path.name.startswith("diffusion_pytorch_model") else path.name
    return "shuffle" in name.lower()


def controlnet_config(unet: dict[str, Any], shapes: Shapes, *, ldm: bool) -> dict[str, Any]:
    """Return keyword arguments of a ControlNet, from those of the UNet."""

    def size(index: int, axis: int) -> int:
        name = _hint_name(index)[ldm]
        biases = [(f"{name}.bias", 0)] if axis == 0 else []
        return voted_size(shapes, [(f"{name}.weight", axis), *biases]) or 0

    kept = {key: unet[key] for key in unet if key not in ("up_block_types", "out_channels")}
    return kept | {
        "conditioning_channels": size(0, 1),
        "conditioning_embedding_out_channels": tuple(
            size(2 * index, 0) for index in range(_HINT_WIDTHS)
        ),
    }


def _hint_name(index: int) -> tuple[str, str]:
    """Return diffusers' and LDM's names of a convolution of the control frames' encoder."""
    last = 2 * _HINT_WIDTHS - 1
    inside = {0: "conv_in", last: "conv_out"}.get(index, f"blocks.{index - 1}")
    return f"controlnet_cond_embedding.{inside}", f"input_hint_block.{2 * index}"


def controlnet_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List every tensor of the ControlNet that ``config`` describes, under both names."""
    yield from guiding_table(config)
    yield from _hint_table(config)


def guiding_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List the tensors of `controlnet_table` but for those of the control frames' encoder."""
    skips: list[int] = []
    yield from encoder_table(config, skips)
    for index, width in enumerate(skips):
        yield from affine(
            f"controlnet_down_blocks.{index}", f"zero_convs.{index}.0", width, width, 1, 1
        )
    last = config["block_out_channels"][-1]
    yield from affine("controlnet_mid_block", "middle_block_out.0", last, last, 1, 1)


def _hint_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """List the tensors of the control frames' encoder."""
    widths = [config["conditioning_channels"]]
    for width in config["conditioning_embedding_out_channels"]:
        widths += [width, width]
    widths[-1] = config["block_out_channels"][0]
    for index in range(len(widths) - 1):
        yield from affine(*_hint_name(index), widths[index + 1], widths[index], 3, 3)


def _t2i_adapter(weights: Mapping[str, torch.Tensor], path: Path) -> ControlWeights:
    bare = {name.removeprefix("adapter."): tensor for name, tensor in weights.items()}
    if not any(".resnets." in name for name in bare):
        bare = {_adapter_name(name): tensor for name, tensor in bare.items()}
    shapes = shapes_of(bare)
    config = {
        "in_channels": (voted_size(shapes, [("conv_in.weight", 1)]) or 0) // _PIXELS_SHUFFLED,
        "channels": _adapter_channels(shapes),
        "num_res_blocks": _ADAPTER_RESNETS,
        "downscale_factor": 8,
        "adapter_type": "full_adapter",
    }
    tensors = take_tensors(bare, _adapter_table(config), layout="diffusers", prefix="", path=path)
    tensors = {f"adapter.{name}": tensor for name, tensor in tensors.items()}
    return ControlWeights("T2I-Adapter", config, tensors)


def _adapter_name(name: str) -> str:
    """Convert an original name to diffusers': blocks of two, of which the first may be wider."""
    match = _ADAPTER_BLOCK.match(name)
    if match is None:
        return name
    block, resnet = divmod(int(match[1]), _ADAPTER_RESNETS)
    rest = name[match.end() :]
    inside = rest if rest.startswith("in_conv.") else f"resnets.{resnet}.{rest}"
    return f"body.{block}.{inside}"


def _adapter_channels(shapes: Shapes) -> list[int]:
    blocks = {int(match[1]) for match in map(_ADAPTER_BLOCK.match, shapes) if match}
    return [
        voted_size(
            shapes,
            [
                (f"body.{block}.resnets.{resnet}.{part}", 0)
                for resnet in range(_ADAPTER_RESNETS)
                for part in ("block1.weight", "block1.bias", "block2.weight", "block2.bias")
            ],
        )
        or 0
        for block in range(max(blocks, default=-1) + 1)
    ]


def _adapter_table(config: dict[str, Any]) -> Iterator[TensorSpec]:
    def both(name: str, *shape: int) -> Iterator[TensorSpec]:
        return affine(name, name, *shape)

    channels = config["channels"]
    first = channels[0] if channels else 0
    yield from both("conv_in", first, config["in_channels"] * _PIXELS_SHUFFLED, 3, 3)
    previous = first
    for block, width in enumerate(channels):
        if width != previous:
            yield from both(f"body.{block}.in_conv", width, previous, 1, 1)
        for resnet in range(_ADAPTER_RESNETS):
            resnet_name = f"body.{block}.resnets.{resnet}"
            yield from both(f"{resnet_name}.block1", width, width, 3, 3)
            yield from both(f"{resnet_name}.block2", width, width, 1, 1)
        previous = width
