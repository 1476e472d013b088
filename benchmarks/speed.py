"""Compare the speed of this package, diffusers' pipeline and AnimateDiff-Evolved.

Usage: python benchmarks/speed.py [--work NAME] [--device DEVICE] [--rounds 3] [--json FILE]
       [--checkpoint FILE --motion-module FILE] [--contenders NAME ...]

Each contender is a separate process that keeps its networks loaded. After a warm-up step (on a CPU
only for compiled ones) they run in turn, so that all of them see the same load of the machine. The
ratios are printed first, then the medians.
AnimateDiff-Evolved runs inside the first ComfyUI in COMFYUI_PATH, where it must be installed as a
custom node, with the interpreter in COMFYUI_PYTHON (this one by default). It starts from the same
noise as this package, and the difference between the sampled latents of the two is printed too.
Without files, random weights of Stable Diffusion 1.5's size are drawn, in 16 bits. Operations are
counted on diffusers' modules for all contenders: operations that one of them saves count as speed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.pipeline.bench.peaks import matrix_peak
from animatediff_v2v.pipeline.files import load_checkpoint
from animatediff_v2v.pipeline.memory.devices import resolve_device, resolve_dtype
from animatediff_v2v.pipeline.sampling.windows import context_windows
from contenders import CONTENDERS, WINDOW
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from evolved_worker import find_comfyui, find_pack
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from work import Task, Work, latest_latents

sys.path.append(str(Path(__file__).resolve().parents[1] / "demo"))
from random_weights import checkpoint, motion_module

HERE = Path(__file__).resolve().parent
CPU_WORKS = {"small": Work(width=256, height=256, frames=8, steps=2, guidance=7.0)}
GPU_WORKS = {
    "25-steps": Work(width=512, height=512, frames=16, steps=25, guidance=7.0),
    "4-steps": Work(width=512, height=512, frames=16, steps=4, guidance=1.0),
    "64-frames": Work(width=512, height=512, frames=64, steps=25, guidance=7.0),
    "768x512": Work(width=768, height=512, frames=16, steps=25, guidance=7.0),
}
SIZES = {
    "unet": {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    },
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
    },
    "text_encoder": {
        "vocab_size": 49_408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "max_position_embeddings": 77,
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=[*CPU_WORKS, *GPU_WORKS], help="only this row")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--motion-module", type=Path)
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS, "evolved"])
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    works = CPU_WORKS if device.type == "cpu" else GPU_WORKS
    if arguments.work:
        works = {arguments.work: {**CPU_WORKS, **GPU_WORKS}[arguments.work]}
    starts = contenders(arguments.contenders or default_contenders(device))
    record: dict[str, Any] = {"machine": machine(device)}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "checkpoint": arguments.checkpoint or drawn_checkpoint(Path(folder)),
            "motion_module": arguments.motion_module or drawn_motion_module(Path(folder)),
        }
        for name, work in works.items():
            task = Task(
                work=work,
                **{what: path.resolve() for what, path in files.items()},
                folder=Path(folder),
                device=device,
                dtype=resolve_dtype("auto", device),
            )
            able = starts if not work.is_windowed else without_diffusers(starts)
            record[name] = compare(name, task, able, rounds=arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return 0


def drawn_checkpoint(folder: Path) -> Path:
    torch.manual_seed(1)
    path = folder / "checkpoint.safetensors"
    save_file(checkpoint(**SIZES), path)
    return path


def drawn_motion_module(folder: Path) -> Path:
    torch.manual_seed(2)
    path = folder / "motion_module.safetensors"
    save_file(motion_module(SIZES["unet"]), path)
    return path


def default_contenders(device: torch.device) -> list[str]:
    compiled = ["diffusers compiled"] if device.type == "cuda" else []
    return ["ours", "ours compiled", "diffusers", *compiled, "evolved"]


def contenders(names: Iterable[str]) -> dict[str, Start]:
    """Return the functions that start the contenders; print why one is left out."""
    starts = {}
    for name in names:
        try:
            starts[name] = start_of_evolved() if name == "evolved" else start_of(name)
        except LookupError as reason:
            print(f"{name} is left out: {reason}.", file=sys.stderr)
    if not starts:
        raise SystemExit("No contender is left.")
    return starts


def without_diffusers(starts: dict[str, Start]) -> dict[str, Start]:
    """Return the contenders that support windows; print a line about the others."""
    left_out = [name for name in starts if name.startswith("diffusers")]
    for name in left_out:
        print(f"{name} is left out: its FreeNoise takes no encoded prompts.", file=sys.stderr)
    return {name: start for name, start in starts.items() if name not in left_out}


def start_of(name: str) -> Start:
    return partial(Worker, [sys.executable, str(HERE / "contenders.py"), name], Path.cwd())


def start_of_evolved() -> Start:
    """Return the function that starts AnimateDiff-Evolved; raises LookupError if it is missing."""
    comfyui = find_comfyui()
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, str(HERE / "evolved_worker.py"), str(find_pack(comfyui))]
    return partial(Worker, command, comfyui)


def compare(name: str, task: Task, starts: dict[str, Start], *, rounds: int) -> Any:
    operations = count_operations(task.work, task.checkpoint)
    rows = measure(task, starts, rounds)
    for row in rows.values():
        row["steps_per_second"] = task.work.steps / row["sample"]
        row["TFLOP_per_second"] = operations / row["seconds"] / 1e12
        row["share_of_peak"] = row["TFLOP_per_second"] / row["peak_TFLOP_per_second"]
    show(name, task.work, rows, operations=operations)
    if {"ours", "evolved"} <= rows.keys():
        ours, theirs = (latest_latents(task.folder, label) for label in ("ours", "evolved"))
        difference = float((ours - theirs).norm() / theirs.norm())
        rows["ours"]["difference_to_evolved"] = difference
        print(f"sampled latents, |ours - evolved| / |evolved|: {difference:.1e}")
    return rows


def measure(task: Task, starts: dict[str, Start], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median figures of each contender.

    The speed of matrix products is measured before and after each run: on a virtual machine, whose
    neighbours come and go, it has changed by a third within minutes.
    """
    workers: dict[str, Worker] = {}
    loaded: dict[str, dict[str, float]] = {}
    runs: dict[str, list[dict[str, float]]] = {label: [] for label in starts}
    try:
        for label, start in starts.items():  # one after the other: loading takes the most memory
            workers[label] = start(task)
            loaded[label] = workers[label].answer()
        for label, worker in workers.items():
            # On a CPU no kernels are tuned in the first run.
            if task.device.type != "cpu" or label.endswith("compiled"):
                worker.run(1)
        before = matrix_peak(task.device, task.dtype)
        for _ in range(rounds):
            for label, worker in workers.items():
                run = worker.run(task.work.steps)
                after = matrix_peak(task.device, task.dtype)
                runs[label].append(run | {"peak_TFLOP_per_second": (before + after) / 2})
                before = after
    finally:
        for worker in workers.values():
            worker.end()
    return {
        label: {key: statistics.median(run[key] for run in row) for key in row[0]}
        | {"loading_peak_GB": loaded[label]["peak_GB"]}
        for label, row in runs.items()
    }


