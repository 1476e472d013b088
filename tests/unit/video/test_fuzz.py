"""A seeded sample of the damaged videos in benchmarks/video_fuzz.py, which reads thousands."""

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parents[3] / "benchmarks" / "video_fuzz.py"


def test_damaged_videos_of_every_kind_end_neither_the_process_nor_in_a_false_success(tmp_path):
    command = [sys.executable, FUZZER, "--files", "66", "--seed", "7", "--keep", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("66 files:")
    assert not list(tmp_path.iterdir())
