"""The command `animatediff-v2v`."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, get_args

from tqdm import tqdm

from .arguments import control_files, interval, lora_entry
from .demo import install_models
from .errors import AnimateDiffV2VError
from .files import FileReport, identify
from .presets import preset_defaults
from .progress import Progress
from .ranges import DRAWN_SEED
from .request import NEGATIVE_PROMPT, Dtype, ModelFiles, Request, SamplingSettings
from .sampling import ContextOptions, Guidance, Sampler, Scheduler, SpeedOptions
from .video import FrameSelection
from .video_to_video import video_to_video

EXIT_UNUSABLE = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def main(
    arguments: Sequence[str] | None = None,
    *,
    add_commands: Callable[[Any], None] = lambda _commands: None,
) -> int:
    """Run the command; returns its exit code.

    add_commands: adds commands of other parts of the pack to argparse's subparsers.

    0 when done, 2 for wrong input with one sentence on stderr, 130 when interrupted; 1 when a file
    that was inspected cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        parsed = _parser(add_commands).parse_args(arguments)
        return int(parsed.command(parsed))
    except AnimateDiffV2VError as error:
        print(f"animatediff-v2v: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        print("animatediff-v2v: interrupted, nothing was written.", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Words a wrong option as this pack words its errors, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise AnimateDiffV2VError(f"{message} (see {self.prog} --help)")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, and nothing of options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def _parser(add_commands: Callable[[Any], None]) -> argparse.ArgumentParser:
    parser = _Parser(prog="animatediff-v2v", description="AnimateDiff video-to-video.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    inspect = commands.add_parser(
        "inspect",
        help="tell what model files are",
        description="Tell what each FILE is, which model and LoRA family it belongs to, and "
        "whether and as what it can be used. Exit code 0 when all can be used, 1 otherwise.",
    )
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("files", type=Path, nargs="+", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print a list of objects")
    demo = commands.add_parser(
        "demo",
        help="put the miniature model into a ComfyUI",
        description="Copy the miniature's model files and its clip (miniature_clip.mp4) into a "
        "ComfyUI, so that the templates run without a download.",
    )
    demo.set_defaults(command=_demo)
    demo.add_argument(
        "--install-models",
        type=Path,
        required=True,
        metavar="COMFYUI_DIR",
        help="the folder that holds ComfyUI's models and input folders",
    )
    demo.add_argument(
        "--native",
        action="store_true",
        help="also write what the templates Native nodes and Style Image need: the miniature at "
        "the sizes that ComfyUI's own loaders know, 2 GB",
    )
    demo.add_argument(
        "--overwrite", action="store_true", help="replace files of the same names and other content"
    )
    add_commands(commands)
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="restyle a video",
        formatter_class=_Help,
        description="Restyle INPUT after a prompt and write OUTPUT.",
    )
    run.set_defaults(command=_run)
    run.add_argument("input", type=Path, metavar="INPUT", help="the video to restyle")
    run.add_argument("output", type=Path, metavar="OUTPUT", help="the mp4 to write")
    run.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    run.add_argument(
        "--overwrite", action="store_true", help="replace OUTPUT if there is a file of that name"
    )
    _add_model_files(run.add_argument_group("model files"))
    _add_picture(run.add_argument_group("picture"))
    _add_frames(run.add_argument_group("frames"))
    _add_speed(run.add_argument_group("speed and memory, at some cost"))


def _add_model_files(files: argparse._ArgumentGroup) -> None:
    files.add_argument(
        "--checkpoint", type=Path, required=True, help="Stable Diffusion 1.5 checkpoint"
    )
    files.add_argument("--motion-module", type=Path, required=True, help="AnimateDiff module")
    files.add_argument("--vae", type=Path, help="VAE in place of the checkpoint's own")
    files.add_argument(
        "--text-encoder", type=Path, help="text encoder in place of the checkpoint's own"
    )
    files.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="LoRA to merge, scale 1 unless given; repeat for several",
    )
    files.add_argument(
        "--motion-lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="motion LoRA to merge into the motion module; repeat for several",
    )
    files.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH[:START[:END]]]",
        help="ControlNet that holds the structure, strength 1 unless given, acting between two "
        "shares of the schedule; repeat for several",
    )
    files.add_argument(
        "--control-source",
        action="append",
        default=[],
        metavar="VIDEO|canny|luminance|tile",
        help="what the ControlNet sees: canny unless given, a preprocessor's name or a video of "
        "control frames; one for all, or one for each --control in their order",
    )
    files.add_argument("--embeddings", type=Path, metavar="FOLDER", help="for embedding:name")
    files.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu")
    files.add_argument("--dtype", default="auto", help=", ".join(get_args(Dtype)))
    files.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help="the most of the device's memory that weights and tensors may take, in 10^9 bytes; no "
        "bound unless given: networks wait in main memory while others work, and less goes "
        "through them at a time; what the driver and the kernels' workspaces take comes on top; "
        "on a CPU, whose main memory is the device's, nothing moves, all networks count, and only "
        "what goes through the UNet at a time gets less; the result stays the same, on a GPU but "
        "for rounding",
    )


