"""`animatediff-v2v batch`: restyles many videos, goes on where it was, and shows the results."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from ..batch.clips import Clip, find_clips, switch
from ..batch.remote import INPUTS_FOLDER, RemoteInputs, is_url
from ..batch.unit import PART_FRAMES, Job, Shots
from ..pipeline.choices import checked
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.ranges import FRAMES, MEMORY_GB
from ..pipeline.request import ModelFiles, Request
from ..pipeline.video.formats import FORMATS
from . import options, parsing
from .companions import check_companions
from .console import PROGRAM, complain, say
from .engine_options import add_engine, check_engine
from .parsing import Help, Parser
from .run import add_job_options, model_files, request_of

# The same for all clips and all runs, so that the same command goes on where it was.
SEED = 0
USAGE = f"{PROGRAM} batch [options] INPUT... OUT\n       {PROGRAM} batch --status OUT"
# Options of `run` that differ for many clips.
OWN_HELP = {
    "--checkpoint": "Stable Diffusion 1.5 checkpoint; required",
    "--motion-module": "AnimateDiff motion module, or the word none to restyle each frame on its "
    "own; required",
    "--seed": f"0 to 2^64-1, as in ComfyUI; {SEED} for all clips if absent, so that the same "
    "command goes on where it was",
    "--format": f"{', '.join(FORMATS)}; mp4-h264 if absent",
    "--max-ram": "main memory of each worker for the latents of a video and what a sampler keeps "
    "of them, in 10^9 bytes; more wait in files beside the result, which stays the same. By "
    "default, all workers of a machine share a quarter of its memory",
}


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    batch = commands.add_parser(
        "batch",
        help="restyle many videos, and go on where it was interrupted",
        formatter_class=Help,
        usage=USAGE,
        description="Restyle every INPUT and write the results into the folder OUT, with a page, "
        "index.html, that shows them beside their sources. Given again, the same command goes on "
        "where it was; what is done and unchanged stays.",
    )
    batch.set_defaults(command=_batch)
    batch.add_argument(
        "paths",
        nargs="+",
        metavar="INPUT... OUT",
        help="videos, folders of videos, patterns, or tables (.csv, .jsonl) with a column input "
        "and columns for any option of `run`, such as prompt, seed, lora; last, the folder to "
        "write. Each can be a URL (s3://, gs://, ...; extra `remote`)",
    )
    batch.add_argument(
        "--status",
        action=_Status,
        metavar="OUT",
        help="show how far a batch is, of a URL what this machine does of it, and exit",
    )
    _add_batch_options(batch.add_argument_group("batch"))
    _add_run_options(batch)


def _add_batch_options(units: options.Group) -> None:
    add_engine(
        units,
        workers="worker processes; 0 is one for each GPU, or one without a GPU",
        local="processes on this machine",
    )
    units.add_argument(
        "--plan-only",
        action="store_true",
        help="write the plan, for `animatediff-v2v work` on other machines, and exit",
    )
    units.add_argument(
        "--json", action="store_true", help="print a line of JSON on stdout for each unit"
    )
    units.add_argument(
        "--shots",
        default="scenes",
        help=f"{', '.join(get_args(Shots))}: cut clips at scene changes, or only where they are "
        "longer than --part-frames; the parts are computed by any worker and joined again. "
        "transnetv2 finds scene changes by a network, fades among them (extra `shots`)",
    )
    units.add_argument(
        "--part-frames",
        type=int,
        default=PART_FRAMES,
        metavar="N",
        help="longest shot that is computed in one go; longer ones are cut into parts that overlap",
    )
    units.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in OUT that are not results of a batch",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_job_options(parser)
    for option, text in OWN_HELP.items():
        parser._option_string_actions[option].help = text


def reworded(sentence: str) -> str:
    """Replace the library's field names in a sentence by the options of `batch`."""
    return parsing.reworded(sentence.replace("part_frames", "--part-frames"))


class _Status(argparse.Action):
    def __call__(self, parser: Any, _namespace: Any, values: Any, *_: object) -> None:
        from .batch_status import status  # noqa: PLC0415 - `--help` needs none of it

        for line in status(_working_folder(values) if is_url(values) else Path(values)):
            say(line)
        parser.exit()


def _working_folder(url: str) -> Path:
    from ..batch.remote_folder import working_folder  # noqa: PLC0415 - `--help` needs none of it

    return working_folder(url)


