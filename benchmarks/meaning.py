"""Measure on the miniature whether the pipeline restyles videos as intended.

Usage: python benchmarks/meaning.py [--clips N] [--first N] [--only ROW ...]

Restyles clips that the miniature was never trained on and prints a line for each measure: its name,
its value and its limit. Exits 1 if a value misses its limit. Clips and seeds are always the same;
--first takes others of the same kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.curve import Curve, Strength
from animatediff_v2v.pipeline.files import LoraEntry
from animatediff_v2v.pipeline.models import Models, load_models, load_sparsectrl_network
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.ip_adapter import load_ip_adapter_network
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Guides,
    Keyframes,
    SamplingSettings,
    StyleImages,
    sample_latents,
)
from animatediff_v2v.pipeline.video import ControlFrameOptions
from torch import Tensor

DEMO = Path(__file__).parents[1] / "demo"
MODELS = DEMO / "models"
CANNY = MODELS / "controlnet" / "miniature_canny.safetensors"
SPARSECTRL = MODELS / "controlnet" / "miniature_sparsectrl.safetensors"
VISION_MODEL = MODELS / "clip_vision" / "miniature_vision.safetensors"
IP_ADAPTER = MODELS / "ipadapter" / "miniature_style.safetensors"
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}
sys.path.insert(0, str(DEMO))

from training import measures  # noqa: E402
from training.measures import Frames, Seen  # noqa: E402
from training.networks import read_vision_model  # noqa: E402
from training.scenes import (  # noqa: E402
    FRAMES,
    SIZE,
    Scene,
    caption,
    draw,
    frame_times,
    random_scene,
)
from training.vision import looked_at  # noqa: E402

CLIPS = 32
HELD_OUT_SEED = 20_000  # no training example is drawn from it
DENOISE = 0.5  # what the demo uses
STEPS = 8
SCHEDULER = "karras"  # takes most of its steps at low noise levels, which form the outlines
LONG_FRAMES = 48
QUARTER = FRAMES // 4
DENOISE_SWEEP = (0.2, 0.4, 0.6, 0.8, 1.0)
USUAL = Guidance(scale=5.0)  # as in the demo, like the number of steps and their scheduler
GUIDED = Guidance(scale=7.0)
UNGUIDED = Guidance(scale=1.0)
# As the template of keyframes sets the miniature.
KEYFRAMED = {"denoise": 1.0, "guidance": UNGUIDED, "prompt": "", "sampler": "lcm"}


@dataclass(frozen=True)
class Clip:
    """A clip that the miniature was never trained on, and the scene to turn it into."""

    scene: Scene
    wanted: Scene
    index: int
    length: int = FRAMES

    @property
    def prompt(self) -> str:
        return caption(self.wanted)

    @cached_property
    def frames(self) -> Frames:
        return np.stack([draw(self.scene, time) for time in frame_times(self.length)])

    @cached_property
    def latents(self) -> Tensor:
        return miniature().codec.encode(torch.from_numpy(self.frames))

    @cached_property
    def seen(self) -> list[Seen]:
        return [measures.look(frame) for frame in self.frames]

    def long(self) -> Clip:
        """The same scene in slow motion."""
        return replace(self, length=LONG_FRAMES)

    @cached_property
    def restyled(self) -> Frames:
        """The clip as the demo would restyle it, which most rows measure."""
        return restyled(self)

    @cached_property
    def restyled_seen(self) -> list[Seen]:
        return [measures.look(frame) for frame in self.restyled]

    def score(self, frames: Frames) -> float:
        """Return how well the colours of frames match those of the prompt, 0 to 1."""
        seen = [measures.look(frame) for frame in frames]
        wanted = self.wanted
        return measures.prompt_score(seen, colour=wanted.colour, background=wanted.background)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    value: str
    bound: str
    holds: bool


def held_out_clips(count: int, *, first: int = 0) -> list[Clip]:
    """Return scenes without a style, each with the other colours that it is to get."""
    clips = []
    for index in range(first, first + count):
        rng = np.random.default_rng((HELD_OUT_SEED, index))
        scene = replace(random_scene(rng), style=None)
        wanted = scene
        while {wanted.colour, wanted.background} & {scene.colour, scene.background}:
            wanted = replace(scene.recoloured(rng), style=None)
        clips.append(Clip(scene, wanted, index))
    return clips


@lru_cache(maxsize=4)
def miniature(lora: str | None = None, strength: Strength = 1.0, motion: bool = True) -> Models:
    """Load the miniature, with a LoRA or without its motion module."""
    path = MODELS / "loras" / f"miniature_{lora}.safetensors"
    entry = LoraEntry(path, strength, 0.0 if isinstance(strength, Curve) else strength)
    module = MODELS / "animatediff_models" / "miniature_motion.safetensors"
    return load_models(
        MODELS / "checkpoints" / "miniature.safetensors",
        motion_module=module if motion else None,
        loras=[entry] if lora else [],
        **PLACE,
    )


def restyled(
    clip: Clip,
    models: Models | None = None,
    *,
    prompt: str | None = None,
    negative_prompt: str = "",
    latents: Tensor | None = None,
    controls: Sequence[Control | Keyframes] = (),
    styles: Sequence[StyleImages] = (),
    **settings: object,
) -> Frames:
    """Restyle a clip; return float32 [frames, height, width, 3], 0 to 1."""
    models = models or miniature()
    usual = {"denoise": DENOISE, "steps": STEPS, "guidance": USUAL, "scheduler": SCHEDULER}
    chosen = usual | settings
    encode = models.text_encoder.encode
    sampled = sample_latents(
        models.unet,
        clip.latents if latents is None else latents,
        Conditioning.of(encode(clip.prompt if prompt is None else prompt), encode(negative_prompt)),
        SamplingSettings(seed=1000 + clip.index, **chosen),
        guides=Guides(controls=controls, styles=styles),
    )
    return decoded(models, sampled)


def decoded(models: Models, latents: Tensor) -> Frames:
    """Decode a clip."""
    return torch.cat(list(models.codec.decode(latents))).cpu().numpy()


def prompt_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that object and background get the colours that the prompt names."""
    for what, wanted in (("object", "colour"), ("background", "background")):
        share = np.mean(
            [colour_of(c.restyled_seen, what) == getattr(c.wanted, wanted) for c in clips]
        )
        yield _at_least(f"{what} has the prompt's colour", share, 0.9, "{:.0%} of clips")


