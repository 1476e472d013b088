"""Measure the gain from compiled layers on a CPU, and count the kernels before and after.

Usage: python benchmarks/compiled.py [--rounds N] [--only layers|passes]

`layers` compares the outermost layer of each kind, run operator by operator and compiled: number of
kernels, and time. `passes` compares passes of a UNet as large as Stable Diffusion 1.5's with motion
modules. Both use 8 frames of 256x256 in float32 with one prompt, alternate plain and compiled runs
in one thread, and measure seconds of CPU time.
"""

from __future__ import annotations

import argparse
import re
import resource
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from animatediff_v2v.pipeline.models.batching import default_chunk_tokens
from animatediff_v2v.pipeline.models.ops.compiled import compiled_layers
from animatediff_v2v.pipeline.models.ops.eager import cross_attention_kv
from animatediff_v2v.pipeline.models.ops.interface import Ops
from animatediff_v2v.pipeline.models.ops.select import EAGER_OPS
from speed_options import full_size
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache, run_and_get_code
from traffic import Traffic

FRAMES, SIDE, CHANNELS = 8, 32, 320
CPU = torch.device("cpu")
# Marks a kernel in the code that PyTorch's compiler generates.
KERNEL = re.compile(r"^cpp_fused\w* = ", re.MULTILINE)
# Operators that it leaves to libraries, by these parts of their names.
HEAVY = ("conv", "mm", "linear", "attention")


def passes(compiled: Ops, rounds: int) -> Iterator[str]:
    """Time plain and compiled passes in turn, after a first one that compiles; yield lines."""
    unet = full_size("cpu")
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(FRAMES, 4, SIDE, SIDE, generator=generator)
    context = torch.randn(1, 77, 768, generator=generator).expand(FRAMES, -1, -1)
    seconds: dict[str, list[float]] = {"plain": [], "compiled": []}
    results: dict[str, Tensor] = {}

    def run(name: str, ops: Ops) -> float:
        started = time.process_time()
        results[name] = unet(sample, torch.tensor([500]), context, FRAMES, ops=ops)
        return time.process_time() - started

    begun, busy = time.perf_counter(), with_children()
    run("compiled", compiled)
    yield (
        f"the first pass, which compiles {counters['stats']['unique_graphs']} codes: "
        f"{with_children() - busy:.0f} s of CPU time, {time.perf_counter() - begun:.0f} s"
    )
    for _ in range(rounds):
        for name, layers in (("plain", EAGER_OPS), ("compiled", compiled)):
            seconds[name].append(run(name, layers))
        yield ", ".join(f"{name} {each[-1]:.1f} s" for name, each in seconds.items())
    plain, ours = (median(each) for each in seconds.values())
    apart = (results["compiled"] - results["plain"]).norm() / results["plain"].norm()
    yield f"medians: plain {plain:.1f} s, compiled {ours:.1f} s: {plain / ours:.2f} times as fast"
    yield f"relative difference of the results: {float(apart):.1e}"


def with_children() -> float:
    """Return the CPU seconds of this process and of the compilers that it has started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def layers_alone(compiled: Ops, rounds: int) -> Iterator[str]:
    """Count each kind's kernels other than convolutions, products and attention, and time it."""
    unet = full_size("meta")
    level, motion = unet.unet.down_blocks[0], unet.motion.down_blocks[0]
    layers = (level.resnets[0], level.attentions[0], motion.motion_modules[0])
    resnet, attention, module = (layer.to_empty(device="cpu") for layer in layers)
    for layer in layers:
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.normal_(std=0.02)

    def arguments(rows: int) -> dict[str, tuple[Any, ...]]:
        features = torch.randn(rows, CHANNELS, SIDE, SIDE)
        prompts = cross_attention_kv(attention, torch.randn(1, 77, 768), (), rows=rows)
        tokens = default_chunk_tokens(CPU)
        return {
            "resnet": (resnet, features, torch.randn(1, 4 * CHANNELS), rows),
            "motion": (module, features, rows, tokens),
            "transformer": (attention, features, prompts, rows, tokens),
        }

    # Counted with so few rows that even a CPU processes all of them at a time.
    few, many = arguments(2), arguments(FRAMES)
    for name in few:
        plain, ours = getattr(EAGER_OPS, name), getattr(compiled, name)
        light, heavy = operators(plain, few[name])
        busy = with_children()
        _, codes = run_and_get_code(ours, *few[name])
        busy = with_children() - busy
        joined = sum(len(KERNEL.findall(code)) for code in codes)
        yield (
            f"{name}: {heavy} heavy operators; {light} others, compiled to "
            f"{joined} kernels in {busy:.0f} s of CPU time"
        )
        seconds = [
            [cpu_seconds(run, many[name]) for run in (plain, ours)] for _ in range(rounds + 1)
        ]
        before, after = (median(each) for each in zip(*seconds[1:], strict=True))
        yield f"  plain {before:.3f} s, compiled {after:.3f} s: {before / after:.2f} times as fast"


def cpu_seconds(run: Callable[..., Tensor], given: tuple[Any, ...]) -> float:
    """Return the CPU time of a call in seconds."""
    started = time.process_time()
    run(*given)
    return time.process_time() - started


def operators(run: Callable[..., Tensor], given: tuple[Any, ...]) -> tuple[int, int]:
    """Count the operators that are not views: those for the compiler, and those for libraries."""
    with Traffic() as traffic:
        run(*given)
    heavy = sum(
        count for name, count in traffic.kernels.items() if any(part in name for part in HEAVY)
    )
    return traffic.kernels.total() - heavy, heavy


MEASURES = {"layers": layers_alone, "passes": passes}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=MEASURES, nargs="*", default=[*MEASURES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with fresh_cache(), compiled_layers(CPU) as compiled:
        for name in arguments.only:
            for line in MEASURES[name](compiled, arguments.rounds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
