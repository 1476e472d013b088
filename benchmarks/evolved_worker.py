"""AnimateDiff-Evolved inside ComfyUI, as a contender of `speed.py`.

Usage: python evolved_worker.py PACK TASK

It is run by ComfyUI's interpreter, in ComfyUI's folder. PACK is the folder of AnimateDiff-Evolved
and TASK is the JSON of a `work.Task`. The nodes that a graph would have are called one after the
other; ComfyUI chooses the precision, as for its users. Its loader only supports Stable Diffusion
1.5 in its usual size.
"""
# ruff: noqa: PLC0415 (ComfyUI must be told of the device before its modules are imported)

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from work import (
    WINDOW_LENGTH,
    WINDOW_OVERLAP,
    Clock,
    Made,
    Run,
    Task,
    drawn_frames,
    drawn_prompts,
    serve,
)

PACK_NAME = "comfyui-animatediff-evolved"
PROMPT_CHANNELS = 768


def find_comfyui() -> Path:
    """Return the first ComfyUI in COMFYUI_PATH; raises LookupError if there is none."""
    first = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0]
    if not first or not Path(first, "nodes.py").is_file():
        raise LookupError("COMFYUI_PATH does not begin with the folder of a ComfyUI")
    return Path(first).resolve()


def find_pack(comfyui: Path) -> Path:
    """Return AnimateDiff-Evolved's folder in ComfyUI; raises LookupError if it is not there."""
    packs = comfyui / "custom_nodes"
    for pack in packs.glob("*"):
        if pack.name.lower() == PACK_NAME:
            return pack
    raise LookupError(f"{packs} holds no ComfyUI-AnimateDiff-Evolved")


class Nodes:
    """The nodes of a ComfyUI and of one pack, with the folders of the model files registered."""

    def __init__(self, pack: Path, task: Task) -> None:
        sys.path.insert(0, str(Path.cwd()))
        from comfy.cli_args import args

        args.cpu = task.device.type == "cpu"
        import folder_paths

        import nodes

        if not asyncio.run(nodes.load_custom_node(str(pack), module_parent="custom_nodes")):
            raise SystemExit(f"ComfyUI could not load {pack}; what it said stands above.")
        folder_paths.add_model_folder_path("checkpoints", str(task.checkpoint.parent))
        folder_paths.add_model_folder_path("animatediff_models", str(task.motion_module.parent))
        self._classes = nodes.NODE_CLASS_MAPPINGS

    def __call__(self, name: str, **inputs: Any) -> Any:
        """Execute a node and return its outputs."""
        node = self._classes[name]
        return getattr(node(), node.FUNCTION)(**inputs)


@torch.inference_mode()
def evolved(task: Task, pack: Path) -> Run:
    node, work, clock = Nodes(pack, task), task.work, Clock(task.device)
    model, _, vae = node("CheckpointLoaderSimple", ckpt_name=task.checkpoint.name)
    model = with_motion(node, model, task)
    positive, negative = ([[prompt, {}]] for prompt in drawn_prompts(PROMPT_CHANNELS))
    frames = torch.from_numpy(drawn_frames(work))

    @torch.inference_mode()
    def run(steps: int) -> Made:
        clock.mark("encode")
        (latents,) = node("VAEEncode", vae=vae, pixels=frames / 255)
        clock.mark("sample")
        (sampled,) = node(
            "KSampler",
            model=model,
            seed=1,
            steps=steps,
            cfg=work.guidance,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=latents,
            denoise=1.0,
        )
        clock.mark("decode")
        (images,) = node("VAEDecode", vae=vae, samples=sampled)
        decoded = (images * 255).round().to(torch.uint8)
        return Made(clock.phases(), decoded.cpu(), sampled["samples"].cpu())

    return run


def with_motion(node: Nodes, model: Any, task: Task) -> Any:
    """Return ComfyUI's model with the motion module, and with windows for a long video."""
    motion = node("ADE_LoadAnimateDiffModel", model_name=task.motion_module.name)[0]
    motion = node("ADE_ApplyAnimateDiffModelSimple", motion_model=motion)[0]
    windows = None
    if task.work.is_windowed:
        windows = node(
            "ADE_StandardStaticContextOptions",
            context_length=WINDOW_LENGTH,
            context_overlap=WINDOW_OVERLAP,
        )[0]
    return node(
        "ADE_UseEvolvedSampling",
        model=model,
        beta_schedule="autoselect",
        m_models=motion,
        context_options=windows,
    )[0]


if __name__ == "__main__":
    serve("evolved", partial(evolved, pack=Path(sys.argv[1])), Task.from_json(sys.argv[2]))
