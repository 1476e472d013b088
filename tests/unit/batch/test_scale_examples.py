"""The example files of docs/scale: commands that this version understands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from animatediff_v2v.cli.main import _parser
from animatediff_v2v.cli.work import _shard

FOLDER = Path(__file__).parents[3] / "docs" / "scale"


def kubernetes():
    spec = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    command = [each.replace("$(JOB_COMPLETION_INDEX)", "7") for each in container["command"]]
    assert command[-1] == f"7/{spec['completions']}"
    return command


def skypilot():
    run = yaml.safe_load((FOLDER / "skypilot.yaml").read_text(encoding="utf-8"))["run"]
    return shlex.split(run.replace("$SKYPILOT_NODE_RANK", "0").replace("$SKYPILOT_NUM_NODES", "4"))


@pytest.mark.parametrize("example", [kubernetes, skypilot])
def test_examples_give_a_command_that_is_understood(example):
    program, *arguments = example()
    assert program.endswith("animatediff-v2v")
    parsed = _parser().parse_args(arguments)
    number, count = _shard(parsed.shard)
    assert parsed.folder == "/data/out" and number < count


@pytest.mark.skipif(sys.platform == "win32", reason="runs bash")
def test_the_script_for_slurm_does_the_share_of_its_task(tmp_path):
    program = tmp_path / "animatediff-v2v"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", str(FOLDER / "slurm.sh"), "my out"],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_ARRAY_TASK_COUNT": "8",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[0] == "work my out --shard 3/8"
    directives = re.findall(r"^#SBATCH --array=0-7$", (FOLDER / "slurm.sh").read_text(), re.M)
    assert directives