def colour_of(seen: Sequence[Seen], what: str) -> str:
    """Return the name of the colour of the object or the background."""
    found = [getattr(frame, f"{what}_colour") for frame in seen]
    return measures.colour_name(np.median(found, axis=0))


def structure_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that the object keeps its path and its shape."""
    paths = [measures.path_correlation(clip.seen, clip.restyled_seen) for clip in clips]
    yield _at_least("object's path like the source's", np.median(paths), 0.9, "median {:.3f}")
    shapes = [measures.shape_name(clip.restyled_seen) == clip.scene.shape for clip in clips]
    yield _at_least("shape still told right", np.mean(shapes), 0.8, "{:.0%} of clips")


def motion_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that the motion module reduces flicker."""
    yield _at_most("flicker with motion module / without", flicker_share(clips), 0.6)


def flicker_share(clips: Sequence[Clip]) -> float:
    """Return the flicker with the motion module divided by the flicker without it."""
    still = miniature(motion=False)
    # The same noise schedule on both sides, so that the module is the only difference.
    without = [restyled(clip, still, beta_schedule="sqrt_linear") for clip in clips]
    flicker = [measures.flicker(clip.restyled, clip.scene).mean() for clip in clips]
    alone = [measures.flicker(f, c.scene).mean() for f, c in zip(without, clips, strict=True)]
    return float(np.mean(flicker) / np.mean(alone))


