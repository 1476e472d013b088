"""The options of `batch` and `serve` for what runs their workers."""

from __future__ import annotations

import argparse
from typing import Literal, get_args

from ..pipeline.choices import checked
from ..pipeline.ranges import Range

Engine = Literal["local", "ray"]
WORKERS = Range(0, 1000)


def add_engine(group: argparse._ActionsContainer, *, workers: str, local: str) -> None:
    """Add --workers and --engine to a group or a parser.

    Args:
        group: The group or the parser.
        workers: The help of --workers.
        local: What the engine "local" is.
    """
    group.add_argument("--workers", type=int, default=0, metavar="N", help=workers)
    group.add_argument(
        "--engine",
        default="local",
        help=f"{', '.join(get_args(Engine))}: {local}, or actors of Ray, on the cluster that "
        "RAY_ADDRESS names or on this machine (extra `ray`)",
    )


def check_engine(parsed: argparse.Namespace) -> None:
    """Raise AnimateDiffV2VError for an unknown engine, or a number of workers out of range."""
    checked("--engine", parsed.engine, Engine)
    WORKERS.check("--workers", parsed.workers)
