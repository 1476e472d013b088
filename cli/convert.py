"""`animatediff-v2v convert`: brings graphs made for other packs over to this one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..migrate import convert
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.output_file import check_output
from .console import complain, say
from .parsing import EXIT_UNUSABLE


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    parser = commands.add_parser(
        "convert",
        help="convert a graph that was made for AnimateDiff-Evolved",
        description="Convert a ComfyUI graph that was made for AnimateDiff-Evolved, "
        "VideoHelperSuite and the packs used with them, so that it runs with this pack. GRAPH is a "
        ".json file in either of ComfyUI's formats, or a picture or video that holds its graph "
        "(.png, .webp, .mp4, .webm, .mov, .mkv). Exit code 0 when it was converted, 1 when it was "
        "left as it is.",
    )
    parser.set_defaults(command=_convert, worded=_worded)
    parser.add_argument("graph", metavar="GRAPH")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="the .json file to write; GRAPH's name with .converted.json, beside it, if neither -o "
        "nor --report is given",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="say what becomes of each node, and why; nothing is written unless -o is given",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _convert(parsed: argparse.Namespace) -> int:
    from ..migrate.files import read_graph, write_graph  # noqa: PLC0415 - loads PyAV

    for name, value in (("GRAPH", parsed.graph), ("OUT", parsed.output)):
        if value == "":
            raise AnimateDiffV2VError(f"{name} is ''; it must be the path of a file.")
    source = Path(parsed.graph)
    output = Path(parsed.output or source.with_name(f"{source.stem}.converted.json"))
    converted = convert(read_graph(source))
    if converted.graph is None:
        complain(converted.report.reason)
        return EXIT_UNUSABLE
    if output.suffix.lower() != ".json" or output.is_dir():
        raise AnimateDiffV2VError(f"OUT is {str(output)!r}; it must be the name of a .json file.")
    if parsed.report and not parsed.output:
        say(converted.report.text.replace("was converted", "can be converted", 1))
        say("Nothing was written: give -o OUT to write the converted graph.")
        return 0
    check_output(output, inputs=[source], overwrite=parsed.overwrite)
    write_graph(converted.graph, output)
    say(converted.report.text if parsed.report else converted.report.summary)
    say(str(output))
    return 0


def _worded(sentence: str) -> str:
    return sentence.replace("set overwrite to replace it", "give --overwrite to replace it")
