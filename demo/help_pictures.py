"""Draw the pictures of the help pages: the demo's video, and the result of each node.

Usage: python demo/help_pictures.py [NAME ...]   (all of them if no name is given)

Everything is made with the miniature.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.demo.widening import widened_checkpoint, widened_motion_module
from animatediff_v2v.pipeline import FrameSelection
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.files import LoraEntry, load_checkpoint
from animatediff_v2v.pipeline.frame_job import as_bytes
from animatediff_v2v.pipeline.models import (
    Models,
    TextEncoder,
    load_models,
    load_sparsectrl_network,
)
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.ip_adapter import load_ip_adapter_network
from animatediff_v2v.pipeline.prompts.schedule import encode_schedule
from animatediff_v2v.pipeline.restore import stream
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    FreeInit,
    Guidance,
    Guides,
    Keyframes,
    SamplingSettings,
    SourceBlend,
    SpeedOptions,
    StyleImages,
    sample_latents,
)
from animatediff_v2v.pipeline.source_colours import SourceColours
from animatediff_v2v.pipeline.video import ControlFrameOptions, VideoReader, VideoWriter
from animatediff_v2v.pipeline.video.source_frame import SourceFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from run import CLIP, GREEN, MODELS, YELLOW
from safetensors.torch import load_file, save_file
from source_clip import repainted_frame
from torch import Tensor
from training.networks import read_vision_model
from training.scenes import draw, random_scene
from training.vision import looked_at

PICTURES = Path(__file__).parents[1] / "web" / "docs" / "pictures"
CHECKPOINT = MODELS / "checkpoints" / "miniature.safetensors"
MOTION_MODULE = MODELS / "animatediff_models" / "miniature_motion.safetensors"
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
# The help panel of ComfyUI is 270 pixels wide; twice that, for screens with small pixels.
COLUMNS, SIDE, GAP, LINE, TEXT_SIZE = 3, 176, 4, 32, 26
GROUND, INK = "#1d2430", "#f2f4f8"

Frames = NDArray[np.uint8]
"""[frames, height, width, 3]."""
Rows = Mapping[str, Frames]
"""Videos by their captions."""


def video(**selection: float) -> Frames:
    """Return the demo's video, or a selection of its frames."""
    with VideoReader(CLIP, selection=FrameSelection(**selection)) as reader:
        return np.stack(list(reader))


@cache
def source() -> Frames:
    """Return the 16 frames that are restyled."""
    return video(select_every_nth_frame=2, frame_load_cap=16)


@cache
def models(lora: float = 0.0, motion: bool = True) -> Models:
    """Load the miniature, with its style LoRA or without its motion module."""
    path = MODELS / "loras" / "miniature_outlined.safetensors"
    return load_models(
        CHECKPOINT,
        motion_module=MOTION_MODULE if motion else None,
        loras=[LoraEntry(path, model_strength=lora, clip_strength=lora)] if lora else [],
        **PLACE,
    )


def encoded_prompts(text_encoder: TextEncoder, prompt: str) -> Conditioning:
    """Encode a prompt and an empty negative prompt."""
    return Conditioning.of(text_encoder.encode(prompt), text_encoder.encode(""))


def restyled(
    prompt: str | Conditioning = GREEN,
    *,
    networks: Models | None = None,
    frames: Frames | None = None,
    controls: Sequence[Control | Keyframes] = (),
    styles: Sequence[StyleImages] = (),
    mask: Tensor | None = None,
    **settings: object,
) -> Frames:
    """Return the restyled video, with the demo's settings by default."""
    networks = networks or models()
    pixels = torch.from_numpy(source() if frames is None else frames) / 255
    if isinstance(prompt, str):
        prompt = encoded_prompts(networks.text_encoder, prompt)
    usual = SamplingSettings(
        seed=7, steps=8, guidance=Guidance(scale=5.0), scheduler="karras", denoise=0.5
    )
    latents = sample_latents(
        networks.unet,
        networks.codec.encode(pixels),
        prompt,
        replace(usual, **settings),
        guides=Guides(controls=controls, styles=styles, source_blend=SourceBlend(mask=mask)),
    )
    made = torch.cat(list(networks.codec.decode(latents))).cpu()
    return (made * 255).round().to(torch.uint8).numpy()


def load_video() -> Rows:
    return {
        f"select_every_nth_frame {nth}": video(select_every_nth_frame=nth, frame_load_cap=COLUMNS)
        for nth in (1, 4, 8)
    }


def select_frames() -> Rows:
    few = {"select_every_nth_frame": 4, "frame_load_cap": COLUMNS}
    return {
        "every 4th frame": video(**few),
        "skip_first_frames 12": video(skip_first_frames=12, **few),
        "start_time 1.5": video(start_time_seconds=1.5, **few),
    }


def load_model() -> Rows:
    return {
        "the source": source(),
        "without a motion module": restyled(networks=models(motion=False)),
        "with a motion module": restyled(),
    }