def guidance_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that guidance leads towards the prompt and away from the negative prompt."""
    guided = np.mean([clip.score(restyled(clip, guidance=GUIDED)) for clip in clips])
    free = np.mean([clip.score(restyled(clip, guidance=UNGUIDED)) for clip in clips])
    yield Row(
        "prompt score, guidance 7 against 1", f"{guided:.3f} / {free:.3f}", "higher", guided > free
    )
    plain = [_redness(clip, "") for clip in clips]
    against = [_redness(clip, "red") for clip in clips]
    before, after = np.mean(plain), np.mean(against)
    yield Row(
        'redness, negative prompt "red" against none',
        f"{after:+.3f} / {before:+.3f}",
        "lower",
        after < before,
    )


def _redness(clip: Clip, negative: str) -> float:
    shape = f"a {clip.scene.shape}"
    return measures.redness(restyled(clip, prompt=shape, negative_prompt=negative))


def style_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that the style LoRA does more at a higher strength, and nothing at strength 0."""
    energies = [np.mean([measures.edge_energy(clip.restyled) for clip in clips])]
    for strength in (0.5, 1.0):
        models = miniature("outlined", strength)
        energies.append(np.mean([measures.edge_energy(restyled(c, models)) for c in clips]))
    values = " < ".join(f"{energy:.4f}" for energy in energies)
    rises = bool(np.all(np.diff(energies) > 0))
    yield Row("edge energy, style LoRA at 0, 0.5, 1", values, "rises", rises)
    same = np.array_equal(restyled(clips[0], miniature("outlined", 0.0)), clips[0].restyled)
    yield Row("style LoRA at 0 against none", "equal" if same else "differs", "bit-equal", same)


def few_steps_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that 4 steps with the distilled LoRA match 25 steps without it."""
    quick = miniature("few_steps")
    few = {"steps": 4, "guidance": UNGUIDED, "sampler": "lcm", "scheduler": "sgm_uniform"}
    fast = np.mean([clip.score(restyled(clip, quick, **few)) for clip in clips])
    slow = np.mean([clip.score(restyled(clip, steps=25, guidance=GUIDED)) for clip in clips])
    name = "prompt score, 4 steps without guidance / 25 with"
    yield _at_least(name, fast / slow, 0.9)


def control_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that the canny ControlNet alone keeps the structure, at denoise 1."""
    network = load_control_network(CANNY, **PLACE)
    for what, bound, strength in (("without", 0.5, 0.0), ("with", 0.9, 1.0)):
        paths = []
        for clip in clips:
            control = Control(network=network, frames=_outlines(clip), strength=strength)
            seen = [measures.look(f) for f in restyled(clip, denoise=1.0, controls=[control])]
            paths.append(measures.path_correlation(clip.seen, seen))
        row = _at_least if strength else _at_most
        yield row(f"path at denoise 1, {what} canny ControlNet", float(np.median(paths)), bound)


def _outlines(clip: Clip) -> Tensor:
    options = ControlFrameOptions(preprocessor="canny")
    frames = (clip.frames * 255).round().astype(np.uint8)
    return torch.from_numpy(np.stack([options.of(frame) for frame in frames]))


def keyframes_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that all frames take the colours of the repainted first one, and the source's path.

    The outlines come from the source, at denoise 1; the prompt names no colours.
    """
    canny = load_control_network(CANNY, **PLACE)
    sparsectrl = load_sparsectrl_network(SPARSECTRL, **PLACE)
    right, paths = [], []
    for clip in clips:
        repainted = torch.from_numpy(draw(clip.wanted, 0.0)[None])
        keyframe = Keyframes(network=sparsectrl, pictures=repainted)
        latents = keyframe.encoded(miniature().codec, SIZE, SIZE)
        controls = [Control(network=canny, frames=_outlines(clip)), latents]
        seen = [measures.look(f) for f in restyled(clip, **KEYFRAMED, controls=controls)]
        right += [_has_colours(each, clip.wanted) for each in seen]
        paths.append(measures.path_correlation(clip.seen, seen))
    yield _at_least("keyframe's colours, at denoise 1", np.mean(right), 0.95, "{:.1%} of frames")
    yield _at_least("path with a keyframe like the source's", np.median(paths), 0.95, "{:.3f}")


def _has_colours(seen: Seen, scene: Scene) -> bool:
    found = [measures.colour_name(each) for each in (seen.object_colour, seen.background_colour)]
    return found == [scene.colour, scene.background]


def style_image_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that a style picture sets the colours that the prompt leaves open."""
    vision, adapter = read_vision_model(VISION_MODEL), load_ip_adapter_network(IP_ADAPTER, **PLACE)
    found = []
    for clip in clips:
        with torch.no_grad():
            embeddings = looked_at(vision, [_look_alike(clip)])
        style = StyleImages(
            adapter=adapter, embeddings=embeddings, empty=torch.zeros_like(embeddings)
        )
        seen = [measures.look(frame) for frame in restyled(clip, prompt="", styles=[style])]
        found.append({what: colour_of(seen, what) for what in ("object", "background")})
    for what, wanted in (("object", "colour"), ("background", "background")):
        pairs = zip(found, clips, strict=True)
        share = np.mean([seen[what] == getattr(clip.wanted, wanted) for seen, clip in pairs])
        yield _at_least(f"{what} has the style image's colour", share, 0.9, "{:.0%} of clips")


