"""Run graphs with ComfyUI's own samplers through AnimateDiff-Evolved and through Apply AnimateDiff.

Usage: python native.py --weights DIR --packs DIR [--only NAME ...]
       python native.py --weights DIR --packs DIR --time ROUNDS [--frames N] [--size N]

Run by ComfyUI's interpreter, in ComfyUI's folder. DIR of --weights holds what native_files.py
writes; with --time it holds the full-size random_sd15.safetensors and mm_random_v3.safetensors. DIR
of --packs holds AnimateDiff-Evolved, Advanced-ControlNet and IPAdapter_plus. Each graph runs twice
in this process, on the same MODEL. Prints a line a graph (name, relative error) and exits 1 if one
is above 1e-3. --time samples with both packs in turns and prints the ratios of time and memory.
"""
# ruff: noqa: PLC0415 (ComfyUI must be told of the device before its modules are imported)

from __future__ import annotations

import argparse
import asyncio
import inspect
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file

LIMIT = 1e-3
OUR_PACK = Path(__file__).resolve().parents[1]
PACKS = ("ComfyUI-AnimateDiff-Evolved", "ComfyUI-Advanced-ControlNet", "ComfyUI_IPAdapter_plus")
CHECKPOINT = "random_sd15.safetensors"
CONTROL_NET, LORA = "control.safetensors", "lora.safetensors"


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def take_narrow_networks() -> None:
    """Let ComfyUI's loaders take Stable Diffusion 1.5 at any width; they know its usual one alone.

    AnimateDiff-Evolved must be told as well: replace its 320, 640 and 1280 in motion_module_ad.py.
    """
    import comfy.model_detection
    import comfy.supported_models

    def config_of(tensors: Any, prefix: str, *_: Any, **__: Any) -> Any:
        config = comfy.model_detection.detect_unet_config(tensors, prefix)
        return comfy.supported_models.SD15(config | {"dtype": torch.float32})

    comfy.model_detection.model_config_from_unet = config_of


@dataclass
class Graph:
    """A graph: all but the motion module, its options and the sampler has defaults."""

    motion: str = "v3"
    frames: int = 4
    size: int = 8
    """Height and width of the latents."""
    window: dict[str, Any] = field(default_factory=dict)
    """Context Options; empty is none."""
    motion_scale: float | list[float] = 1.0
    """A number, or one for each frame; so is the effect."""
    motion_effect: float | list[float] = 1.0
    scale_masks: int = 0
    """Masks that multiply the motion scale, of noise: 0, 1 for all frames, or one for each."""
    effect_masks: int = 0
    keyframes: dict[float, tuple[float, float]] = field(default_factory=dict)
    """Motion scale and effect from a share of the noise schedule on, in place of the numbers."""
    start: float = 0.0
    end: float = 1.0
    beta_schedule: str = "autoselect"
    free_init: dict[str, Any] = field(default_factory=dict)
    """FreeInit Options; empty is none."""
    before: Callable[[Bench, Any], Any] | None = None
    """Patches the MODEL in front of the motion module."""
    after: Callable[[Bench, Any], Any] | None = None
    prompts: Callable[[Bench, Graph], tuple[Any, Any]] | None = None
    masked: bool = False
    sample: Callable[[Bench, Graph, Any], torch.Tensor] | None = None
    sampler: str = "euler"
    scheduler: str = "normal"
    steps: int = 3
    cfg: float = 7.0
    denoise: float = 1.0