class Worker:
    """A contender in a separate process."""

    def __init__(self, command: list[str], folder: Path, task: Task) -> None:
        self._process = subprocess.Popen(
            [*command, task.to_json()],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, steps: int) -> dict[str, float]:
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A contender ended early; what it said stands above.")
        figures: dict[str, float] = json.loads(line)
        return figures

    def end(self) -> None:
        self._process.communicate()


Start = Callable[[Task], Worker]


def show(name: str, work: Work, rows: Any, *, operations: float) -> None:
    print(
        f"\n{name}: {work.width}x{work.height}, {work.frames} frames, {work.steps} steps, "
        f"guidance {work.guidance:g}; {operations / 1e12:.1f} TFLOP"
    )
    for label, row in rows.items():
        for other, theirs in rows.items():
            if label.startswith("ours") and not other.startswith("ours"):
                print(
                    f"{label} : {other}  {theirs['seconds'] / row['seconds']:.2f} times as fast "
                    f"({theirs['cpu_seconds'] / row['cpu_seconds']:.2f} by the seconds of its "
                    f"CPU), {row['peak_GB'] / theirs['peak_GB']:.2f} of the peak memory "
                    f"({row['loading_peak_GB'] / theirs['loading_peak_GB']:.2f} while loading)"
                )
    columns = list(next(iter(rows.values())))
    print(f"{'':<20}" + "".join(f"{key:>22}" for key in columns))
    for label, row in rows.items():
        print(f"{label:<20}" + "".join(f"{row[key]:>22.3f}" for key in columns), flush=True)


def count_operations(work: Work, path: Path) -> float:
    """Count the multiplications and additions of a run, on diffusers' modules."""
    weights = load_checkpoint(path)
    with torch.device("meta"):
        base = UNet2DConditionModel(**weights.unet_config)
        adapter = MotionAdapter(
            block_out_channels=weights.unet_config["block_out_channels"],
            motion_layers_per_block=weights.unet_config["layers_per_block"],
            use_motion_mid_block=True,
        )
        unet, vae = UNetMotionModel.from_unet2d(base, adapter), AutoencoderKL(**weights.vae_config)
        window = min(work.frames, WINDOW.length)
        latent = torch.empty(1, 4, window, work.height // 8, work.width // 8)
        prompt = torch.empty(window, 77, weights.unet_config["cross_attention_dim"])
        frame = torch.empty(1, 3, work.height, work.width)
        with FlopCounterMode(display=False) as one_pass, torch.no_grad():
            unet(latent, torch.zeros(1), prompt)
        with FlopCounterMode(display=False) as one_frame, torch.no_grad():
            vae.decode(vae.encode(frame).latent_dist.mean)
    passes = work.steps * (1 if work.guidance == 1 else 2)
    if work.is_windowed:
        passes *= len(context_windows(work.frames, WINDOW))
    return passes * one_pass.get_total_flops() + work.frames * one_frame.get_total_flops()


def machine(device: torch.device) -> dict[str, str]:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    threads = str(torch.get_num_threads())
    return {"device": name, "threads": threads, "torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(main())
