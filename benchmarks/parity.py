"""Compare our sampling with expected latents, case by case.

Usage: python benchmarks/parity.py --weights DIR --cases CASES.json --data DIR [--only NAME ...]

Prints a line per case (name, relative error) and exits 1 if an error is above 1e-3. The error is
|ours - expected| / |expected| over all elements, in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.pipeline.models import Models, load_models
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Guidance,
    SamplingSettings,
    sample_latents,
)
from safetensors.torch import load_file

LIMIT = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--cases", type=Path, required=True, help="the cases, a JSON file")
    parser.add_argument("--data", type=Path, required=True, help="folder of input and expectation")
    parser.add_argument("--only", nargs="*", help="names of the cases to run")
    arguments = parser.parse_args()
    document = json.loads(arguments.cases.read_text(encoding="utf-8"))
    worst = 0.0
    for case in document["cases"]:
        if arguments.only and case["name"] not in arguments.only:
            continue
        error = run_case(case, document["checkpoint"], arguments.weights, arguments.data)
        verdict = "" if error <= LIMIT else f"  above {LIMIT:g}"
        print(f"{case['name']:<32} {error:.2e}{verdict}", flush=True)
        worst = max(worst, error)
    return int(worst > LIMIT)


def run_case(case: dict[str, Any], checkpoint: str, weights: Path, data: Path) -> float:
    models = _models(
        weights / checkpoint,
        weights / case["motion_module"] if case["motion_module"] else None,
        case.get("motion_scale", 1.0),
    )
    context = case.get("context")
    ours = sample_latents(
        models.unet,
        load_file(data / case["latents"])["latent_tensor"],
        Conditioning.of(
            models.text_encoder.encode(case["positive"]),
            models.text_encoder.encode(case["negative"]),
        ),
        SamplingSettings(
            seed=case["seed"],
            steps=case["steps"],
            guidance=Guidance(scale=case["guidance_scale"]),
            sampler=case["sampler"],
            scheduler=case["scheduler"],
            denoise=case["denoise"],
            beta_schedule=case.get("beta_schedule", "autoselect"),
            noise_type=case.get("noise_type", "default"),
            context=ContextOptions(**context) if context else None,
        ),
    )
    expected = load_file(data / case["expected"])["samples"]
    return float(torch.linalg.norm(ours - expected) / torch.linalg.norm(expected))


@lru_cache(maxsize=1)
def _models(checkpoint: Path, motion_module: Path | None, motion_scale: float) -> Models:
    return load_models(
        checkpoint,
        motion_module=motion_module,
        motion_scale=motion_scale,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


if __name__ == "__main__":
    sys.exit(main())
