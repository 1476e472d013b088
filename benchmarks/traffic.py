"""Count kernels and bytes of a step of Stable Diffusion 1.5 with a motion module, also diffusers'.

Usage: python benchmarks/traffic.py [--frames 16] [--size 512] [--operators 8]

Counts without a device and without weights, operator by operator, in 16 bits: one kernel for each
operator that is not a view, and the bytes of its inputs and outputs. Fused attention counts as its
queries, keys, values and results. A step has guidance, with both prompts in one pass.
Then the copies between main memory and the device in four steps are counted, with latents and
prompts in main memory between the passes and with both on the device.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from animatediff_v2v.pipeline.memory.tracer import ATTENTION, FusedAttention, MetaDevice
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Guidance
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor

TEXT_CHANNELS, CHANNELS, LAYERS = 768, (320, 640, 1280, 1280), 2
STEPS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--operators", type=int, default=8, help="how many of the largest to list")
    arguments = parser.parse_args()
    counts = {}
    with torch.device("meta"), torch.no_grad():
        for name, prepare in {"ours": ours, "diffusers": stock}.items():
            run = prepare(arguments.frames, arguments.size // 8)
            with Traffic() as traffic, FusedAttention(partial(traffic.add, ATTENTION)):
                run()
            counts[name] = traffic
    for name, traffic in counts.items():
        print(f"{name}: {traffic.kernels.total()} kernels, {traffic.bytes.total() / 1e9:.1f} GB")
        for operator, size in traffic.bytes.most_common(arguments.operators):
            print(f"  {operator:<24}{traffic.kernels[operator]:>5} {size / 1e9:>7.1f} GB")
    kernels, size = (
        getattr(counts["ours"], what).total() / getattr(counts["diffusers"], what).total()
        for what in ("kernels", "bytes")
    )
    print(f"ours / diffusers: kernels {kernels:.2f}, bytes {size:.2f}")
    for place, device in {"in main memory": "cpu", "on the device": "meta"}.items():
        copies = counted_copies(arguments.frames, arguments.size // 8, torch.device(device))
        print(f"{STEPS} steps with latents and prompts {place}: " + str(copies))
    return 0


@torch.inference_mode()
def counted_copies(frames: int, size: int, device: torch.device) -> Copies:
    """Count the copies of a job with latents, and prompts, on a device between its passes."""
    with torch.device("meta"):
        network = motion_unet()
    schedule = NoiseSchedule("sqrt_linear")
    prompt = torch.zeros(1, 77, TEXT_CHANNELS)
    model = GuidedModel(
        network,
        schedule=schedule,
        conditioning=Conditioning.of(prompt, prompt),
        guidance=Guidance(scale=7.0),
        context=ContextOptions(length=frames, overlap=0),
        on_passes=lambda _share: None,
    )
    sigmas = sampling_sigmas(schedule, scheduler="normal", steps=STEPS)
    with Copies() as copies, FusedAttention(), prompts_on(device):
        latents = torch.zeros(frames, 4, size, size).to(device)
        SAMPLERS["euler"].run(model, latents, sigmas, lambda *_: latents, schedule).cpu()
    return copies


def motion_unet() -> MotionUNet:
    motion = MotionModules(
        block_channels=CHANNELS, layers_per_block=LAYERS, max_frames=32, mid=True
    )
    return MotionUNet(plain_unet(), motion.half(), family="v2")


def ours(frames: int, size: int) -> Callable[[], object]:
    network = motion_unet()
    sample = torch.empty(2 * frames, 4, size, size, dtype=torch.half)
    prompts = torch.empty(2 * frames, 77, TEXT_CHANNELS, dtype=torch.half)
    return lambda: network(sample, torch.zeros(1), prompts, frames)


def stock(frames: int, size: int) -> Callable[[], object]:
    adapter = MotionAdapter(use_motion_mid_block=True)
    network = UNetMotionModel.from_unet2d(plain_unet(), adapter).half()
    sample = torch.empty(2, 4, frames, size, size, dtype=torch.half)
    prompts = torch.empty(2 * frames, 77, TEXT_CHANNELS, dtype=torch.half)
    return lambda: network(sample, torch.zeros(1), prompts)


def plain_unet() -> Any:
    network = UNet2DConditionModel(
        block_out_channels=CHANNELS, layers_per_block=LAYERS, cross_attention_dim=TEXT_CHANNELS
    )
    return network.half().requires_grad_(False)


class Traffic(MetaDevice):
    """A mode that counts the bytes that each operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def ran(self, operator: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        aliases = [value.alias_info for value in operator._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        name = operator.name().removeprefix("aten::").partition(".")[0]
        if not is_view and not name.startswith(("empty", "new_empty", "_unsafe_view")):
            self.add(name, [*inputs, *results])

    def add(self, name: str, touched: list[Tensor]) -> None:
        self.kernels[name] += 1
        self.bytes[name] += sum(stored_bytes(tensor) for tensor in touched)


class Copies(MetaDevice):
    """A mode that counts the copies between main memory and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.from_device: list[int] = []
        self.to_device: list[int] = []
        """Bytes of each."""

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = super().__torch_dispatch__(operator, types, args, kwargs)
        if operator is torch.ops.aten._to_copy.default and args[0].device != result.device:
            counted = self.to_device if result.is_meta else self.from_device
            counted.append(result.numel() * result.element_size())
        return result

    def ran(self, operator: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Count nothing else."""

    def __str__(self) -> str:
        return (
            f"{len(self.from_device)} copies from the device, which wait for it "
            f"({sum(self.from_device) / 1e6:.2f} MB), {len(self.to_device)} to it "
            f"({sum(self.to_device) / 1e6:.2f} MB)"
        )


@contextmanager
def prompts_on(device: torch.device) -> Iterator[None]:
    """Leave prompts in main memory if the device is the CPU, as before."""
    chosen = Conditioning.on
    if device.type == "cpu":
        Conditioning.on = lambda prompts, *_: prompts  # type: ignore[method-assign]
    try:
        yield
    finally:
        Conditioning.on = chosen  # type: ignore[method-assign]


def stored_bytes(tensor: Tensor) -> int:
    """Return the bytes of the stored elements: an expanded tensor counts once."""
    elements = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= length if stride else 1
    return elements * tensor.element_size()


if __name__ == "__main__":
    sys.exit(main())