def _look_alike(clip: Clip) -> Frames:
    """Return a picture of another object at another position, in the wanted colours."""
    rng = np.random.default_rng((HELD_OUT_SEED, clip.index, 1))
    colours = {"colour": clip.wanted.colour, "background": clip.wanted.background}
    return draw(replace(random_scene(rng), **colours, style=None), 0.5)


def windows_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that the seams between context windows do not show in a long video."""
    context = ContextOptions(length=FRAMES, overlap=4)
    seams, elsewhere = [], []
    for clip in (clip.long() for clip in clips):
        changes = measures.flicker(restyled(clip, context=context), clip.scene)
        at_seam = np.zeros(len(changes), bool)
        for start in (*range(0, LONG_FRAMES - FRAMES, FRAMES - 4), LONG_FRAMES - FRAMES):
            for edge in (start - 1, start + FRAMES - 1):
                if 0 <= edge < len(changes):
                    at_seam[edge] = True
        seams.append(changes[at_seam].mean())
        elsewhere.append(changes[~at_seam].mean())
    share = np.mean(seams) / np.mean(elsewhere)
    yield _at_most("flicker where windows meet / elsewhere, 48 frames", share, 1.3)


def codec_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that decoding returns the frames that were encoded."""
    values = [measures.psnr(decoded(miniature(), clip.latents), clip.frames) for clip in clips]
    yield _at_least("VAE reconstruction", np.mean(values), 28, "{:.1f} dB")