class Bench:
    """A ComfyUI with the packs, its nodes and what they have loaded."""

    def __init__(self, weights: Path, packs: Path | None) -> None:
        """Load ComfyUI, its networks and this pack; and theirs, from the folder `packs`."""
        sys.path.insert(0, str(Path.cwd()))
        # Older ComfyUIs put comfy/utils.py in front of it when their nodes are imported.
        import_module("utils.install_util")
        from comfy.cli_args import args

        args.cpu = not torch.cuda.is_available()
        import folder_paths
        import server

        import nodes

        server.PromptServer(asyncio.new_event_loop())
        theirs = [packs / name for name in PACKS] if packs else []
        for pack in (*theirs, OUR_PACK):
            if not asyncio.run(nodes.load_custom_node(str(pack), module_parent="custom_nodes")):
                raise SystemExit(f"ComfyUI could not load {pack}; what it said stands above.")
        asyncio.run(nodes.init_builtin_extra_nodes())
        for kind in ("checkpoints", "animatediff_models", "controlnet", "loras"):
            folder_paths.add_model_folder_path(kind, str(weights))
        self._classes = nodes.NODE_CLASS_MAPPINGS
        self._weights = weights
        self._is_narrow = (weights / "checkpoint.safetensors").exists()
        self.text_channels = 64 if self._is_narrow else 768
        if self._is_narrow:
            take_narrow_networks()

    def __call__(self, name: str, **inputs: Any) -> Any:
        """Execute a node and return its outputs."""
        node = self._classes[name]
        is_new = hasattr(node, "define_schema")
        call = node.execute if is_new else getattr(node(), node.FUNCTION)
        known = inspect.signature(call).parameters
        anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
        outcome = call(**{n: value for n, value in inputs.items() if anything or n in known})
        return outcome.result if hasattr(outcome, "result") else outcome

    @cached_property
    def model(self) -> Any:
        if not self._is_narrow:
            return self("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)[0]
        import comfy.sd

        prefix = "model.diffusion_model."
        tensors = load_file(self._weights / "checkpoint.safetensors")
        unet = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return comfy.sd.load_diffusion_model_state_dict(unet)

    def motion(self, graph: Graph) -> str:
        return f"{'motion' if self._is_narrow else 'mm_random'}_{graph.motion}.safetensors"

    @cached_property
    def control_net(self) -> Any:
        return self("ControlNetLoader", control_net_name=CONTROL_NET)[0]

    @cached_property
    def advanced_control_net(self) -> Any:
        name = next(
            each
            for each in ("ACN_ControlNetLoaderAdvanced", "ControlNetLoaderAdvanced")
            if each in self._classes
        )
        return self(name, cnet=CONTROL_NET, control_net_name=CONTROL_NET)[0]

    @cached_property
    def ip_adapter(self) -> dict[str, Any]:
        tensors = load_file(self._weights / "ip_adapter.safetensors")
        return {
            part: {
                name.removeprefix(f"{part}."): tensor.float()
                for name, tensor in tensors.items()
                if name.startswith(f"{part}.")
            }
            for part in ("image_proj", "ip_adapter")
        }

    def prompts(self, graph: Graph) -> tuple[Any, Any]:
        if graph.prompts:
            return graph.prompts(self, graph)
        return plain_prompts(self, graph)

    def latents(self, graph: Graph) -> dict[str, Any]:
        latents: dict[str, Any] = {"samples": draw(graph.frames, 4, graph.size, graph.size, seed=1)}
        if graph.masked:
            mask = draw(graph.frames, graph.size * 8, graph.size * 8, seed=5)
            latents["noise_mask"] = (mask > 0).float()
        return latents

    def run(self, graph: Graph, apply: Apply) -> torch.Tensor:
        """Sample the graph with one of the packs."""
        torch.manual_seed(0)
        model = self.model
        model = graph.before(self, model) if graph.before else model
        model = apply(self, graph, model)
        model = graph.after(self, model) if graph.after else model
        return (graph.sample or by_ksampler)(self, graph, model)


Apply = Callable[[Bench, Graph, Any], Any]


def ours(bench: Bench, graph: Graph, model: Any) -> Any:
    optional = {}
    if graph.window:
        options = {"stride": 1, "closed_loop": False, **graph.window}
        optional["context_options"] = bench("ADV2V_ContextOptions", **options)[0]
    if graph.free_init:
        optional["free_init"] = bench("ADV2V_FreeInit", **FREE_INIT | graph.free_init)[0]
    return bench(
        "ADV2V_ApplyMotion",
        model=model,
        motion_module=bench.motion(graph),
        motion_scale=over_steps(bench, graph, 0) if graph.keyframes else graph.motion_scale,
        motion_effect=over_steps(bench, graph, 1) if graph.keyframes else graph.motion_effect,
        motion_scale_mask=mask_of(graph.scale_masks, seed=50),
        motion_effect_mask=mask_of(graph.effect_masks, seed=51),
        beta_schedule=graph.beta_schedule,
        start=graph.start,
        end=graph.end,
        **optional,
    )[0]


def over_steps(bench: Bench, graph: Graph, index: int) -> Any:
    points = [f"{100 * share:g}%: {each[index]} hold" for share, each in graph.keyframes.items()]
    return bench("ADV2V_StrengthCurve", curve=", ".join(points))[0]


def evolved_keyframes(bench: Bench, graph: Graph) -> Any:
    keyframes = None
    for share, (scale, effect) in graph.keyframes.items():
        keyframes = bench(
            "ADE_AnimateDiffKeyframe",
            start_percent=share,
            prev_ad_keyframes=keyframes,
            scale_multival=bench("ADE_MultivalDynamic", float_val=scale)[0],
            effect_multival=bench("ADE_MultivalDynamic", float_val=effect)[0],
        )[0]
    return keyframes


def mask_of(count: int, *, seed: int) -> torch.Tensor | None:
    """Return masks of another shape than the latents, or None for a count of 0."""
    return draw(count, 48, 80, seed=seed).sigmoid() if count else None


def multival(bench: Bench, strength: float | list[float], mask: torch.Tensor | None) -> Any:
    if isinstance(strength, list):
        node = bench("ADE_MultivalDynamicFloatInput", float_val=strength, mask_optional=mask)
        return node[0]
    if strength == 1.0 and mask is None:
        return None
    return bench("ADE_MultivalDynamic", float_val=strength, mask_optional=mask)[0]


EVOLVED_WINDOWS = {
    "standard_static": "ADE_StandardStaticContextOptions",
    "standard_uniform": "ADE_StandardUniformContextOptions",
    "looped_uniform": "ADE_LoopedUniformContextOptions",
    "batched": "ADE_BatchedContextOptions",
}


def evolved(bench: Bench, graph: Graph, model: Any) -> Any:
    motion = bench("ADE_LoadAnimateDiffModel", model_name=bench.motion(graph))
    scale = multival(bench, graph.motion_scale, mask_of(graph.scale_masks, seed=50))
    effect = multival(bench, graph.motion_effect, mask_of(graph.effect_masks, seed=51))
    motion = bench(
        "ADE_ApplyAnimateDiffModel",
        motion_model=motion[0],
        start_percent=graph.start,
        end_percent=graph.end,
        scale_multival=scale,
        effect_multival=effect,
        ad_keyframes=evolved_keyframes(bench, graph),
    )[0]
    windows = None
    if graph.window:
        window = graph.window
        windows = bench(
            EVOLVED_WINDOWS[window["schedule"]],
            context_length=window["length"],
            context_overlap=window["overlap"],
            context_stride=window.get("stride", 1),
            closed_loop=window.get("closed_loop", False),
            fuse_method=window["fuse"],
        )[0]
    return bench(
        "ADE_UseEvolvedSampling",
        model=model,
        beta_schedule=graph.beta_schedule,
        m_models=motion,
        context_options=windows,
        sample_settings=evolved_free_init(bench, graph) if graph.free_init else None,
    )[0]


FREE_INIT = {
    "iterations": 2,
    "filter": "gaussian",
    "spatial_stop": 0.25,
    "temporal_stop": 0.25,
    "order": 4,
}


def evolved_free_init(bench: Bench, graph: Graph) -> Any:
    options = FREE_INIT | graph.free_init
    iterations = bench(
        "ADE_IterationOptsFreeInit",
        iterations=options["iterations"],
        filter=options["filter"],
        d_s=options["spatial_stop"],
        d_t=options["temporal_stop"],
        n_butterworth=options["order"],
        sigma_step=999,
        apply_to_1st_iter=False,
        init_type="FreeInit [sampler sigma]",
    )[0]
    return bench(
        "ADE_AnimateDiffSamplingSettings",
        batch_offset=0,
        noise_type="default",
        seed_gen="comfy",
        seed_offset=0,
        iteration_opts=iterations,
    )[0]


def by_ksampler(bench: Bench, graph: Graph, model: Any) -> torch.Tensor:
    positive, negative = bench.prompts(graph)
    return bench(
        "KSampler",
        model=model,
        seed=7,
        steps=graph.steps,
        cfg=graph.cfg,
        sampler_name=graph.sampler,
        scheduler=graph.scheduler,
        positive=positive,
        negative=negative,
        latent_image=bench.latents(graph),
        denoise=graph.denoise,
    )[0]["samples"]


def in_two_stages(bench: Bench, graph: Graph, model: Any) -> torch.Tensor:
    positive, negative = bench.prompts(graph)
    latents = bench.latents(graph)
    for first, last in ((0, 2), (2, 10_000)):
        latents = bench(
            "KSamplerAdvanced",
            model=model,
            add_noise="enable" if first == 0 else "disable",
            noise_seed=7,
            steps=4,
            cfg=graph.cfg,
            sampler_name=graph.sampler,
            scheduler=graph.scheduler,
            positive=positive,
            negative=negative,
            latent_image=latents,
            start_at_step=first,
            end_at_step=last,
            return_with_leftover_noise="enable" if first == 0 else "disable",
        )[0]
    return latents["samples"]


def by_guider(name: str, **more: Any) -> Callable[[Bench, Graph, Any], torch.Tensor]:
    def sample(bench: Bench, graph: Graph, model: Any) -> torch.Tensor:
        positive, negative = bench.prompts(graph)
        given = {
            "CFGGuider": {"positive": positive, "negative": negative, "cfg": graph.cfg},
            "BasicGuider": {"conditioning": positive},
            "DualCFGGuider": {
                "cond1": positive,
                "cond2": plain_prompts(bench, graph, seed=12)[0],
                "negative": negative,
                "cfg_conds": graph.cfg,
                "cfg_cond2_negative": 4.0,
                "style": "regular",
            },
            "PerpNegGuider": {
                "positive": positive,
                "negative": negative,
                "empty_conditioning": plain_prompts(bench, graph, seed=12)[0],
                "cfg": graph.cfg,
                "neg_scale": 1.0,
            },
        }[name]
        return bench(
            "SamplerCustomAdvanced",
            noise=bench("RandomNoise", noise_seed=7)[0],
            guider=bench(name, model=model, **given, **more)[0],
            sampler=bench("KSamplerSelect", sampler_name=graph.sampler)[0],
            sigmas=bench(
                "BasicScheduler",
                model=model,
                scheduler=graph.scheduler,
                steps=graph.steps,
                denoise=graph.denoise,
            )[0],
            latent_image=bench.latents(graph),
        )[0]["samples"]

    return sample


def plain_prompts(bench: Bench, _graph: Graph, seed: int = 2) -> tuple[Any, Any]:
    positive, negative = draw(2, 1, 77, bench.text_channels, seed=seed)
    return [[positive, {}]], [[negative, {}]]


def prompt_of_each_frame(bench: Bench, graph: Graph) -> tuple[Any, Any]:
    _, negative = plain_prompts(bench, graph)
    return [[draw(graph.frames, 77, bench.text_channels, seed=3), {}]], negative


def prompts_by_area(bench: Bench, graph: Graph) -> tuple[Any, Any]:
    positive, negative = plain_prompts(bench, graph)
    half = bench(
        "ConditioningSetArea",
        conditioning=plain_prompts(bench, graph, seed=13)[0],
        width=graph.size * 4,
        height=graph.size * 8,
        x=graph.size * 4,
        y=0,
        strength=1.5,
    )[0]
    return bench("ConditioningCombine", conditioning_1=positive, conditioning_2=half)[0], negative


def prompts_by_mask(bench: Bench, graph: Graph) -> tuple[Any, Any]:
    positive, negative = plain_prompts(bench, graph)
    masks = (draw(graph.frames, graph.size * 8, graph.size * 8, seed=6) > 0).float()
    masked = bench(
        "ConditioningSetMask",
        conditioning=plain_prompts(bench, graph, seed=13)[0],
        mask=masks,
        strength=1.0,
        set_cond_area="default",
    )[0]
    return bench("ConditioningCombine", conditioning_1=positive, conditioning_2=masked)[0], negative


def prompts_by_time(bench: Bench, graph: Graph) -> tuple[Any, Any]:
    positive, negative = plain_prompts(bench, graph)
    parts = [
        bench("ConditioningSetTimestepRange", conditioning=each, start=start, end=end)[0]
        for each, start, end in (
            (positive, 0.0, 0.4),
            (plain_prompts(bench, graph, seed=13)[0], 0.4, 1.0),
        )
    ]
    return bench("ConditioningCombine", conditioning_1=parts[0], conditioning_2=parts[1])[
        0
    ], negative


def prompts_with_hooks(bench: Bench, graph: Graph) -> tuple[Any, Any]:
    hooks = bench("CreateHookLoraModelOnly", lora_name=LORA, strength_model=1.0)[0]
    keyframes = None
    for strength, start in ((0.2, 0.0), (1.0, 0.5)):
        keyframes = bench(
            "CreateHookKeyframe",
            strength_mult=strength,
            start_percent=start,
            prev_hook_kf=keyframes,
        )[0]
    hooks = bench("SetHookKeyframes", hooks=hooks, hook_kf=keyframes)[0]
    positive, negative = plain_prompts(bench, graph)
    return bench(
        "PairConditioningSetProperties",
        positive_NEW=positive,
        negative_NEW=negative,
        strength=1.0,
        set_cond_area="default",
        hooks=hooks,
    )[:2]


def controlled(
    *spans: tuple[float, float, float], advanced: bool = False
) -> Callable[[Bench, Graph], tuple[Any, Any]]:
    """ControlNets, each with its strength, start and end."""

    def prompts(bench: Bench, graph: Graph) -> tuple[Any, Any]:
        positive, negative = plain_prompts(bench, graph)
        for index, (strength, start, end) in enumerate(spans):
            image = draw(graph.frames, graph.size * 8, graph.size * 8, 3, seed=20 + index)
            given = {
                "positive": positive,
                "negative": negative,
                "control_net": bench.advanced_control_net if advanced else bench.control_net,
                "image": image.sigmoid(),
                "strength": strength,
                "start_percent": start,
                "end_percent": end,
            }
            if advanced:
                mask = draw(1, graph.size * 8, graph.size * 8, seed=30 + index).sigmoid()
                given["mask_optional"] = mask
            node = "ACN_AdvancedControlNetApply_v2" if advanced else "ControlNetApplyAdvanced"
            positive, negative = bench(node, **given)[:2]
        return positive, negative

    return prompts


def patched(name: str, **inputs: Any) -> Callable[[Bench, Any], Any]:
    return lambda bench, model: bench(name, model=model, **inputs)[0]


def with_ip_adapter(bench: Bench, model: Any) -> Any:
    return bench(
        "IPAdapterEmbedsBatch",
        model=model,
        ipadapter=bench.ip_adapter,
        pos_embed=draw(8, 1, 1024, seed=40),
        neg_embed=torch.zeros(8, 1, 1024),
        weight=0.8,
        weight_type="linear",
        start_at=0.0,
        end_at=0.9,
        attn_mask=draw(8, 64, 64, seed=41).sigmoid(),
        embeds_scaling="V only",
    )[0]


FREE_U = patched("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2)
WITH_LORA = patched("LoraLoaderModelOnly", lora_name=LORA, strength_model=0.8)
SAMPLERS = {
    "euler": "normal",
    "euler_ancestral": "karras",
    "heun": "normal",
    "dpm_2": "simple",
    "dpmpp_2m": "karras",
    "dpmpp_sde": "exponential",
    "uni_pc": "sgm_uniform",
    "ddim": "ddim_uniform",
}


def windowed(schedule: str, **more: Any) -> dict[str, Any]:
    return {"length": 4, "overlap": 2, "fuse": "pyramid", "schedule": schedule} | more


GRAPHS = {
    **{
        f"KSampler {name} {scheduler}": Graph(sampler=name, scheduler=scheduler)
        for name, scheduler in SAMPLERS.items()
    },
    "KSamplerAdvanced in two stages": Graph(sample=in_two_stages),
    "CFGGuider": Graph(sample=by_guider("CFGGuider"), sampler="dpmpp_2m"),
    "BasicGuider": Graph(sample=by_guider("BasicGuider")),
    "DualCFGGuider": Graph(sample=by_guider("DualCFGGuider")),
    "PerpNegGuider": Graph(sample=by_guider("PerpNegGuider")),
    "ControlNet": Graph(prompts=controlled((0.9, 0.0, 1.0))),
    "ControlNets, two with spans": Graph(prompts=controlled((0.9, 0.0, 0.5), (0.7, 0.3, 1.0))),
    "ControlNet in windows": Graph(
        prompts=controlled((0.9, 0.0, 1.0)), frames=6, window=windowed("standard_static")
    ),
    "Advanced-ControlNet": Graph(prompts=controlled((0.9, 0.0, 1.0), advanced=True)),
    "Advanced-ControlNets, two in windows": Graph(
        prompts=controlled((0.9, 0.0, 0.5), (0.7, 0.3, 1.0), advanced=True),
        frames=6,
        window=windowed("standard_static"),
    ),
    "FreeU": Graph(before=FREE_U, size=16),
    "PAG": Graph(before=patched("PerturbedAttentionGuidance", scale=3.0)),
    "PAG after, in windows": Graph(
        after=patched("PerturbedAttentionGuidance", scale=3.0),
        frames=6,
        window=windowed("standard_uniform"),
    ),
    "SAG": Graph(before=patched("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0), size=16),
    "HyperTile": Graph(
        before=patched("HyperTile", tile_size=64, swap_size=2, max_depth=0, scale_depth=False),
        size=16,
    ),
    "ToMe": Graph(before=patched("TomePatchModel", ratio=0.3), size=16),
    "Kohya deep shrink": Graph(
        before=patched(
            "PatchModelAddDownscale",
            block_number=3,
            downscale_factor=2.0,
            start_percent=0.0,
            end_percent=0.35,
            downscale_after_skip=True,
            downscale_method="bicubic",
            upscale_method="bicubic",
        ),
        size=16,
    ),
    "RescaleCFG": Graph(before=patched("RescaleCFG", multiplier=0.7)),
    "CFG-Zero": Graph(before=patched("CFGZeroStar")),
    "IP-Adapter": Graph(before=with_ip_adapter),
    "IP-Adapter in windows": Graph(
        before=with_ip_adapter, frames=8, window=windowed("standard_static")
    ),
    "Noise mask": Graph(masked=True, denoise=0.7),
    "Prompt of each frame": Graph(prompts=prompt_of_each_frame),
    "Prompt of each frame in windows": Graph(
        prompts=prompt_of_each_frame, frames=6, window=windowed("looped_uniform")
    ),
    "Prompts by area": Graph(prompts=prompts_by_area),
    "Prompts by mask in windows": Graph(
        prompts=prompts_by_mask, frames=6, window=windowed("standard_static")
    ),
    "Prompts by time": Graph(prompts=prompts_by_time),
    "LoRA": Graph(before=WITH_LORA),
    "LoRA by hooks with keyframes": Graph(prompts=prompts_with_hooks),
    "v-prediction": Graph(
        after=patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=False)
    ),
    "v-prediction, zero terminal SNR": Graph(
        after=patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True)
    ),
    "LCM": Graph(
        after=patched("ModelSamplingDiscrete", sampling="lcm", zsnr=False),
        sampler="lcm",
        scheduler="sgm_uniform",
        cfg=1.5,
    ),
    "AnimateLCM": Graph(motion="lcm", sampler="lcm", scheduler="sgm_uniform", cfg=1.0),
    "Use existing beta schedule": Graph(beta_schedule="use existing"),
    "v1": Graph(motion="v1"),
    "v1 in windows, PAG": Graph(
        motion="v1",
        frames=6,
        window=windowed("standard_static"),
        before=patched("PerturbedAttentionGuidance", scale=3.0),
    ),
    "v2": Graph(motion="v2"),
    "Motion scale": Graph(motion="v2", motion_scale=1.3),
    "Start and end": Graph(start=0.2, end=0.8, steps=4),
    "Windows, static, flat": Graph(frames=7, window=windowed("standard_static", fuse="flat")),
    "Windows, static, overlap-linear": Graph(
        frames=7, window=windowed("standard_static", fuse="overlap-linear")
    ),
    "Windows, uniform": Graph(frames=7, window=windowed("standard_uniform", stride=2)),
    "Windows, uniform, heun": Graph(
        frames=7, window=windowed("standard_uniform", stride=2), sampler="heun"
    ),
    "Windows, looped": Graph(
        frames=7, window=windowed("looped_uniform", closed_loop=True, fuse="flat")
    ),
    "Motion scale by frame": Graph(motion_scale=[1.0, 1.3, 0.6, 1.5]),
    "Motion effect by frame": Graph(motion_effect=[0.0, 0.3, 0.7, 1.0]),
    "Motion effect": Graph(motion_effect=0.4),
    "Motion scale and effect by frame, in windows": Graph(
        frames=7,
        window=windowed("standard_static"),
        motion_scale=[1.0, 1.2, 1.4, 1.6, 1.4, 1.2, 1.0],
        motion_effect=[1.0, 0.8, 0.6, 0.4, 0.6, 0.8, 1.0],
    ),
    "Motion scale mask": Graph(motion_scale=1.5, scale_masks=1),
    "Motion scale mask of each frame": Graph(motion_scale=1.5, scale_masks=4),
    "Motion effect mask": Graph(effect_masks=1),
    "Motion effect mask of each frame": Graph(motion_effect=0.8, effect_masks=4),
    "Motion masks by frame, with curves, in windows": Graph(
        frames=7,
        window=windowed("standard_static"),
        motion_scale=[1.0, 1.2, 1.4, 1.6, 1.4, 1.2, 1.0],
        motion_effect=[1.0, 0.8, 0.6, 0.4, 0.6, 0.8, 1.0],
        scale_masks=7,
        effect_masks=7,
    ),
    "Motion masks, uniform windows, v1": Graph(
        motion="v1",
        frames=7,
        window=windowed("standard_uniform", stride=2),
        motion_scale=1.3,
        scale_masks=1,
        effect_masks=7,
    ),
    "Motion scale over the steps": Graph(
        steps=5, keyframes={0.0: (1.5, 1.0), 0.3: (0.6, 1.0), 0.7: (1.2, 1.0)}
    ),
    "Motion effect over the steps": Graph(
        steps=5, sampler="heun", keyframes={0.0: (1.0, 0.2), 0.5: (1.0, 1.0)}
    ),
    "Motion scale and effect over the steps, in windows": Graph(
        steps=5,
        frames=7,
        window=windowed("standard_uniform", stride=2),
        keyframes={0.0: (1.4, 0.3), 0.25: (0.7, 1.0), 0.6: (1.0, 0.6)},
    ),
    "FreeInit": Graph(free_init={"iterations": 2}),
    "FreeInit, butterworth, three rounds": Graph(
        free_init={"iterations": 3, "filter": "butterworth", "spatial_stop": 0.4, "order": 2}
    ),
    "FreeInit, ideal, windows, denoise": Graph(
        frames=7,
        window=windowed("standard_static"),
        free_init={"filter": "ideal", "temporal_stop": 0.5},
        denoise=0.7,
    ),
    "Windows, batched": Graph(frames=7, window=windowed("batched", overlap=0, fuse="flat")),
    "Windows in two stages": Graph(
        frames=7, window=windowed("standard_uniform"), sample=in_two_stages
    ),
}


def compare(bench: Bench, names: list[str]) -> float:
    worst = 0.0
    for name in names:
        graph = GRAPHS[name]
        expected = bench.run(graph, evolved)
        result = bench.run(graph, ours)
        error = float(torch.linalg.norm(result - expected) / torch.linalg.norm(expected))
        print(f"{name:<40} {error:.1e}{'' if error <= LIMIT else '  above the limit'}", flush=True)
        worst = max(worst, error)
    return worst


SPEED = Graph(frames=16, size=32, steps=1)
PEERS = {"evolved": evolved, "ours": ours}


def seconds_of(bench: Bench, graph: Graph, apply: Apply) -> float:
    """Return the seconds that a KSampler takes, without loading the motion module."""
    model = apply(bench, graph, bench.model)
    began = time.perf_counter()
    by_ksampler(bench, graph, model)
    return time.perf_counter() - began


def compare_times(bench: Bench, graph: Graph, rounds: int) -> float:
    """Print the times of both packs in turns, and return the ratio of their medians."""
    for apply in PEERS.values():
        seconds_of(bench, Graph(steps=1), apply)
    seconds: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(rounds):
        for name, apply in PEERS.items():
            seconds[name].append(seconds_of(bench, graph, apply) / graph.steps)
            print(f"round {number + 1}, {name}: {seconds[name][-1]:.2f} s a step", flush=True)
    return median(seconds["ours"]) / median(seconds["evolved"])


def measure_memory(bench: Bench, graph: Graph, name: str) -> None:
    """Print the peak of the process's memory in MB while a KSampler runs; Linux only."""
    model = PEERS[name](bench, graph, bench.model)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    by_ksampler(bench, graph, model)
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s*(\d+)", status)[1]) // 1024, flush=True)


def compare_memory(command: list[str]) -> float:
    """Measure each pack in a process of its own, and return the ratio."""
    peaks = {}
    for name in PEERS:
        run = subprocess.run([*command, "--memory", name], stdout=subprocess.PIPE, check=True)
        peaks[name] = int(run.stdout.split()[-1])
        print(f"{name}: peak {peaks[name]} MB", flush=True)
    return peaks["ours"] / peaks["evolved"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--packs", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--only", nargs="*", help="names of the graphs to run")
    parser.add_argument("--time", type=int, metavar="ROUNDS", help="compare time and memory")
    parser.add_argument("--memory", choices=PEERS, help="measure the memory of one pack")
    parser.add_argument("--frames", type=int, default=SPEED.frames)
    parser.add_argument("--size", type=int, default=SPEED.size, help="of the latents")
    arguments = parser.parse_args()
    graph = replace(SPEED, frames=arguments.frames, size=arguments.size)
    if arguments.time and not arguments.memory:
        memory = compare_memory([sys.executable, *sys.argv])
    bench = Bench(arguments.weights.resolve(), arguments.packs.resolve())
    with torch.inference_mode():
        if arguments.memory:
            measure_memory(bench, graph, arguments.memory)
            return 0
        if arguments.time:
            ratio = compare_times(bench, graph, arguments.time)
            print(f"time {ratio:.2f}, memory {memory:.2f} of AnimateDiff-Evolved's")
            return 0
        return int(compare(bench, arguments.only or list(GRAPHS)) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
