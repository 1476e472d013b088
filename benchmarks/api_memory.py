"""Measure the memory of `animatediff-v2v serve` over many requests, with a worker without networks.

Usage: python benchmarks/api_memory.py [--requests 2000] [--step 200]

Only on Linux. Requests are submitted `step` at a time, each with its video in a data URI. When all
of them are done, the resident memory of the server and of its worker is read.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.api.homes import QuickHome, model_folder, workers_of, write_clip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--step", type=int, default=200, help="requests between two readings")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_clip(folder / "clip.mp4", frames=8, frame_rate=8)
        with QuickHome(folder, clip, model_folder(folder / "models")) as home:
            measure(home, options)
    return 0


def measure(home: QuickHome, options: argparse.Namespace) -> None:
    print("requests  server MiB  worker MiB  database KiB")
    for done in range(0, options.requests + 1, options.step):
        (worker,) = workers_of(home.process.pid)
        size = (home.data / "api.sqlite").stat().st_size // 1024
        print(
            f"{done:>8}{resident(home.process.pid):>12}{resident(worker):>12}{size:>14}", flush=True
        )
        if done < options.requests:
            requests = [home.submit(seed=done + number) for number in range(options.step)]
            assert all(home.result(request).status_code == 200 for request in requests)


def resident(pid: int) -> int:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


if __name__ == "__main__":
    sys.exit(main())