def _add_picture(picture: argparse._ArgumentGroup) -> None:
    picture.add_argument("--prompt", required=True, help="what the clip shall show")
    picture.add_argument("--negative-prompt", default=NEGATIVE_PROMPT, help="what it shall not")
    picture.add_argument(
        "--preset",
        default="quality",
        help="defaults for steps, guidance, sampler and scheduler: "
        "quality (25, 7, euler, normal), turbo (8, 2.2, lcm, sgm_uniform; AnimateLCM or an LCM "
        "LoRA), lightning (4, 1, euler, sgm_uniform; AnimateDiff-Lightning)",
    )
    picture.add_argument("--steps", type=int, help="denoising steps")
    picture.add_argument("--guidance-scale", type=float, help="how strictly the prompt is followed")
    picture.add_argument(
        "--denoise", type=float, default=0.7, help="how much is made new, from 0 to 1"
    )
    picture.add_argument("--seed", type=int, help="up to 2^64-1; random if absent")
    picture.add_argument("--sampler", help=", ".join(get_args(Sampler)))
    picture.add_argument("--scheduler", help=", ".join(get_args(Scheduler)))


def _add_frames(frames: argparse._ArgumentGroup) -> None:
    frames.add_argument(
        "--select-every-nth-frame", type=int, default=2, help="keep every nth frame"
    )
    frames.add_argument(
        "--frame-load-cap", type=int, default=0, help="the most frames to keep, 0 for all"
    )
    frames.add_argument("--width", type=int, default=0, help="pixels, 0 keeps the source's")
    frames.add_argument("--height", type=int, default=0, help="pixels, 0 keeps the source's")
    frames.add_argument(
        "--context-length", type=int, default=16, help="frames that the UNet sees at once"
    )
    frames.add_argument(
        "--context-overlap", type=int, default=4, help="frames that neighbouring windows share"
    )


def _add_speed(speed: argparse._ArgumentGroup) -> None:
    speed.add_argument(
        "--deep-cache",
        type=int,
        default=1,
        metavar="N",
        help="run the UNet's deep layers in every Nth call only; 2 or 3 suit 20 steps and more",
    )
    speed.add_argument(
        "--guidance-interval",
        default="0:1",
        metavar="START:END",
        help="shares of the noise schedule between which guidance acts; outside a step takes half "
        "the time",
    )
    speed.add_argument(
        "--fp8-weights",
        action="store_true",
        help="store the UNet's weights in 8 bits: half the memory of float16",
    )
    speed.add_argument(
        "--compile",
        action="store_true",
        help="compile the UNet's layers, which takes minutes and is kept on disk; the result stays "
        "equal to rounding. For GPUs of AMD and Intel, where it was not measured; slower on "
        "NVIDIA's with Triton and on a CPU; not together with --max-memory",
    )