def lora_stack() -> Rows:
    return {
        f"LoRA strength {strength:g}": restyled(YELLOW, networks=models(strength))
        for strength in (0.0, 0.5, 1.0)
    }


def model_from_comfy() -> Rows:
    """Restyle with the checkpoint as ComfyUI's own loader reads it, without a ComfyUI."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, motion = (
            Path(folder, "checkpoint.safetensors"),
            Path(folder, "motion.safetensors"),
        )
        save_file(widened_checkpoint(load_checkpoint(CHECKPOINT)), checkpoint)
        save_file(widened_motion_module(load_file(MOTION_MODULE)), motion)
        native = load_models(checkpoint, motion_module=motion, **PLACE)
        made = restyled(networks=native)
    return {"the source": source(), "restyled, ComfyUI's own MODEL": made}


def sampler() -> Rows:
    rows = {f"denoise {denoise:g}": restyled(denoise=denoise) for denoise in (0.3, 0.5, 0.8)}
    return {"the source": source()} | rows


def context_options() -> Rows:
    frames = video()
    return {
        f"windows of {length}, overlap {overlap}": restyled(
            frames=frames, context=ContextOptions(length=length, overlap=overlap)
        )[14:17]
        for length, overlap in ((4, 0), (16, 4))
    }


def long_memory() -> Rows:
    """Restyle 48 frames, which is not among the pictures of the help pages."""
    context = ContextOptions(memory="ContextRef")
    return {"the source": video(), "restyled": restyled(frames=video(), context=context)}


def prompt_schedule() -> Rows:
    frames, shape = video(), "square on a blue background"
    prompts = {0: f"a red {shape}", 24: f"a yellow {shape}", 47: f"a green {shape}"}
    encoder = models().text_encoder
    negative = encoded_prompts(encoder, "").negative
    travelling = Conditioning(encode_schedule(prompts, encoder.encode), negative)
    context = ContextOptions(length=16, overlap=8)
    return {"0: red   24: yellow   47: green": restyled(travelling, frames=frames, context=context)}


def control_frames() -> Rows:
    makers = {
        name: ControlFrameOptions(preprocessor=name) for name in ("canny", "luminance", "tile")
    }
    rows = {name: np.stack([maker.of(f) for f in source()]) for name, maker in makers.items()}
    return {"the source": source()} | rows


def controlnet() -> Rows:
    return {
        "the source": source(),
        "denoise 1": restyled(denoise=1.0),
        "denoise 1, with a ControlNet": restyled(denoise=1.0, controls=[outlines()]),
    }


def outlines() -> Control:
    path = MODELS / "controlnet" / "miniature_canny.safetensors"
    edges = torch.from_numpy(control_frames()["canny"])
    return Control(network=load_control_network(path, **PLACE), frames=edges)


def keyframes() -> Rows:
    picture = repainted_frame()[np.newaxis]
    made = keyframed(picture)
    shown = np.concatenate([picture, moments(made)[1:]])
    return {"the source": source(), "a keyframe, and the result": shown}


def keyframed(picture: Frames) -> Frames:
    """Return the video in the colours of its repainted first frame, at denoise 1.

    Samplers that add no noise, such as euler, leave specks in some frames.
    """
    path = MODELS / "controlnet" / "miniature_sparsectrl.safetensors"
    keyframe = Keyframes(
        network=load_sparsectrl_network(path, **PLACE),
        pictures=torch.from_numpy(picture) / 255,
    )
    height, width = picture.shape[1:3]
    controls = [outlines(), keyframe.encoded(models().codec, width, height)]
    return restyled("", denoise=1.0, guidance=Guidance(scale=1.0), sampler="lcm", controls=controls)


def ip_adapter() -> Rows:
    rows = {"the source": source()}
    scene = replace(random_scene(np.random.default_rng(3)), style=None)
    for says, colour, background in (
        ("style image, and results", "yellow", "purple"),
        ("another one", "green", "red"),
    ):
        picture = draw(replace(scene, colour=colour, background=background), 0.5)
        made = restyled("", styles=[style_of(picture)])
        shown = np.concatenate([(picture[np.newaxis] * 255).astype(np.uint8), moments(made)[1:]])
        rows[says] = shown
    return rows


def style_of(picture: NDArray[np.float32]) -> StyleImages:
    vision = read_vision_model(MODELS / "clip_vision" / "miniature_vision.safetensors")
    with torch.no_grad():
        embeddings: Tensor = looked_at(vision, [picture])
    adapter = load_ip_adapter_network(MODELS / "ipadapter" / "miniature_style.safetensors", **PLACE)
    return StyleImages(adapter=adapter, embeddings=embeddings, empty=torch.zeros_like(embeddings))


def free_init() -> Rows:
    """Restyle at denoise 1, where nothing of the source holds the video together."""
    return {
        "one round": restyled(denoise=1.0),
        "two rounds": restyled(denoise=1.0, free_init=FreeInit()),
    }


def strength_curve() -> Rows:
    last = len(source()) - 1
    lora = MODELS / "loras" / "miniature_outlined.safetensors"
    outlined = load_models(
        CHECKPOINT,
        motion_module=MOTION_MODULE,
        loras=[LoraEntry(lora, Curve(f"0: 0, {last}: 1"), clip_strength=0.0)],
        **PLACE,
    )
    return {
        "the source": source(),
        "denoise 0 to 0.7": restyled(denoise=Curve(f"0: 0, {last}: 0.7"), steps=20),
        "LoRA strength 0 to 1": restyled(YELLOW, networks=outlined),
    }


def speed() -> Rows:
    ways = {
        "exact": SpeedOptions(),
        "deep_cache_interval 3": SpeedOptions(deep_cache_interval=3),
        "guidance_end 0.8": SpeedOptions(guidance_end=0.8),
    }
    return {says: restyled(steps=20, speed=options) for says, options in ways.items()}


def match_source() -> Rows:
    red_light = torch.tensor([0.75, 0.55, 0.5])
    tinted = torch.from_numpy(restyled("a red square on a blue background")) / 255 * red_light
    colours = SourceColours(1.0)
    colours.add(torch.from_numpy(source()))
    videos = {"darkened and tinted": tinted, "strength 1": torch.cat([*colours.matched([tinted])])}
    return {"the source": source()} | {says: as_bytes(made) for says, made in videos.items()}


def restore_frames(count: int = COLUMNS) -> Rows:
    """Show neighbouring frames of the demo's video, of which the first and every third is kept."""
    every, nth = video(frame_load_cap=64), 3
    kept = restyled(frames=every[::nth])
    frames = [
        SourceFrame(Fraction(index), picture, int(index % nth == 0))
        for index, picture in enumerate(every)
    ]
    made = stream.restore_frames(frames, (torch.from_numpy(frame) / 255 for frame in kept))
    pictures = np.stack([as_bytes(frame.picture) for frame in made])
    shown = slice(2 * nth, 2 * nth + count)
    return {
        "the source": every[shown],
        "every 3rd frame restyled": np.repeat(kept, nth, axis=0)[shown],
        "all frames restored": pictures[shown],
    }


