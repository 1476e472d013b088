"""The course of `animatediff-v2v batch`: plan, work, page."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..batch.ledger import Ledger
from ..batch.local import run_here
from ..batch.plan import plan
from ..batch.ray_engine import run_on_ray
from ..batch.remote_folder import RemoteFolder
from ..batch.report import write_page
from ..batch.run import BatchRun, Event
from ..batch.summary import Summary, summarize
from ..batch.unit import Job, Unit
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.job_files import check_devices, check_memory_bound, check_model_files
from .batch_display import batch_display
from .console import complain, say
from .parsing import EXIT_INTERRUPTED, EXIT_UNUSABLE, reworded


def run_batch(
    jobs: Sequence[Job],
    folder: Path,
    parsed: argparse.Namespace,
    remote: RemoteFolder | None = None,
) -> int:
    """Plan a batch, do it, and write its page; return the exit code.

    0 when all clips are done; 1 when some were put aside; 130 when interrupted.

    Args:
        jobs: The clips.
        folder: The output folder.
        parsed: The options of `batch`.
        remote: Where the results are put, if OUT is a URL.
    """
    for job in {job.files: job for job in jobs}.values():
        check_memory_bound(job.request, has_bound=job.files.max_memory_gb is not None)
        check_devices(job.request, are_several=len(job.files.devices) > 1)
        check_model_files(job.files)
    with Ledger(folder) as ledger:
        is_interrupted = False

        def summary(began: float) -> Summary:
            return summarize(ledger.rows(), since=began)

        with batch_display(summary) as display:
            display.say(f"looking at {_counted(len(jobs), 'clip')}")
            units = _planned(jobs, ledger, parsed, remote)
            shown = _shown(display.show, remote, as_json=parsed.json)
            run = BatchRun(ledger, units, overwrite=parsed.overwrite, on_event=shown)
            if len(problems := [unit.problem for unit in units if unit.problem]) == len(units):
                raise AnimateDiffV2VError(problems[0])
            if parsed.plan_only:
                where = remote.url if remote else folder
                # Copies of sources for the page, and joining, are no work for other machines.
                count = sum(unit.kind in ("clip", "part") for unit in units)
                say(f"{where}: {_counted(len(jobs), 'clip')}, {_counted(count, 'unit')} planned")
                return 0
            display.say(summary(time.time()).beginning())
            try:
                engine = run_on_ray if parsed.engine == "ray" else run_here
                # One worker has all the devices that share clips.
                workers = 1 if parsed.devices else parsed.workers
                engine(run, device=parsed.device, workers=workers)
            except KeyboardInterrupt:
                is_interrupted = True
            finally:
                page = str(write_page(folder, units, ledger.rows()))
                if remote is not None:
                    remote.stop()
            if remote is not None and not is_interrupted:
                done = {row.name for row in ledger.rows() if row.state == "done"}
                remote.put_all(u for u in units if u.name in done and u.kind != "part")
                page = remote.page
        return _concluded(summary(0.0), page, is_interrupted=is_interrupted, as_json=parsed.json)


def _planned(
    jobs: Sequence[Job], ledger: Ledger, parsed: argparse.Namespace, remote: RemoteFolder | None
) -> list[Unit]:
    units = plan(
        jobs, ledger.folder, store=ledger, shots=parsed.shots, part_frames=parsed.part_frames
    )
    if remote is not None:
        units = remote.fetched(units, overwrite=parsed.overwrite)
        remote.put_plan(units)
    return units


def _shown(
    show: Callable[[Event], None], remote: RemoteFolder | None, *, as_json: bool
) -> Callable[[Event], None]:
    """Return a function that shows events, and prints the end of each unit if that is wanted."""

    def shown(event: Event) -> None:
        show(event)
        if remote is not None and event.kind == "done" and event.unit is not None:
            remote.put_soon(event.unit)
        if as_json and event.unit is not None and event.kind in ("done", "again", "put aside"):
            line = {
                "unit": event.unit.name, "state": event.kind, "worker": event.worker,
                "frames": event.frames, "time": round(event.at, 3),
            }  # fmt: skip
            sentence = {"sentence": reworded(event.sentence)} if event.sentence else {}
            say(json.dumps(line | sentence))

    return shown


def _concluded(summary: Summary, page: str, *, is_interrupted: bool, as_json: bool) -> int:
    if is_interrupted:
        complain(
            f"interrupted; {summary.clips_done} of {summary.clips} clips are done, and the same "
            "command goes on."
        )
        return EXIT_INTERRUPTED
    failed = f", {summary.clips_failed} failed" if summary.clips_failed else ""
    # With --json, stdout is for machines.
    (complain if as_json else say)(f"{page}: {summary.clips_done} of {summary.clips} clips{failed}")
    return EXIT_UNUSABLE if summary.clips_failed else 0


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