def denoise_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that a higher denoise leads further from the source.

    The prompt describes the source itself. One that changes the colours would, at a low denoise,
    leave mixtures of colours in which the object cannot be found.
    """
    far, alike = [], []
    for denoise in DENOISE_SWEEP:
        results = [restyled(c, prompt=caption(c.scene), denoise=denoise) for c in clips]
        far.append(
            np.mean([np.abs(r - c.frames).mean() for r, c in zip(results, clips, strict=True)])
        )
        seen = [[measures.look(frame) for frame in result] for result in results]
        paths = [measures.path_correlation(c.seen, s) for c, s in zip(clips, seen, strict=True)]
        alike.append(np.mean(paths))
    for name, values, sign, bound in (
        ("distance to source", far, 1, "grows"),
        ("path like the source's", alike, -1, "falls"),
    ):
        holds = bool(np.all(np.diff(values) * sign > 0))
        yield Row(f"{name}, denoise 0.2 to 1", " ".join(f"{v:.3f}" for v in values), bound, holds)


@dataclass(frozen=True)
class Curved:
    """What curves along a clip did to each of its frames."""

    added: Frames
    """Edge energy by a style LoRA that rises from 0 to 1; `of_full` by the same LoRA at 1."""
    of_full: Frames
    far: Frames
    """Mean distance to the source, with a denoise of 0 in the first quarter that then rises."""
    held: float
    """The largest distance of a value to the source where denoise is 0."""
    seen: list[Seen]
    """The last quarter, where denoise is as usual."""


def curved(clip: Clip) -> Curved:
    """Restyle a clip with a style LoRA and with a denoise that rise along it."""
    rising = Curve(f"0: 0, {FRAMES - 1}: 1")
    held = Curve(f"0: 0, {QUARTER - 1}: 0, {FRAMES - QUARTER}: {DENOISE}")
    plain = _energies(clip.restyled)
    added, of_full = (
        _energies(restyled(clip, miniature("outlined", strength))) - plain
        for strength in (rising, 1.0)
    )
    frames = restyled(clip, denoise=held)
    off = np.abs(frames - decoded(miniature(), clip.latents))
    seen = [measures.look(frame) for frame in frames[-QUARTER:]]
    return Curved(added, of_full, off.mean((1, 2, 3)), float(off[:QUARTER].max()), seen)


def curves_row(clips: Sequence[Clip]) -> Iterator[Row]:
    """Check that a clip begins as the first number of a curve makes it, and ends as the last does.

    The edge energy in the first and the last quarter is compared with that of a strength of 1 in
    the whole clip.
    """
    found = [curved(clip) for clip in clips]
    yield _rises("edge energy added, LoRA 0 to 1 along a clip", [each.added for each in found])
    for what, part, row, bound in (
        ("first", slice(QUARTER), _at_most, 0.25),
        ("last", slice(-QUARTER, None), _at_least, 0.75),
    ):
        full = sum(each.of_full[part].sum() for each in found)
        share = sum(each.added[part].sum() for each in found) / full
        yield row(f"share of the style in the {what} quarter", share, bound)
    yield _rises("distance to source, denoise 0 to 0.5", [each.far for each in found])
    held = max(each.held for each in found)
    name = "largest distance to source where denoise is 0"
    yield Row(name, f"{held:.4f}", "at most 0.001", held <= 0.001)
    for what, wanted in (("object", "colour"), ("background", "background")):
        pairs = zip(found, clips, strict=True)
        share = np.mean([colour_of(f.seen, what) == getattr(c.wanted, wanted) for f, c in pairs])
        name = f"{what} has the prompt's colour in the last quarter"
        yield _at_least(name, share, 0.9, "{:.0%} of clips")


def _energies(frames: Frames) -> Frames:
    return np.array([measures.edge_energy(frame[None]) for frame in frames])


def _rises(name: str, of_frames: Sequence[Sequence[float]]) -> Row:
    """Check that the mean over clips of a measure of frames rises from quarter to quarter."""
    quarters = np.mean(of_frames, axis=0).reshape(4, -1).mean(axis=1)
    values = " ".join(f"{value:.4f}" for value in quarters)
    return Row(name, values, "rises", bool(np.all(np.diff(quarters) > 0)))


ROWS: dict[str, Callable[[Sequence[Clip]], Iterator[Row]]] = {
    "codec": codec_row,
    "prompt": prompt_row,
    "structure": structure_row,
    "motion": motion_row,
    "guidance": guidance_row,
    "style": style_row,
    "control": control_row,
    "keyframes": keyframes_row,
    "style-image": style_image_row,
    "few-steps": few_steps_row,
    "denoise": denoise_row,
    "curves": curves_row,
    "windows": windows_row,
}


def _at_least(name: str, value: float, bound: float, form: str = "{:.2f}") -> Row:
    return Row(name, form.format(value), f"at least {bound:g}", bool(value >= bound))


def _at_most(name: str, value: float, bound: float) -> Row:
    return Row(name, f"{value:.2f}", f"at most {bound:g}", bool(value <= bound))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW")
    arguments = parser.parse_args()
    clips = held_out_clips(arguments.clips, first=arguments.first)
    print(f"{len(clips)} clips of {FRAMES} frames, denoise {DENOISE:g}, {STEPS} steps")
    holds = True
    for name in arguments.only:
        for row in ROWS[name](clips):
            mark = "" if row.holds else "   FALLS SHORT"
            print(f"{row.name:<52} {row.value:<32} {row.bound}{mark}", flush=True)
            holds &= row.holds
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