def encode_video() -> Rows:
    rows = {"frames": source()}
    with tempfile.TemporaryDirectory() as folder:
        for crf in (19, 51):
            path = Path(folder, f"{crf}.mp4")
            with VideoWriter(path, width=128, height=128, frame_rate=8, crf=crf) as writer:
                writer.write(source())
            with VideoReader(path) as reader:
                rows[f"mp4-h264, crf {crf}: {path.stat().st_size / 1000:.0f} kB"] = np.stack(
                    list(reader)
                )
    return rows


def video_to_video() -> Rows:
    return {
        "the source": source(),
        "a green square ...": restyled(),
        "a yellow square ...": restyled(YELLOW),
    }


def batch() -> Rows:
    """Restyle as the table of the miniature says."""
    with (Path(__file__).parent / "clips.csv").open(encoding="utf-8") as table:
        return {f"{row['output']}.mp4": restyled(row["prompt"]) for row in csv.DictReader(table)}


def apply_motion() -> Rows:
    """Restyle as KSampler does, without a ComfyUI: results are equal up to rounding."""
    return {
        "the clip": source(),
        "KSampler alone: each frame by itself": restyled(networks=models(motion=False)),
        "KSampler with Apply AnimateDiff": restyled(),
    }


MAKERS: dict[str, Callable[[], Rows]] = {
    maker.__name__: maker
    for maker in (
        load_video,
        select_frames,
        load_model,
        lora_stack,
        model_from_comfy,
        sampler,
        context_options,
        prompt_schedule,
        control_frames,
        controlnet,
        keyframes,
        ip_adapter,
        free_init,
        strength_curve,
        speed,
        match_source,
        restore_frames,
        encode_video,
        video_to_video,
        apply_motion,
        batch,
    )
}


def main() -> None:
    for name in sys.argv[1:] or MAKERS:
        path = PICTURES / f"{name}_miniature.jpg"
        sheet(MAKERS[name]()).save(path, quality=88, optimize=True)
        print(path)


def sheet(rows: Rows) -> Image.Image:
    """Draw the videos, one per row, below their captions."""
    width = COLUMNS * (SIDE + GAP) + GAP
    picture = Image.new("RGB", (width, len(rows) * (LINE + SIDE + GAP) + GAP), GROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT_SIZE)
    for row, (says, frames) in enumerate(rows.items()):
        y = GAP + row * (LINE + SIDE + GAP)
        assert pen.textlength(says, font=font) < width - 2 * GAP, says
        pen.text((GAP + 2, y - 1), says, font=font, fill=INK)
        for column, frame in enumerate(moments(frames)):
            small = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.paste(small, (GAP + column * (SIDE + GAP), y + LINE))
    return picture


def moments(frames: Frames) -> Frames:
    """Return as many frames as there are columns, evenly spread."""
    return frames[np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)]


if __name__ == "__main__":
    main()