def _run(parsed: argparse.Namespace) -> int:
    request = Request(
        input=parsed.input,
        output=parsed.output,
        prompt=parsed.prompt,
        negative_prompt=parsed.negative_prompt,
        sampling=_sampling(parsed),
        selection=FrameSelection(
            select_every_nth_frame=parsed.select_every_nth_frame,
            frame_load_cap=parsed.frame_load_cap,
        ),
        width=parsed.width,
        height=parsed.height,
        controls=control_files(parsed.control, parsed.control_source),
        overwrite=parsed.overwrite,
    )
    files = ModelFiles(
        checkpoint=parsed.checkpoint,
        motion_module=parsed.motion_module,
        vae=parsed.vae,
        text_encoder=parsed.text_encoder,
        motion_loras=tuple(lora_entry(text) for text in parsed.motion_lora),
        loras=tuple(lora_entry(text) for text in parsed.lora),
        embeddings=parsed.embeddings,
        device=parsed.device,
        dtype=parsed.dtype,
        max_memory_gb=parsed.max_memory,
    )
    with _ProgressBar() as bar:
        result = video_to_video(request, files, progress=bar.show)
    if parsed.json:
        print(json.dumps(result.as_json()))
    else:
        print(f"{result.path}: {result.frame_count} frames, seed {result.seed}")
    return 0


def _inspect(parsed: argparse.Namespace) -> int:
    reports = [identify(path) for path in parsed.files]
    if parsed.json:
        rows = [asdict(report) | {"path": str(report.path)} for report in reports]
        print(json.dumps(rows, indent=1))
    else:
        for report in reports:
            print(_described(report))
    return 0 if all(report.usable for report in reports) else EXIT_UNUSABLE


def _demo(parsed: argparse.Namespace) -> int:
    for path in install_models(
        parsed.install_models, native=parsed.native, overwrite=parsed.overwrite
    ):
        print(path)
    return 0


def _described(report: FileReport) -> str:
    if report.kind == "not a model":
        return report.message
    facts = [report.kind, report.base_model, report.layout and f"{report.layout} layout"]
    if report.parameter_count:
        facts.append(f"{report.parameter_count / 1e6:,.1f} M parameters in {report.dtype}")
    facts.append(report.contents)
    described = ", ".join(fact for fact in facts if fact)
    return f"{report.path}: {described}. {report.message}"


def _sampling(parsed: argparse.Namespace) -> SamplingSettings:
    defaults = preset_defaults(parsed.preset)

    def chosen(value: Any, default: Any) -> Any:
        return default if value is None else value

    return SamplingSettings(
        seed=chosen(parsed.seed, random.SystemRandom().randint(DRAWN_SEED.low, DRAWN_SEED.high)),
        steps=chosen(parsed.steps, defaults.steps),
        guidance=Guidance(scale=chosen(parsed.guidance_scale, defaults.guidance_scale)),
        sampler=chosen(parsed.sampler, defaults.sampler),
        scheduler=chosen(parsed.scheduler, defaults.scheduler),
        denoise=parsed.denoise,
        context=ContextOptions(length=parsed.context_length, overlap=parsed.context_overlap),
        speed=_speed(parsed),
    )


def _speed(parsed: argparse.Namespace) -> SpeedOptions:
    start, end = interval(parsed.guidance_interval)
    return SpeedOptions(
        deep_cache_interval=parsed.deep_cache,
        guidance_start=start,
        guidance_end=end,
        fp8_weights=parsed.fp8_weights,
        compile=parsed.compile,
    )


class _ProgressBar:
    """A bar on stderr with the time that is left."""

    def __enter__(self) -> _ProgressBar:
        self._bar = tqdm(
            total=100.0,
            unit="%",
            file=sys.stderr,
            delay=0.01,  # a job that is refused at once shows none
            # Drawn at each call, what stands still too, compiling for instance. Its own `refresh`
            # draws before the delay as well, and such a line is never ended.
            mininterval=0.0,
            miniters=0,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Move the bar to where the job stands."""
        self._bar.set_description_str(progress.message, refresh=False)
        self._bar.update(progress.fraction * 100.0 - self._bar.n)


if __name__ == "__main__":
    sys.exit(main())
