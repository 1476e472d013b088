"""Compare reading every 2nd frame of 1080p at 512x512 with ffmpeg piping the same selection.

Prints frames per second of the source for both, and their ratio; exits 1 if it is below 0.95.
The two run in turn, and the medians are compared. The clip is encoded first.

    python benchmarks/video_io.py [--frames 300] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader

NTH = 2
SIZE = 512
LEAST_RATIO = 0.95


def make_clip(path: Path, *, frames: int) -> None:
    """Encode moving detail at 1080p, 30 frames and about 8 Mbit per second."""
    source = f"testsrc2=size=1920x1080:rate=30:duration={frames / 30},noise=alls=12:allf=t"
    codec = ["-c:v", "libx264", "-preset", "medium", "-b:v", "8M", "-pix_fmt", "yuv420p"]
    ffmpeg("-f", "lavfi", "-i", source, *codec, "-colorspace", "bt709", str(path))


def ffmpeg(*arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True)


def read_ours(path: Path) -> int:
    selection = FrameSelection(select_every_nth_frame=NTH)
    with VideoReader(path, selection=selection, width=SIZE, height=SIZE) as reader:
        return sum(frame.shape == (SIZE, SIZE, 3) for frame in reader)


def read_piped(path: Path) -> int:
    """Let ffmpeg select, crop and scale with the same kernel, and read its pipe."""
    filters = (
        f"select='not(mod(n\\,{NTH}))',crop=1080:1080,"
        f"scale={SIZE}:{SIZE}:flags=area+accurate_rnd+full_chroma_int:in_color_matrix=bt709"
    )
    output = ["-vf", filters, "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), *output, "-"]
    frame_bytes, count = SIZE * SIZE * 3, 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(process.stdout.read(frame_bytes)) == frame_bytes:
            count += 1
    return count


def main() -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"ours": [], "ffmpeg pipe": []}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, frames=arguments.frames)
        for name, read in [("ours", read_ours), ("ffmpeg pipe", read_piped)] * (
            arguments.rounds + 1
        ):
            begin = time.perf_counter()
            count = read(clip)
            seconds[name].append(time.perf_counter() - begin)
            assert count == -(-arguments.frames // NTH), f"{name} gave {count} frames"
    # The first round fills the caches.
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {arguments.frames / median:7.1f} source frames/s")
    ratio = medians["ffmpeg pipe"] / medians["ours"]
    print(f"ours / ffmpeg pipe: {ratio:.3f} (at least {LEAST_RATIO})")
    return 0 if ratio >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