def _batch(parsed: argparse.Namespace) -> int:
    *inputs, out = parsed.paths
    if not inputs:
        raise AnimateDiffV2VError("Give at least one INPUT, and last the folder to write.")
    checked("--shots", parsed.shots, Shots)
    check_engine(parsed)
    FRAMES.check("--part-frames", parsed.part_frames)
    _check_devices(parsed)
    if is_url(out):
        return _remote_batch(inputs, out, parsed)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise AnimateDiffV2VError(f"{out} is a file; give a folder for the results, last.")
    # Links stay, unless `..` goes up from one: the folder above it is not the one in the path.
    folder = folder.resolve() if ".." in folder.parts else folder.absolute()
    jobs = _found_jobs(inputs, folder, parsed)
    # After the checks: it takes a second.
    from .batch_run import run_batch  # noqa: PLC0415

    return run_batch(jobs, folder, parsed)


def _remote_batch(inputs: Sequence[str], out: str, parsed: argparse.Namespace) -> int:
    """Restyle into a folder at a URL."""
    if parsed.engine != "local":
        raise AnimateDiffV2VError(
            f"--engine {parsed.engine} needs an output folder that its machines share, and OUT is "
            f"{out}: give a path, or use `{PROGRAM} work` on each machine."
        )
    # As above.
    from ..batch.remote_folder import RemoteFolder  # noqa: PLC0415
    from .batch_run import run_batch  # noqa: PLC0415

    remote = RemoteFolder(out)
    jobs = _found_jobs(inputs, remote.folder, parsed, without=out)
    return run_batch(jobs, remote.folder, parsed, remote)


def _found_jobs(
    inputs: Sequence[str], folder: Path, parsed: argparse.Namespace, *, without: str = ""
) -> list[Job]:
    for each in filter(is_url, inputs):
        complain(f"copying {each} to {folder / INPUTS_FOLDER}, unless it is there unchanged")
    copies = RemoteInputs(folder / INPUTS_FOLDER, without=without)
    return list(_jobs(find_clips(inputs, out=folder, remote=copies), parsed, folder))


def _check_devices(parsed: argparse.Namespace) -> None:
    if not parsed.devices:
        return
    if parsed.engine != "local":
        raise AnimateDiffV2VError(
            "--devices is for the devices of this machine: leave it out, or give --engine local."
        )
    if parsed.workers > 1:
        raise AnimateDiffV2VError(
            f"--devices shares each clip among devices, and --workers is {parsed.workers}: leave "
            "out one of the two. Many clips are faster with a worker for each device."
        )


def _jobs(clips: Sequence[Clip], parsed: argparse.Namespace, folder: Path) -> Iterator[Job]:
    rows = _row_parser()
    for clip in clips:
        try:
            yield _job(clip, _with_row(parsed, rows, clip.settings), folder)
        except AnimateDiffV2VError as error:
            if not clip.origin:
                raise
            raise AnimateDiffV2VError(f"{clip.origin}: {reworded(str(error))}") from error


def _job(clip: Clip, parsed: argparse.Namespace, folder: Path) -> Job:
    check_companions(parsed)
    suffix = FORMATS[parsed.format].extension if parsed.format in FORMATS else ".mp4"
    parsed.input = str(clip.path.absolute())
    parsed.output = str(folder / clip.name.with_name(clip.name.name + suffix))
    if parsed.seed is None:
        parsed.seed = SEED
    if parsed.max_ram is not None:
        MEMORY_GB.check("--max-ram", parsed.max_ram, hint="a quarter of the machine's is usual")
    request: Request = request_of(parsed)
    files: ModelFiles = model_files(parsed)
    return Job(request, files, max_ram_gb=parsed.max_ram)


def _row_parser() -> Parser:
    """Return a parser that sets only what it is given."""
    parser = Parser(prog=f"{PROGRAM} run", add_help=False)
    _add_run_options(parser)
    for action in parser._actions:
        action.required, action.default = False, argparse.SUPPRESS
    return parser


def _with_row(
    parsed: argparse.Namespace, parser: Parser, row: dict[str, Any]
) -> argparse.Namespace:
    """Return the options of the command with those of a row of a table in their place."""
    switches: dict[str, bool] = {}
    arguments: list[str] = []
    for name, value in row.items():
        option = "--" + name.strip().lstrip("-").replace("_", "-")
        action = parser._option_string_actions.get(option)
        if action is not None and action.nargs == 0:
            switches[action.dest] = switch(option, str(value))
        else:
            values = value if isinstance(value, list) else [value]
            arguments += [f"{option}={each}" for each in values if each is not None]
    own = vars(parser.parse_args(arguments)) | switches
    if "devices" in own:
        raise AnimateDiffV2VError("--devices is for the whole batch: give it to the command.")
    base = dict(vars(parsed))
    if "prompt" in own and "prompt_schedule" not in own:
        base["prompt_schedule"] = None
    if "prompt_schedule" in own and "prompt" not in own:
        base["prompt"] = None
    return argparse.Namespace(**base | own)
