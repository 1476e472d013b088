"""Jobs with random settings end in a video that moves, or in a refusal; more of them are measured.

See benchmarks/random_jobs.py.
"""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.pipeline.video import VideoWriter

JOBS, SEED = 12, 1


@pytest.fixture(scope="module")
def random_jobs():
    path = Path(__file__).parents[3] / "benchmarks" / "random_jobs.py"
    spec = importlib.util.spec_from_file_location("random_jobs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["random_jobs"] = module
    spec.loader.exec_module(module)
    return module


def test_no_job_loses_the_motion(random_jobs, tmp_path):
    codes, faults = random_jobs.run(JOBS, SEED, tmp_path)
    assert faults == []
    assert codes[0] >= JOBS / 2 and codes[2] >= 1, codes


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([[0, 0]] * 4, "every frame is of a single colour"),
        ([[0, 200]] * 4, "all frames are alike"),
        ([[0, 200], [0, 200], [200, 0], [0, 200]], None),
    ],
    ids=["black", "still", "moving"],
)
def test_what_is_a_fault(levels, sentence, random_jobs, tmp_path):
    """Two halves of a picture, frame by frame."""
    path, side = tmp_path / "video.mp4", random_jobs.SIDE
    with VideoWriter(path, width=side, height=side, frame_rate=Fraction(8)) as writer:
        for halves in levels:
            column = np.repeat(np.array(halves, np.uint8), side // 2)
            frame = np.broadcast_to(column[None, :, None], (side, side, 3))
            writer.write(np.ascontiguousarray(frame)[np.newaxis])
    job = random_jobs.Job([], path, absurd=False)
    assert random_jobs.fault(job, 0) == sentence
    assert random_jobs.fault(job, 2) is None
    assert random_jobs.fault(job, 1) == "exit code 1"
    assert random_jobs.fault(random_jobs.Job([], path, absurd=True), 0) == (
        "an absurd value was taken"
    )
