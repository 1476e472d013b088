"""Compare keyframes with SparseCtrl of Advanced-ControlNet, under AnimateDiff-Evolved.

Usage: python keyframes.py draw --weights DIR
       python keyframes.py expect --weights DIR --packs DIR     (by ComfyUI's interpreter, in its
                                                                 folder)
       python keyframes.py compare --weights DIR
       python keyframes.py apply --weights DIR                  (by ComfyUI's interpreter, in its
                                                                 folder, after compare)

draw writes networks at a fifth of the usual widths, with drawn weights; expect runs each case with
the two packs in DIR of --packs, where AnimateDiff-Evolved's 320, 640 and 1280 in
motion_module_ad.py are replaced by 64, 128 and 256; compare runs ours, prints a line a case (name,
relative error) and exits 1 if one is above 1e-3; apply does the same behind Apply AnimateDiff, with
KSampler.
"""
# ruff: noqa: PLC0415 (each step runs in the interpreter that has its packages)

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from native import Bench, Graph, draw, evolved
from safetensors.torch import load_file, save_file

LIMIT = 1e-3
CHANNELS, FRAMES_AT_ONCE = (64, 128, 256, 256), 32
TEXT_CHANNELS, SIZE, SEED, STEPS, SCALE = 64, 8, 7, 3, 7.0
Run = Callable[[Path, "Case"], torch.Tensor]
WINDOW = {"length": 4, "overlap": 2, "fuse": "pyramid", "schedule": "standard_static"}


@dataclass(frozen=True)
class Case:
    network: str
    frames: str
    count: int = 4
    """Frames of the video."""
    window: bool = False
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    denoise: float = 1.0
    masked: bool = False

    @property
    def pictures(self) -> torch.Tensor:
        """Latents, unscaled, for RGB; otherwise drawings."""
        keyframes = len(self.frames.split(","))
        if self.network == "rgb":
            return draw(keyframes, 4, SIZE, SIZE, seed=50) * 5
        return (draw(keyframes, 8 * SIZE, 8 * SIZE, 3, seed=51) > 1).float()

    @property
    def mask(self) -> torch.Tensor | None:
        """A value for each frame: theirs picks pixels where ours averages them."""
        values = torch.linspace(0.1, 1, self.count).view(-1, 1, 1)
        return values.expand(-1, 8 * SIZE, 8 * SIZE).contiguous() if self.masked else None


CASES = {
    "RGB, first frame": Case("rgb", "0"),
    "RGB, two frames, strength, span": Case("rgb", "0, -1", strength=0.6, start=0.1, end=0.7),
    "scribble, mask": Case("scribble", "2", masked=True),
    "RGB, windows without one": Case("rgb", "0", count=10, window=True),
    "scribble, windows, two at the ends": Case("scribble", "0, 9", count=10, window=True),
    "RGB, video to video, mask": Case("rgb", "1, 3", denoise=0.6, masked=True),
}


def draw_files(folder: Path) -> None:
    import native_files
    from animatediff_v2v.demo import random_weights
    from diffusers import SparseControlNetModel

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(native_files.SEED)
    unet = native_files.UNET | {"block_out_channels": CHANNELS}
    save_file(random_weights.checkpoint(unet), folder / "checkpoint.safetensors")
    motion = native_files.motion_module(FRAMES_AT_ONCE, mid=False, channels=CHANNELS)
    save_file(motion, folder / "motion_v3.safetensors")
    for name in ("rgb", "scribble"):
        with torch.device("meta"):
            network = SparseControlNetModel(
                conditioning_channels=4 if name == "rgb" else 3,
                block_out_channels=CHANNELS,
                cross_attention_dim=TEXT_CHANNELS,
                down_block_types=("CrossAttnDownBlockMotion",) * 3 + ("DownBlockMotion",),
                use_simplified_condition_embedding=name == "rgb",
            )
        drawn = native_files.drawn_weights(network)
        save_file(
            {_original(key): each for key, each in drawn.items()}, folder / f"{name}.safetensors"
        )


