"""Compare ContextRef and NaiveReuse with those of AnimateDiff-Evolved.

Usage: python keyframes.py draw --weights DIR
       python context_memory.py expect --weights DIR --packs DIR     (by ComfyUI's interpreter, in
                                                                      its folder)
       python context_memory.py compare --weights DIR

The folders are those of keyframes.py. expect runs each case with the two packs; compare runs ours,
prints a line a case (name, relative error) and exits 1 if one is above 1e-3.
"""
# ruff: noqa: PLC0415 (each step runs in the interpreter that has its packages)

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from keyframes import SCALE, SEED, SIZE, TEXT_CHANNELS
from native import Bench, Graph, draw, evolved
from safetensors.torch import load_file, save_file

LIMIT = 1e-3
STEPS, FRAMES = 4, 10


@dataclass(frozen=True)
class Case:
    memory: str
    end: float
    schedule: str = "standard_static"
    fuse: str = "pyramid"
    stride: int = 1
    denoise: float = 1.0
    scale: float = SCALE

    @property
    def window(self) -> dict[str, Any]:
        return {
            "length": 4,
            "overlap": 1,
            "schedule": self.schedule,
            "fuse": self.fuse,
            "stride": self.stride,
        }


CASES = {
    "ContextRef, usual end": Case("ContextRef", 0.25),
    "ContextRef, all steps": Case("ContextRef", 1.0),
    "ContextRef, uniform windows": Case("ContextRef", 1.0, "standard_uniform", "flat"),
    "ContextRef, video to video": Case("ContextRef", 0.8, denoise=0.6),
    "ContextRef, no guidance": Case("ContextRef", 1.0, scale=1.0),
    "NaiveReuse, usual end": Case("NaiveReuse", 0.15),
    "NaiveReuse, half the steps": Case("NaiveReuse", 0.5),
    "NaiveReuse, looped windows": Case("NaiveReuse", 0.5, "looped_uniform", "flat", 2),
}


def expect(weights: Path, packs: Path, names: list[str]) -> None:
    bench = Bench(weights, packs)
    for name in names:
        case = CASES[name]
        with torch.inference_mode():
            graph = Graph(
                frames=FRAMES, window=case.window, prompts=prompts, steps=STEPS, cfg=case.scale,
                denoise=case.denoise,
            )  # fmt: skip
            result = bench.run(graph, lambda *given, case=case: remembering(case, *given))
        save_file({"samples": result.contiguous()}, weights / f"{name}.latents")
        print(name, float(result.std()), flush=True)


def prompts(_bench: Bench, _graph: Graph) -> tuple[Any, Any]:
    positive, negative = ([[each, {}]] for each in draw(2, 1, 77, TEXT_CHANNELS, seed=2))
    return positive, negative


def remembering(case: Case, bench: Bench, graph: Graph, model: Any) -> Any:
    """Apply AnimateDiff-Evolved with an extra on its context options."""
    extra = bench(f"ADE_ContextExtras_{case.memory}", start_percent=0.0, end_percent=case.end)[0]

    def call(name: str, **inputs: Any) -> Any:
        if inputs.get("context_options") is not None:
            inputs["context_options"] = bench(
                "ADE_ContextExtras_Set",
                context_opts=inputs["context_options"],
                context_extras=extra,
            )[0]
        return bench(name, **inputs)

    call.motion = bench.motion  # type: ignore[attr-defined]
    return evolved(call, graph, model)  # type: ignore[arg-type]


def compare(weights: Path, names: list[str]) -> float:
    worst = 0.0
    for name in names:
        expected = load_file(weights / f"{name}.latents")["samples"]
        result = ours(weights, CASES[name])
        error = float(torch.linalg.norm(result - expected) / torch.linalg.norm(expected))
        print(f"{name:<40} {error:.1e}{'' if error <= LIMIT else '  above the limit'}", flush=True)
        worst = max(worst, error)
    return worst


def ours(weights: Path, case: Case) -> torch.Tensor:
    from animatediff_v2v.pipeline.files import load_checkpoint
    from animatediff_v2v.pipeline.models import Placement, build_motion_unet
    from animatediff_v2v.pipeline.sampling import (
        Conditioning,
        ContextOptions,
        Guidance,
        SamplingSettings,
        sample_latents,
    )

    checkpoint = load_checkpoint(weights / "checkpoint.safetensors")
    unet = build_motion_unet(
        checkpoint.unet_config,
        checkpoint.unet,
        motion_module=weights / "motion_v3.safetensors",
        placement=Placement(device=torch.device("cpu"), dtype=torch.float32),
    )
    context = ContextOptions(**case.window, memory=case.memory, memory_end=case.end)
    return sample_latents(
        unet,
        draw(FRAMES, 4, SIZE, SIZE, seed=1),
        Conditioning.of(*draw(2, 1, 77, TEXT_CHANNELS, seed=2)),
        SamplingSettings(
            seed=SEED, steps=STEPS, guidance=Guidance(scale=case.scale), sampler="euler",
            scheduler="normal", denoise=case.denoise, context=context,
        ),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("expect", "compare"))
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--packs", type=Path, help="folder of the packs")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="names of the cases")
    arguments = parser.parse_args()
    weights = arguments.weights.resolve()
    if arguments.step == "compare":
        return int(compare(weights, arguments.only) > LIMIT)
    expect(weights, arguments.packs.resolve(), arguments.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
