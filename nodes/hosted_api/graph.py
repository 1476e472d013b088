"""A job as a graph of this pack's nodes, in ComfyUI's API format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from ...api.queue.executor import ApiJob, number_of
from ...pipeline import ContextOptions
from ...pipeline.curve import Curve, Strength

OUTPUT_NODE = "restyle"
OUTPUT_FOLDER = "animatediff_v2v"
MAX_LORAS_PER_NODE = 10

Graph = dict[str, dict[str, Any]]


def graph(job: ApiJob, *, video: str) -> Graph:
    """Return the graph of a job; `video` is its file name below ComfyUI's input folder.

    Each request has its own output name, so that no two requests get the same file from ComfyUI's
    cache.
    """
    is_stack = any(Path(name).is_absolute() for name, _ in job.loras)
    loras = {} if is_stack else _lora_nodes(job.loras)
    nodes: Graph = {**loras, **_motion_lora_nodes(job.motion_loras)}
    stacks: dict[str, Any] = {}
    if is_stack:
        stacks["lora_stack"] = _stack(job.loras)
    elif job.loras:
        stacks["lora_stack"] = [_last(nodes, "loras"), 0]
    if job.motion_loras:
        stacks["motion_lora_stack"] = [_last(nodes, "motion"), 0]
    if job.keyframes:
        nodes |= _keyframe_nodes(job, folder=PurePosixPath(video).parent)
        stacks["control"] = ["keyframes", 0]
    if job.context_memory != "none":
        nodes["windows"] = _windows(job)
        stacks["context_options"] = ["windows", 0]
    nodes[OUTPUT_NODE] = {
        "class_type": "ADV2V_VideoToVideo",
        "inputs": {
            "video": video,
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "num_inference_steps": job.steps,
            "guidance_scale": _strength(job.guidance_scale, "guidance", nodes),
            "base_model": job.checkpoint,
            "motion_module": job.motion_module,
            "select_every_nth_frame": job.select_every_nth_frame,
            "seed": job.seed,
            "sampler": job.sampler,
            "scheduler": job.scheduler,
            **({} if job.preset == "exact" else {"preset": job.preset}),
            "denoise": _strength(job.denoise, "denoise", nodes),
            "force_rate": job.force_rate,
            "duration": job.duration_seconds,
            "match_source": job.match_source,
            "restore_frames": job.restore_frames,
            "refine": job.refine,
            "refine_denoise": job.refine_denoise,
            "refine_upscale": job.refine_upscale,
            "filename_prefix": f"{OUTPUT_FOLDER}/{job.request_id}",
            **stacks,
        },
    }
    return nodes


def _strength(strength: Strength, name: str, nodes: Graph) -> Any:
    """Return the value of an input: a number, or the link to a node with a curve that is added."""
    if not isinstance(strength, Curve):
        return strength
    inputs = {"curve": str(strength), "start": strength.start, "end": strength.end}
    nodes[f"curve_{name}"] = {"class_type": "ADV2V_StrengthCurve", "inputs": inputs}
    return [f"curve_{name}", 0]


def _windows(job: ApiJob) -> dict[str, Any]:
    windows = ContextOptions(memory=job.context_memory, memory_end=job.context_memory_end)
    return {"class_type": "ADV2V_ContextOptions", "inputs": asdict(windows)}


def _stack(loras: Sequence[tuple[str, Strength]]) -> dict[str, Any]:
    """Return LoRAs as a value of the socket, because downloaded ones are in no combo's list.

    File names are enough, see nodes/host/folders.py; paths would be written into the video.
    """
    entries = (
        (Path(name).name if Path(name).is_absolute() else name, scale) for name, scale in loras
    )
    return {
        "__value__": [
            [name, str(scale) if isinstance(scale, Curve) else scale, number_of(scale)]
            for name, scale in entries
        ]
    }


def _lora_nodes(loras: Sequence[tuple[str, Strength]]) -> Graph:
    nodes: Graph = {}
    curves: Graph = {}
    for start in range(0, len(loras), MAX_LORAS_PER_NODE):
        inputs: dict[str, Any] = {}
        for slot, (name, scale) in enumerate(loras[start : start + MAX_LORAS_PER_NODE], 1):
            inputs |= {
                f"lora_{slot}": name,
                f"model_strength_{slot}": _strength(scale, f"lora{start + slot}", curves),
                f"clip_strength_{slot}": number_of(scale),
            }
        if nodes:
            inputs["lora_stack"] = [_last(nodes, "loras"), 0]
        nodes[f"loras{start}"] = {"class_type": "ADV2V_LoraStack", "inputs": inputs}
    return {**curves, **nodes}


def _motion_lora_nodes(motion_loras: Sequence[tuple[str, float]]) -> Graph:
    nodes: Graph = {}
    for number, (name, strength) in enumerate(motion_loras):
        inputs: dict[str, Any] = {"motion_lora": name, "strength": strength}
        if nodes:
            inputs["motion_lora_stack"] = [_last(nodes, "motion"), 0]
        nodes[f"motion{number}"] = {"class_type": "ADV2V_MotionLoraStack", "inputs": inputs}
    return nodes


def _keyframe_nodes(job: ApiJob, *, folder: PurePosixPath) -> Graph:
    """Return the nodes that end in Keyframes; the pictures take the size of the first one."""
    nodes: Graph = {}
    for number, (picture, _) in enumerate(job.keyframes):
        inputs: dict[str, Any] = {"image": str(folder / picture.name)}
        nodes[f"picture{number}"] = {"class_type": "LoadImage", "inputs": inputs}
        if number:
            last = "picture0" if number == 1 else f"pictures{number - 1}"
            inputs = {"image1": [last, 0], "image2": [f"picture{number}", 0]}
            nodes[f"pictures{number}"] = {"class_type": "ImageBatch", "inputs": inputs}
    inputs = {
        "sparsectrl": job.sparsectrl,
        "images": [_last(nodes, "picture"), 0],
        "frames": ", ".join(str(frame) for _, frame in job.keyframes),
        "strength": job.keyframe_strength,
        "start": 0.0,
        "end": 1.0,
    }
    nodes["keyframes"] = {"class_type": "ADV2V_Keyframes", "inputs": inputs}
    return nodes


def _last(nodes: Graph, kind: str) -> str:
    return [name for name in nodes if name.startswith(kind)][-1]
