"""Compile all Triton kernels of Stable Diffusion 1.5's networks ahead of time, without a GPU.

Usage: python benchmarks/compile_kernels.py [--targets 75 80 90] [--frames 16] [--size 512]
       [--first N]

The networks run on PyTorch's meta device with stand-ins for the kernels, which note with which
types and constants each one is launched. Each distinct launch is compiled for each NVIDIA target.
Prints a line for each kernel and exits 1 if one does not compile. Needs Triton, and no device.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from animatediff_v2v.pipeline.bench.networks import SD15, Sizes, meta_unet, meta_vae
from animatediff_v2v.pipeline.models import autoencoder
from animatediff_v2v.pipeline.models.ops import triton_kernels
from animatediff_v2v.pipeline.models.ops.fused import FUSED_OPS
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import KernelInterface

WARP = 32
POINTERS = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}


@dataclass(frozen=True)
class Launch:
    """A kernel with the types of its arguments and the values of its constants."""

    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]


class StandIn:
    """Takes a kernel's place and notes its launches."""

    def __init__(self, name: str, kernel: Any, launches: dict[Launch, int]) -> None:
        self._name, self._kernel, self._launches = name, kernel, launches

    def __getitem__(self, _grid: object) -> Callable[..., None]:
        return self._launch

    def _launch(self, *values: Any, **more: Any) -> None:
        parameters = inspect.signature(self._kernel.fn).parameters
        names = list(parameters)
        given = dict(zip(names, values, strict=False)) | more
        options = {name: given.pop(name) for name in list(given) if name not in names}
        fixed = {name for name in names if "constexpr" in str(parameters[name].annotation)}
        types = {name: _type(given[name], is_fixed=name in fixed) for name in names}
        constants = {name: given[name] for name in names if types[name] == "constexpr"}
        launch = Launch(self._name, *(tuple(each.items()) for each in (types, constants, options)))
        self._launches[launch] += 1


def _type(value: Any, *, is_fixed: bool) -> str:
    """Return Triton's name for the type of an argument; a 1 and None are compiled in."""
    if is_fixed or value is None or (isinstance(value, int) and value == 1):
        return "constexpr"
    if isinstance(value, Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


@contextmanager
def noted_launches() -> Iterator[dict[Launch, int]]:
    """Note the launches of all kernels while the context is open; none of them runs."""
    launches: dict[Launch, int] = defaultdict(int)
    kernels = {
        name: value
        for name, value in vars(triton_kernels).items()
        if isinstance(value, KernelInterface)
    }
    for name, kernel in kernels.items():
        setattr(triton_kernels, name, StandIn(name, kernel, launches))
    try:
        yield launches
    finally:
        for name, kernel in kernels.items():
            setattr(triton_kernels, name, kernel)


@torch.inference_mode()
def run_networks(*, frames: int, size: int, sizes: Sizes = SD15) -> None:
    """Run a guided pass of the UNet, and a frame through the VAE, with the fused layers."""
    unet, vae = meta_unet(sizes).half(), meta_vae(sizes).half()
    before = autoencoder.default_ops
    autoencoder.default_ops = lambda *_: FUSED_OPS
    try:
        with torch.device("meta"):
            sample = torch.empty(2 * frames, 4, size // 8, size // 8, dtype=torch.half)
            prompts = torch.empty(2, 77, sizes.text_channels, dtype=torch.half)
            picture = torch.empty(1, 3, size, size, dtype=torch.half)
            unet(sample, torch.empty(1), prompts, frames, ops=FUSED_OPS)
            vae.decode(vae.encode(picture))
    finally:
        autoencoder.default_ops = before


def compiled(launch: Launch, target: int) -> Any:
    """Compile a launch for a compute capability such as 80."""
    source = ASTSource(
        fn=getattr(triton_kernels, launch.kernel),
        signature=dict(launch.signature),
        constexprs=dict(launch.constants),
    )
    return triton.compile(source, GPUTarget("cuda", target, WARP), options=dict(launch.options))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=int, nargs="+", default=[75, 80, 90])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--first", type=int, help="compile this many launches of each kernel")
    arguments = parser.parse_args()
    with noted_launches() as launches:
        run_networks(frames=arguments.frames, size=arguments.size)
    by_kernel: dict[str, list[Launch]] = defaultdict(list)
    for launch in launches:
        by_kernel[launch.kernel].append(launch)
    failures = 0
    for name, kinds in sorted(by_kernel.items()):
        chosen = kinds[: arguments.first]
        shared = []
        for launch in chosen:
            for target in arguments.targets:
                try:
                    shared.append(compiled(launch, target).metadata.shared)
                except Exception as error:
                    failures += 1
                    print(f"{name} for sm_{target}: {type(error).__name__}: {error}")
        count = sum(launches[launch] for launch in kinds)
        targets = ", ".join(f"sm_{target}" for target in arguments.targets)
        print(
            f"{name:<24} {count:4} launches, {len(chosen):2} of {len(kinds):2} kinds compiled for "
            f"{targets}, at most {max(shared, default=0)} bytes of shared memory",
            flush=True,
        )
    print(
        f"{sum(launches.values())} launches, {failures} failures with Triton {triton.__version__}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
