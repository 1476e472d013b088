"""`animatediff-v2v inspect`: identifies model files."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.files import FileReport, identify
from .console import say
from .parsing import EXIT_UNUSABLE
from .signals import leaving_at_once


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    inspect = commands.add_parser(
        "inspect",
        help="identify model files",
        description="Identify each FILE: its kind, its model or LoRA family, and whether it can be "
        "used. Exit code 0 when all files can be used, 1 otherwise.",
    )
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("files", nargs="+", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print a JSON list of objects")


def _inspect(parsed: argparse.Namespace) -> int:
    with leaving_at_once():  # a pickle loads PyTorch
        reports = [identify(path) for path in parsed.files if path]
    if parsed.json:
        rows = [asdict(report) | {"path": str(report.path)} for report in reports]
        say(json.dumps(rows, indent=1))
    else:
        for report in reports:
            say(_described(report))
    if not all(parsed.files):
        raise AnimateDiffV2VError("FILE is ''; it must be the path of a file.")
    return 0 if all(report.usable for report in reports) else EXIT_UNUSABLE


def _described(report: FileReport) -> str:
    if report.kind == "not a model":
        return report.message
    facts = [report.kind, report.base_model, report.layout and f"{report.layout} layout"]
    if report.parameter_count:
        facts.append(f"{report.parameter_count / 1e6:,.1f} M parameters in {report.dtype}")
    facts.append(report.contents)
    described = ", ".join(fact for fact in facts if fact)
    return f"{report.path}: {described}. {report.message}"
