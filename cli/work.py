"""`animatediff-v2v work`: does a share of a planned batch, for schedulers of other machines."""

from __future__ import annotations

import argparse
import json
import re
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..batch.remote import is_url
from ..pipeline.errors import AnimateDiffV2VError
from .console import complain, say
from .parsing import EXIT_UNUSABLE, Help
from .signals import leaving_at_once

if TYPE_CHECKING:
    from ..batch.unit import Unit


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    work = commands.add_parser(
        "work",
        help="do a share of a planned batch, on any machine",
        formatter_class=Help,
        description="Do units of the batch that `batch --plan-only` has planned in FOLDER, and "
        "print a line of JSON for each. What is there already is skipped, so that a machine that "
        "was taken away can be given the same command again. Clips that were cut are joined, and "
        "the page is written, by the same `batch` command afterwards.",
    )
    work.set_defaults(command=_work)
    work.add_argument(
        "folder", metavar="FOLDER", help="output folder of the batch, or its URL (extra `remote`)"
    )
    work.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="the share to do: every Nth unit, from unit I on, which counts from 0",
    )
    work.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu")


def _work(parsed: argparse.Namespace) -> int:
    number, count = _shard(parsed.shard)
    from ..batch.ledger import Ledger  # noqa: PLC0415 - `--help` needs none of it
    from ..batch.remote_folder import RemoteFolder  # noqa: PLC0415

    remote = RemoteFolder(parsed.folder) if is_url(parsed.folder) else None
    if remote is not None:
        planned = remote.units()
    else:
        with Ledger(Path(parsed.folder), read_only=True) as ledger:
            planned = ledger.units()
    units = [unit for unit in planned if unit.kind in ("clip", "part")]
    with leaving_at_once():
        from ..batch.outcome import outcome_of  # noqa: PLC0415 - loads PyTorch
        from ..batch.plan import marked  # noqa: PLC0415
        from ..batch.render import Renderer  # noqa: PLC0415

    renderer, failed = Renderer(parsed.device), 0
    for unit in units[number::count]:
        began = time.monotonic()
        if remote.is_done(unit) if remote else marked(unit.target) == unit.digest:
            _tell(unit, "skipped", 0.0)
            continue
        render = partial(renderer.render, unit)
        if remote is not None:
            render = partial(remote.render, unit, renderer.render)
        outcome = outcome_of(unit.name, render)
        _tell(unit, outcome.kind, time.monotonic() - began, sentence=outcome.sentence)
        if outcome.kind == "fatal":
            raise AnimateDiffV2VError(outcome.sentence)
        failed += outcome.kind != "done"
    if failed:
        complain(f"{failed} units have failed; see the lines above.")
    return EXIT_UNUSABLE if failed else 0


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise AnimateDiffV2VError(
            f"--shard is {text!r}; it must be I/N with I from 0 to N-1, for example 0/8."
        )
    return int(found[1]), int(found[2])


def _tell(unit: Unit, state: str, seconds: float, *, sentence: str = "") -> None:
    line = {
        "unit": unit.name,
        "state": state,
        "frames": unit.frames,
        "seconds": round(seconds, 3),
        "machine": socket.gethostname(),
        "digest": unit.digest,
    }
    say(json.dumps(line | ({"sentence": sentence} if sentence else {})))
