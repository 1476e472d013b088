"""Measure the peak memory of reading every 4th frame of ten minutes of 1080p, one by one.

Prints the peak of the whole process (including Python and PyTorch); exits 1 above 600 MB.

    python benchmarks/video_memory.py [--minutes 10]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader

NTH = 4
RATE = 30
LIMIT_BYTES = 600 * 10**6
SEED_SECONDS = 10


def make_clip(path: Path, *, minutes: int) -> None:
    """Encode ten seconds of moving detail and repeat them without encoding them again."""
    seed = path.with_name("seed.mp4")
    source = f"testsrc2=size=1920x1080:rate={RATE}:duration={SEED_SECONDS},noise=alls=8:allf=t"
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-b:v", "8M", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", source, *codec, str(seed))
    again = minutes * 60 // SEED_SECONDS - 1
    ffmpeg("-stream_loop", str(again), "-i", str(seed), "-c", "copy", str(path))


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True)


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    """Run the measurement; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    minutes = parser.parse_args().minutes
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, minutes=minutes)
        begin = time.perf_counter()
        selection = FrameSelection(select_every_nth_frame=NTH)
        with VideoReader(clip, selection=selection, width=512, height=512) as reader:
            count = sum(1 for _ in reader)
        seconds = time.perf_counter() - begin
    assert count == minutes * 60 * RATE // NTH, f"{count} frames"
    print(f"{count} frames kept in {seconds:.0f} s")
    print(f"peak {peak_bytes() / 1e6:.0f} MB, {before / 1e6:.0f} MB of it before reading")
    return 0 if peak_bytes() <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
