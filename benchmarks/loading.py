"""Compare the loading of a checkpoint, a motion module and two LoRAs here and in diffusers.

Usage: python benchmarks/loading.py --checkpoint FILE --motion-module FILE [--rounds 3]

diffusers' way is `from_single_file`, `from_unet2d` and `fuse_lora`, which also needs the packages
peft and accelerate. Each run is a process of its own; time and peak memory count from after the
imports until every page of the weights has been touched once. The LoRAs are made here: rank 32,
every layer of the UNet's transformers. Prints the figures, and exits 1 if ours takes more than
half the memory or more than a third of the time, or if merging alone takes more than 3 seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.pipeline.files import LoraEntry, load_checkpoint, merge_loras
from animatediff_v2v.pipeline.models import load_models
from diffusers import (
    AnimateDiffVideoToVideoPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig

RANK = 32
STRENGTHS = (0.7, -0.4)
LARGEST_MEMORY_RATIO, LARGEST_TIME_RATIO, LONGEST_MERGE_SECONDS = 1 / 2, 1 / 3, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--motion-module", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(WAYS[arguments.measure], arguments)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.checkpoint, Path(folder))
        rounds = [{way: run(way, folder) for way in WAYS} for _ in range(arguments.rounds)]
    return report({way: best(figures[way] for figures in rounds) for way in WAYS})


def run(way: str, folder: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--measure", way, "--folder", folder]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def best(runs: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the smallest of each figure, which other work on the machine disturbed least."""
    rows = list(runs)
    return {name: min(row[name] for row in rows) for name in rows[0]}


def report(figures: dict[str, dict[str, float]]) -> int:
    for way, row in figures.items():
        cells = "  ".join(f"{name} {value:.2f}" for name, value in row.items())
        print(f"{way:<10} {cells}")
    ours, theirs = figures["ours"], figures["diffusers"]
    memory, seconds = (ours[name] / theirs[name] for name in ("peak_GB", "seconds"))
    print(f"ours / diffusers: memory {memory:.2f} (at most {LARGEST_MEMORY_RATIO:.2f}), ", end="")
    print(f"time {seconds:.2f} (at most {LARGEST_TIME_RATIO:.2f})")
    short = memory > LARGEST_MEMORY_RATIO or seconds > LARGEST_TIME_RATIO
    return int(short or figures["merge"]["seconds"] > LONGEST_MERGE_SECONDS)


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write the LoRAs, and the configurations that diffusers would fetch from its hub."""
    weights = load_checkpoint(checkpoint)
    for number in range(len(STRENGTHS)):
        save_file(make_lora(weights.unet, seed=number), folder / f"lora_{number}.safetensors")
    write_configs(weights, folder / "config")


def make_lora(unet: dict[str, torch.Tensor], *, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in unet.items():
        if ".attentions." in name and name.endswith(".weight") and weight.ndim > 1:
            place = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            kernel = weight.shape[2:]
            down = torch.randn(RANK, *weight.shape[1:], generator=generator) * 0.02
            up = torch.randn(weight.shape[0], RANK, *kernel, generator=generator) * 0.02
            tensors[f"{place}.lora_down.weight"] = down.half()
            tensors[f"{place}.lora_up.weight"] = up.half()
            tensors[f"{place}.alpha"] = torch.tensor(RANK / 2)
    return tensors


def write_configs(weights: Any, folder: Path) -> None:
    with torch.device("meta"):
        UNet2DConditionModel(**weights.unet_config).save_config(folder / "unet")
        AutoencoderKL(**weights.vae_config).save_config(folder / "vae")
        MotionAdapter(
            block_out_channels=weights.unet_config["block_out_channels"],
            motion_layers_per_block=weights.unet_config["layers_per_block"],
            use_motion_mid_block=True,
        ).save_config(folder / "motion")
    CLIPTextConfig(**weights.text_encoder_config).save_pretrained(folder / "text_encoder")
    DDIMScheduler().save_config(folder / "scheduler")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    index = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    index |= {"feature_extractor": [None, None], **parts}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def measure(way: Callable[[argparse.Namespace], Callable[[], Any]], arguments: Any) -> None:
    """Import, note the memory, load, and print time and memory of the loading as JSON."""
    load = way(arguments)
    before, start = peak_gigabytes(), time.perf_counter()
    kept = load()
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "peak_GB": peak_gigabytes() - before}
    del kept
    print(json.dumps(figures))


def peak_gigabytes() -> float:
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def touch(tensors: Iterable[torch.Tensor]) -> None:
    """Read one byte of each page, so that memory-mapped weights count as well."""
    for tensor in tensors:
        if tensor.numel():
            tensor.detach().contiguous().view(-1).view(torch.uint8)[::4096].sum()


def loras(folder: Path) -> list[Path]:
    return [folder / f"lora_{number}.safetensors" for number in range(len(STRENGTHS))]


def prepare_ours(arguments: argparse.Namespace) -> Callable[[], Any]:
    stack = [LoraEntry(p, s) for p, s in zip(loras(arguments.folder), STRENGTHS, strict=True)]

    def load() -> Any:
        models = load_models(
            arguments.checkpoint,
            motion_module=arguments.motion_module,
            loras=stack,
            device=torch.device("cpu"),
            dtype=torch.float16,
        )
        for part in (models.unet, models.text_encoder, models.codec):
            touch(all_tensors(part))
        return models

    return load


def all_tensors(part: Any) -> Iterable[torch.Tensor]:
    """Yield the weights of every module in an object."""
    modules = [part] if isinstance(part, torch.nn.Module) else vars(part).values()
    for module in modules:
        if isinstance(module, torch.nn.Module):
            yield from module.parameters()
            yield from module.buffers()


def prepare_merge(arguments: argparse.Namespace) -> Callable[[], Any]:
    weights = load_checkpoint(arguments.checkpoint)
    stack = [LoraEntry(p, s) for p, s in zip(loras(arguments.folder), STRENGTHS, strict=True)]
    touch(weights.unet.values())
    return lambda: merge_loras(unet=weights.unet, text_encoder=None, loras=stack)


def prepare_diffusers(arguments: argparse.Namespace) -> Callable[[], Any]:
    config, half = arguments.folder / "config", {"torch_dtype": torch.float16}

    def load() -> Any:
        base = StableDiffusionPipeline.from_single_file(
            str(arguments.checkpoint), config=str(config), tokenizer=None, **half
        )
        adapter = MotionAdapter.from_single_file(
            str(arguments.motion_module), config=str(config / "motion"), **half
        )
        parts = {**base.components, "unet": UNetMotionModel.from_unet2d(base.unet, adapter)}
        for unused in ("safety_checker", "requires_safety_checker"):
            parts.pop(unused, None)
        pipeline = AnimateDiffVideoToVideoPipeline(**parts, motion_adapter=adapter)
        for number, path in enumerate(loras(arguments.folder)):
            pipeline.load_lora_weights(str(path), adapter_name=f"lora_{number}")
        names = [f"lora_{number}" for number in range(len(STRENGTHS))]
        pipeline.set_adapters(names, list(STRENGTHS))
        pipeline.fuse_lora()
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            touch(part.parameters())
        return pipeline

    return load


WAYS = {"ours": prepare_ours, "merge": prepare_merge, "diffusers": prepare_diffusers}


if __name__ == "__main__":
    sys.exit(main())