def _original(name: str) -> str:
    """Convert a name of diffusers to AnimateDiff's, which Advanced-ControlNet reads."""
    block, found, rest = name.partition("motion_modules.")
    if not found:
        return name
    number, _, rest = rest.partition(".")
    for theirs, original in (
        (".norm1.", ".norms.0."),
        (".norm3.", ".ff_norm."),
        (".attn1.", ".attention_blocks.0."),
        (".pos_embed.pe", ".attention_blocks.0.pos_encoder.pe"),
    ):
        rest = rest.replace(theirs, original)
    return f"{block}motion_modules.{number}.temporal_transformer.{rest}"


def take_narrow_sparsectrl() -> None:
    """Let Advanced-ControlNet take a SparseCtrl model of these widths."""
    import comfy.model_detection

    known = comfy.model_detection.unet_config_from_diffusers_unet

    def config_of(tensors: Any, dtype: Any = None) -> Any:
        return known(tensors, dtype) or {
            "use_checkpoint": False,
            "image_size": 32,
            "out_channels": 4,
            "use_spatial_transformer": True,
            "legacy": False,
            "adm_in_channels": None,
            "dtype": dtype,
            "in_channels": 4,
            "model_channels": CHANNELS[0],
            "num_res_blocks": [2, 2, 2, 2],
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "channel_mult": [width // CHANNELS[0] for width in CHANNELS],
            "transformer_depth_middle": 1,
            "use_linear_in_transformer": False,
            "context_dim": TEXT_CHANNELS,
            "num_heads": 8,
        }

    comfy.model_detection.unet_config_from_diffusers_unet = config_of


def expect(weights: Path, packs: Path, names: list[str]) -> None:
    bench = Bench(weights, packs)
    take_narrow_sparsectrl()
    for name in names:
        case = CASES[name]
        with torch.inference_mode():
            graph = Graph(
                frames=case.count,
                window=WINDOW if case.window else {},
                prompts=lambda bench, graph, case=case: guided(bench, case),
                steps=STEPS,
                cfg=SCALE,
                denoise=case.denoise,
            )
            result = bench.run(graph, evolved)
        save_file({"samples": result.contiguous()}, weights / f"{name}.latents")
        print(name, float(result.std()), flush=True)


def guided(bench: Bench, case: Case) -> tuple[Any, Any]:
    positive, negative = ([[each, {}]] for each in draw(2, 1, 77, TEXT_CHANNELS, seed=2))
    method = bench("ACN_SparseCtrlIndexMethodNode", indexes=case.frames)[0]
    network = bench(
        "ACN_SparseCtrlLoaderAdvanced",
        sparsectrl_name=f"{case.network}.safetensors",
        use_motion=True,
        motion_strength=1.0,
        motion_scale=1.0,
        sparse_method=method,
    )[0]
    pictures: Any = case.pictures
    if case.network == "rgb":
        module = next(
            each for name, each in sys.modules.items() if name.endswith(".control_sparsectrl")
        )
        pictures = module.PreprocSparseRGBWrapper(condhint=pictures)
    return bench(
        "ACN_AdvancedControlNetApply_v2",
        positive=positive,
        negative=negative,
        control_net=network,
        image=pictures,
        strength=case.strength,
        start_percent=case.start,
        end_percent=case.end,
        mask_optional=case.mask,
    )[:2]


def compare(weights: Path, names: list[str], run: Run) -> float:
    worst = 0.0
    for name in names:
        expected = load_file(weights / f"{name}.latents")["samples"]
        result = run(weights, CASES[name])
        error = float(torch.linalg.norm(result - expected) / torch.linalg.norm(expected))
        print(f"{name:<40} {error:.1e}{'' if error <= LIMIT else '  above the limit'}", flush=True)
        worst = max(worst, error)
    return worst


def ours(weights: Path, case: Case) -> torch.Tensor:
    from animatediff_v2v.pipeline.files import load_checkpoint
    from animatediff_v2v.pipeline.keyframe_files import parse_frames
    from animatediff_v2v.pipeline.models import (
        Placement,
        build_motion_unet,
        load_sparsectrl_network,
    )
    from animatediff_v2v.pipeline.sampling import (
        Conditioning,
        ContextOptions,
        Guidance,
        Guides,
        Keyframes,
        SamplingSettings,
        Span,
        sample_latents,
    )

    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    checkpoint = load_checkpoint(weights / "checkpoint.safetensors")
    unet = build_motion_unet(
        checkpoint.unet_config,
        checkpoint.unet,
        motion_module=weights / "motion_v3.safetensors",
        placement=Placement(**place),
    )
    is_rgb = case.network == "rgb"
    shown = torch.zeros(len(case.pictures), 8 * SIZE, 8 * SIZE, 3) if is_rgb else case.pictures
    keyframes = Keyframes(
        network=load_sparsectrl_network(weights / f"{case.network}.safetensors", **place),
        pictures=shown,
        latents=case.pictures if is_rgb else None,
        frames=parse_frames(case.frames),
        strength=case.strength,
        span=Span(case.start, case.end),
        mask=case.mask,
    )
    positive, negative = draw(2, 1, 77, TEXT_CHANNELS, seed=2)
    return sample_latents(
        unet,
        draw(case.count, 4, SIZE, SIZE, seed=1),
        Conditioning.of(positive, negative),
        SamplingSettings(
            seed=SEED,
            steps=STEPS,
            guidance=Guidance(scale=SCALE),
            sampler="euler",
            scheduler="normal",
            denoise=case.denoise,
            context=ContextOptions(**WINDOW) if case.window else None,
        ),
        guides=Guides(controls=(keyframes,)),
    )


@cache
def own_bench(weights: Path) -> Bench:
    return Bench(weights, None)


def applied(weights: Path, case: Case) -> torch.Tensor:
    bench = own_bench(weights)
    is_rgb = case.network == "rgb"
    shown = torch.zeros(len(case.pictures), 8 * SIZE, 8 * SIZE, 3) if is_rgb else case.pictures
    control = bench(
        "ADV2V_Keyframes",
        sparsectrl=f"{case.network}.safetensors",
        images=shown,
        frames=case.frames,
        strength=case.strength,
        start=case.start,
        end=case.end,
        mask=case.mask,
    )[0]
    if is_rgb:
        link = replace(control.links[0], latents=case.pictures)
        control = replace(control, links=(link,))

    def apply(bench: Bench, graph: Graph, model: Any) -> Any:
        optional = {}
        if graph.window:
            options = {"stride": 1, "closed_loop": False, **graph.window}
            optional["context_options"] = bench("ADV2V_ContextOptions", **options)[0]
        motion = bench.motion(graph)
        return bench(
            "ADV2V_ApplyMotion", model=model, motion_module=motion, control=control, **optional
        )[0]

    def prompts(_bench: Bench, _graph: Graph) -> tuple[Any, Any]:
        positive, negative = ([[each, {}]] for each in draw(2, 1, 77, TEXT_CHANNELS, seed=2))
        return positive, negative

    graph = Graph(
        frames=case.count,
        window=WINDOW if case.window else {},
        prompts=prompts,
        steps=STEPS,
        cfg=SCALE,
        denoise=case.denoise,
    )
    with torch.inference_mode():
        return bench.run(graph, apply)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("draw", "expect", "compare", "apply"))
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model files")
    parser.add_argument("--packs", type=Path, help="folder of the packs")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="names of the cases")
    arguments = parser.parse_args()
    weights = arguments.weights.resolve()
    if arguments.step == "draw":
        draw_files(weights)
    elif arguments.step == "expect":
        expect(weights, arguments.packs.resolve(), arguments.only)
    else:
        run = applied if arguments.step == "apply" else ours
        return int(compare(weights, arguments.only, run) > LIMIT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
