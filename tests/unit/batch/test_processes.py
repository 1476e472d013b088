"""Worker processes that are killed: nothing is lost, and every byte is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.plan import plan
from animatediff_v2v.batch.render import Renderer
from animatediff_v2v.batch.run import BatchRun
from animatediff_v2v.batch.unit import Job
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import FrameSelection, ModelFiles, Request, SamplingSettings

from .conftest import write_clip

CLIPS = 4


@pytest.fixture
def clips(tmp_path):
    scenes = [[(16, 30), (16, 200)], *([(4, 90)] for _ in range(CLIPS - 1))]
    return [write_clip(tmp_path / f"{index}.mp4", each) for index, each in enumerate(scenes)]


def results(out):
    files = (path for path in out.rglob("*.mp4") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def worked_here(clips, weights, out):
    """Run the batch of the command in this process; return the names of what was rendered."""
    files = ModelFiles(
        checkpoint=weights / "checkpoint.safetensors",
        motion_module=weights / "motion_module.safetensors",
        device="cpu",
    )
    jobs = [
        Job(
            Request(
                input=clip,
                output=out / f"{clip.stem}.mp4",
                prompt="a fox",
                sampling=SamplingSettings(seed=0, steps=1),
                selection=FrameSelection(),
            ),
            files,
        )
        for clip in clips
    ]
    rendered, renderer = [], Renderer("cpu")

    def render(unit, on_progress, is_cancelled):
        rendered.append(unit.name)
        return renderer.render(unit, progress=on_progress, is_cancelled=is_cancelled)

    with Ledger(out) as ledger:
        run_inline(BatchRun(ledger, plan(jobs, out, store=ledger)), render, worker="here")
        assert {row.state for row in ledger.rows()} == {"done"}
    return rendered


def command(clips, weights, out):
    return [
        "batch", *map(str, clips), str(out), f"--checkpoint={weights / 'checkpoint.safetensors'}",
        f"--motion-module={weights / 'motion_module.safetensors'}", "--device=cpu", "--steps=1",
        "--prompt=a fox", "--select-every-nth-frame=1",
    ]  # fmt: skip


def workers_of(pid):
    """The worker processes of a command."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (each / "cmdline").read_bytes():
                found.append(int(each.name))
        except OSError:
            continue
    return found


def wait_for(process, done):
    """Wait until a command has done so many units; return its lines on stderr."""
    lines = []
    while sum(" is done (" in line for line in lines) < done:
        line = process.stderr.readline()
        assert line, lines
        lines.append(line)
    return lines


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_workers_and_commands_lose_nothing(clips, weights, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    worked_here(clips, weights, whole)
    process = subprocess.Popen(
        [sys.executable, "-m", "animatediff_v2v.cli", *command(clips, weights, killed)],
        # As many threads as here: PyTorch's sums depend on their number.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    wait_for(process, 1)
    (worker,) = workers_of(process.pid)
    assert main(command(clips, weights, killed)) == 2
    assert "Another process works on" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["batch", "--status", str(killed)])
    assert f"{killed}: running, 0 of {CLIPS} clips" in capsys.readouterr().out
    os.kill(worker, signal.SIGKILL)
    lines = wait_for(process, 1)
    assert any("was ended by signal 9. Another one is started." in line for line in lines)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    for child in workers_of(process.pid):
        os.kill(child, signal.SIGKILL)
    time.sleep(0.1)
    rendered = worked_here(clips, weights, killed)
    assert 0 < len(rendered) < 2 * CLIPS + 2
    assert results(killed) == results(whole)
    assert worked_here(clips, weights, killed) == []
    left = {path.name for path in killed.iterdir()}
    assert left == {".ledger.lock", "ledger.sqlite", "sources", *(clip.name for clip in clips)}
