"""Run graphs of other packs in ComfyUI before and after their conversion, and compare.

Usage: python brought.py --server URL --folder BASE [--only NAME ...]

BASE is the base directory of a running ComfyUI with AnimateDiff-Evolved, Advanced-ControlNet,
IPAdapter_plus, VideoHelperSuite, FizzNodes and this pack. It holds the demo's clip and the files
named below: Stable Diffusion 1.5, motion modules, a ControlNet, a LoRA and an IP-Adapter, all with
drawn weights. Prints a line for each graph: the relative error of the latents, and frames, rate and
duration of the videos before and after. Exits 1 if a latent differs by more than 1e-3, or a video
in one of the three.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import torch
from animatediff_v2v.migrate import convert
from animatediff_v2v.pipeline.video import probe_video
from safetensors.torch import load_file

LIMIT = 1e-3
SIZE, STEPS = 64, 2
CHECKPOINT = "random_sd15.safetensors"
MOTION, MOTION_LCM = "mm_random_v3.safetensors", "mm_random_lcm.safetensors"
CONTROL, LORA = "control.safetensors", "lora.safetensors"
IP_ADAPTER, STYLE, NO_STYLE = "ip_adapter.safetensors", "style.ipadpt", "none.ipadpt"
CLIP = "miniature_clip.mp4"
Prompt = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampled(latent: list[Any], model: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    settings = {"seed": 5, "steps": STEPS, "cfg": 3.0, "sampler_name": "euler"}
    settings |= {"scheduler": "normal", "denoise": 1.0, "latent_image": latent}
    links = {
        "model": model or ["motion", 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
    }
    return node("KSampler", **settings | links | more)


def graph(*, frames: int = 4, rate: float = 8, **more: Any) -> Prompt:
    """Text to video; `more` replaces or adds nodes."""
    combine = {"frame_rate": rate, "loop_count": 0, "filename_prefix": "brought/a"}
    combine |= {"format": "video/h264-mp4", "pingpong": False, "save_output": True, "crf": 19}
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="a red square"),
        "negative": node("CLIPTextEncode", clip=["checkpoint", 1], text=""),
        "empty": node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=frames),
        "motion": loader(),
        "sampler": sampled(["empty", 0]),
        "latents": node("SaveLatent", samples=["sampler", 0], filename_prefix="brought/a"),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=["checkpoint", 2]),
        "video": node("VHS_VideoCombine", images=["decoded", 0], **combine),
    } | more


def loader(model: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    given = {"model": model or ["checkpoint", 0], "model_name": MOTION}
    return node("ADE_AnimateDiffLoaderGen1", **given | {"beta_schedule": "autoselect"} | more)


def second_generation(**more: Any) -> Prompt:
    return {
        "module": node("ADE_LoadAnimateDiffModel", model_name=MOTION),
        "applied": node("ADE_ApplyAnimateDiffModelSimple", motion_model=["module", 0], **more),
        "motion": node(
            "ADE_UseEvolvedSampling",
            model=["checkpoint", 0],
            m_models=["applied", 0],
            beta_schedule="autoselect",
        ),
    }


def read_video(**more: Any) -> Prompt:
    usual = {"video": CLIP, "force_rate": 0, "custom_width": SIZE, "custom_height": SIZE}
    usual |= {"frame_load_cap": 4, "skip_first_frames": 3, "select_every_nth": 2}
    return {"load": node("VHS_LoadVideo", **usual | {"format": "AnimateDiff"} | more)}


def from_video(denoise: float = 0.7, **more: Any) -> Prompt:
    return {
        **read_video(),
        "encoded": node("VAEEncode", pixels=["load", 0], vae=["checkpoint", 2]),
        "sampler": sampled(["encoded", 0], denoise=denoise),
    } | more


def combined(**more: Any) -> dict[str, Any]:
    video = graph()["video"]
    return node("VHS_VideoCombine", **video["inputs"] | more)


GRAPHS: dict[str, Prompt] = {
    "txt2vid": graph(),
    "vid2vid, second generation, sound": graph(
        **from_video(), **second_generation(), video=combined(audio=["load", 2], frame_rate=6)
    ),
    "ControlNet": graph(
        **read_video(),
        canny=node("Canny", image=["load", 0], low_threshold=0.2, high_threshold=0.6),
        net=node("ControlNetLoaderAdvanced", control_net_name=CONTROL),
        applied=node(
            "ACN_AdvancedControlNetApply",
            positive=["positive", 0],
            negative=["negative", 0],
            control_net=["net", 0],
            image=["canny", 0],
            strength=0.8,
            start_percent=0.0,
            end_percent=0.9,
        ),
        sampler=sampled(["empty", 0], positive=["applied", 0], negative=["applied", 1]),
    ),
    "LCM and LoRA": graph(
        lora=node(
            "LoraLoaderModelOnly", model=["checkpoint", 0], lora_name=LORA, strength_model=0.7
        ),
        motion=loader(["lora", 0], model_name=MOTION_LCM),
        lcm=node("ModelSamplingDiscrete", model=["motion", 0], sampling="lcm", zsnr=False),
        sampler=sampled(
            ["empty", 0], ["lcm", 0], sampler_name="lcm", scheduler="sgm_uniform", cfg=1.5
        ),
    ),
    "IP-Adapter": graph(
        adapter=node("IPAdapterModelLoader", ipadapter_file=IP_ADAPTER),
        style=node("IPAdapterLoadEmbeds", embeds=STYLE),
        none=node("IPAdapterLoadEmbeds", embeds=NO_STYLE),
        styled=node(
            "IPAdapterEmbeds",
            model=["checkpoint", 0],
            ipadapter=["adapter", 0],
            pos_embed=["style", 0],
            neg_embed=["none", 0],
            weight=0.8,
            weight_type="linear",
            start_at=0.0,
            end_at=1.0,
            embeds_scaling="V only",
        ),
        motion=loader(["styled", 0]),
    ),
    "long windows": graph(
        frames=10,
        context=node(
            "ADE_StandardUniformContextOptions",
            context_length=6,
            context_stride=1,
            context_overlap=2,
            fuse_method="pyramid",
        ),
        motion=loader(context_options=["context", 0]),
    ),
    "prompt travel": graph(
        positive=node(
            "BatchPromptSchedule",
            text='"0": "a red square", "3": "a blue circle"',
            clip=["checkpoint", 1],
            max_frames=4,
            print_output=False,
            pre_text="bright",
            app_text="",
            start_frame=0,
            end_frame=0,
            pw_a=0.0,
            pw_b=0.0,
            pw_c=0.0,
            pw_d=0.0,
        )
    ),
    "hires pass": graph(
        first=sampled(["empty", 0]),
        larger=node(
            "LatentUpscale",
            samples=["first", 0],
            upscale_method="nearest-exact",
            width=SIZE + 32,
            height=SIZE + 32,
            crop="disabled",
        ),
        sampler=sampled(["larger", 0], denoise=0.5),
    ),
    "masks": graph(
        **from_video(
            mask=node("SolidMask", value=0.5, width=SIZE, height=SIZE),
            masked=node("SetLatentNoiseMask", samples=["encoded", 0], mask=["mask", 0]),
            sampler=sampled(["masked", 0], denoise=0.8),
        )
    ),
    "looped windows, motion scale, ping-pong": graph(
        frames=8,
        scale=node("ADE_MultivalDynamic", float_val=1.2),
        context=node(
            "ADE_LoopedUniformContextOptions",
            context_length=6,
            context_stride=1,
            context_overlap=2,
            closed_loop=True,
            fuse_method="flat",
        ),
        **second_generation(scale_multival=["scale", 0]),
        video=combined(pingpong=True, loop_count=1),
    ),
    "batches split": graph(
        frames=6,
        split=node("VHS_SplitImages", images=["decoded", 0], split_index=2),
        video=combined(images=["split", 2], format="video/webm", frame_rate=12),
    ),
}
# The graph with the windows of the second generation.
GRAPHS["looped windows, motion scale, ping-pong"]["motion"]["inputs"]["context_options"] = [
    "context",
    0,
]


class Server:
    """A running ComfyUI."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address.rstrip("/"), folder

    def _ask(self, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(f"{self.address}{path}", body) as answer:
            return json.load(answer)

    def run(self, prompt: Prompt) -> tuple[torch.Tensor, Path]:
        """Run a graph and return its latents and its video."""
        number = self._ask("/prompt", {"prompt": prompt})["prompt_id"]
        while not (history := self._ask(f"/history/{number}")):
            time.sleep(0.2)
        entry = history[number]
        if entry["status"]["status_str"] != "success":
            raise SystemExit(json.dumps(entry["status"]["messages"][-1], indent=1)[:3000])
        outputs = entry["outputs"]
        (latent,) = outputs["latents"]["latents"]
        shown = next(v for k, v in outputs["video"].items() if k in ("gifs", "images"))[-1]
        video = self.folder / shown["type"] / shown["subfolder"] / shown["filename"]
        path = self.folder / "output" / latent["subfolder"] / latent["filename"]
        return load_file(path)["latent_tensor"], video


def described(path: Path) -> tuple[int, float, float]:
    info = probe_video(path)
    return info.frame_count or 0, float(info.frame_rate), round(info.duration_seconds, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(GRAPHS))
    arguments = parser.parse_args()
    server = Server(arguments.server, arguments.folder)
    failed = False
    for name in arguments.only:
        converted = convert(GRAPHS[name])
        assert converted.graph is not None, converted.report.reason
        assert not [k for k, v in converted.graph.items() if v["class_type"].startswith("ADE_")]
        before, theirs = server.run(GRAPHS[name])
        after, ours = server.run(converted.graph)
        error = float(torch.linalg.norm(after - before) / torch.linalg.norm(before))
        videos = described(theirs), described(ours)
        is_good = error <= LIMIT and videos[0] == videos[1]
        failed |= not is_good
        print(
            f"{name:<42} {error:.1e}  {videos[0]}  {videos[1]}  {'' if is_good else 'differs'}",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
