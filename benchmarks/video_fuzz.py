"""Read 2,000 damaged videos; check for crashes, hangs, excessive memory and false success.

Containers, codecs and channel layouts of all kinds are damaged, and every file is read (and its
sound with it) in a worker process, several files per worker. A run fails when a worker dies, an
error other than AnimateDiffV2VError escapes, a file takes more than 10 seconds, a worker grows by
more than 1 GB, or a file is read without an error but gives no frame or invalid sound.

    python benchmarks/video_fuzz.py [--files 2000] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, read_audio

HANG_SECONDS = 10
GROWTH_BYTES = 10**9
BATCH = 400

X264 = ["-c:v", "libx264", "-preset", "ultrafast"]
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "4", "-bf", "2"]
BOXES = [b"moov", b"trak", b"tkhd", b"mdhd", b"elst", b"stsd", b"stts", b"ctts", b"stsc", b"stsz"]
BOXES += [b"stco", b"avcC", b"mp4a", b"esds", b"chan", b"lpcm", b"\x1aE\xdf\xa3", b"\x18S\x80g"]
BOXES += [b"\x16T\xaek", b"\x1fC\xb6u", b"strh", b"strf", b"idx1", b"movi", b"fLaC", b"Opus"]


def spread(channels: int) -> list[str]:
    """Return a filter that copies one channel to `channels`, in a layout without a name."""
    copies = "|".join(f"c{index}=c0" for index in range(channels))
    return ["-af", f"pan={channels}c|{copies}"]


SEEDS = {
    "h264.mp4": [*X264, "-pix_fmt", "yuv420p"],
    "h264.mkv": [*X264, "-pix_fmt", "yuv420p"],
    "h264.ts": [*X264, "-pix_fmt", "yuv420p"],
    "h264.avi": [*X264, "-pix_fmt", "yuv420p"],
    "bframes.mp4": ["-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p10le"],
    "hevc.mp4": ["-c:v", "libx265", "-x265-params", "log-level=error", "-pix_fmt", "yuv420p"],
    "av1.mp4": ["-c:v", "libsvtav1", "-preset", "10", "-pix_fmt", "yuv420p"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuva420p"],
    "prores.mov": ["-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"],
    "mjpeg.avi": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"],
    "ffv1.mkv": ["-c:v", "ffv1"],
    "gif.gif": ["-an"],
    "webp.webp": ["-an", "-c:v", "libwebp_anim"],
    "flv.flv": [*X264, "-c:a", "aac", "-ar", "44100"],
    "asf.wmv": ["-c:v", "wmv2", "-c:a", "wmav2"],
    "ogg.ogv": ["-c:v", "libtheora", "-c:a", "libvorbis"],
    "mpeg2.mpg": [*MPEG2, "-c:a", "mp2"],
    "joined.ts": [*X264, "-c:a", "aac"],
    "joined.mpg": [*MPEG2, "-c:a", "ac3"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"],
    "fragments.mp4": [*X264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
    "mono.mov": [*X264, "-ac", "1", "-c:a", "pcm_s16be"],
    "5.1.mp4": [*X264, "-ac", "6", "-c:a", "aac"],
    "6.1.mkv": [*X264, *spread(7), "-c:a", "flac"],
    "7.1.mkv": [*X264, "-ac", "8", "-c:a", "flac"],
    "7.1.mp4": [*X264, "-ac", "8", "-c:a", "aac"],
    "7.1.webm": ["-c:v", "libvpx", "-ac", "8", "-c:a", "libopus"],
    "pan 7.mov": [*X264, *spread(7), "-c:a", "pcm_s16le"],
    "pan 8.mov": [*X264, *spread(8), "-c:a", "pcm_f32le"],
    "pan 12.avi": [*X264, *spread(12), "-c:a", "pcm_s16le"],
    "pan 16.mov": [*X264, *spread(16), "-c:a", "pcm_s24le"],
    "pan 24.mkv": [*X264, *spread(24), "-c:a", "pcm_s16le"],
}


def make_seeds(folder: Path) -> list[bytes]:
    """Encode a short clip in each container and codec."""
    source = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=0.6"]
    sound = ["-f", "lavfi", "-i", "sine=d=0.6"]
    for name, output in SEEDS.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *sound]
        subprocess.run([*command, *output, str(folder / name)], check=True, capture_output=True)
        if name.startswith("joined"):
            (folder / name).write_bytes((folder / name).read_bytes() * 2)
    return [(folder / name).read_bytes() for name in SEEDS]


def mutated(data: bytes, noise: np.random.Generator) -> bytes:
    """Damage a file: flipped bytes, random numbers in the header, cuts, repeats, gaps."""
    damaged = bytearray(data)
    header = min(len(damaged), 2000)
    for _ in range(int(noise.integers(1, 4))):
        kind = int(noise.integers(8))
        place = int(noise.integers(max(1, len(damaged) - 8)))
        if kind == 0:
            for position in noise.integers(len(damaged), size=int(noise.integers(1, 200))):
                damaged[position] = int(noise.integers(256))
        elif kind == 1:
            position = int(noise.integers(header - 4)) if header > 8 else 0
            wild = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", noise.bytes(4)]
            damaged[position : position + 4] = wild[int(noise.integers(4))]
        elif kind == 2:
            del damaged[max(16, place) :]
        elif kind == 3:
            del damaged[place : place + int(noise.integers(1, 500))]
        elif kind == 4:
            damaged[place:place] = damaged[place : place + int(noise.integers(1, 500))]
        elif kind in {5, 6}:
            damage_a_box(damaged, noise)
        else:
            tail = len(damaged) - int(noise.integers(1, header))
            damaged[tail : tail + 4] = noise.bytes(4)
    return bytes(damaged)


def damage_a_box(damaged: bytearray, noise: np.random.Generator) -> None:
    """Change a number in or before a box of the container, or its name, where there is one."""
    places = [damaged.find(name) for name in BOXES]
    found = [place for place in places if place >= 4]
    if not found:
        return
    place = found[int(noise.integers(len(found)))] + int(noise.integers(-4, 60))
    wild = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\x80\0\0\0", noise.bytes(4)]
    damaged[place : place + 4] = wild[int(noise.integers(len(wild)))]


def read_all(paths: list[str]) -> None:
    """Read each file; print one line of JSON for each (this is the worker)."""
    logging.disable(logging.CRITICAL)
    base = peak_bytes()
    for path in paths:
        begin = time.perf_counter()
        try:
            result = read_frames(path)
            sound = read_sound(path)
            result = result if sound else f"FALSE sound, {result}"
        except Exception as error:
            result = f"ESCAPED {error!r}"
        seconds = time.perf_counter() - begin
        line = {"path": path, "result": result, "seconds": seconds, "grown": peak_bytes() - base}
        print(json.dumps(line), flush=True)


def read_frames(path: str) -> str:
    """Read every second frame at a small size; return how many there were."""
    try:
        selection = FrameSelection(select_every_nth_frame=2)
        with VideoReader(path, selection=selection, width=64, height=64) as reader:
            count = sum(1 for _ in reader)
    except AnimateDiffV2VError:
        return "refused"
    return f"{count} frames" if count else "FALSE no frames"


def read_sound(path: str) -> bool:
    """Read a second of sound, if there is any; return whether it has the requested length."""
    try:
        audio = read_audio(path, start_seconds=0.2, duration_seconds=1)
    except AnimateDiffV2VError:
        return True
    return audio is None or audio.waveform.shape[1] == audio.sample_rate


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_batch(paths: list[str]) -> tuple[list[dict[str, object]], str]:
    """Read files in a worker; return its lines, and its failure if there was one."""
    command = [sys.executable, __file__, "--worker", *paths]
    limit = 120 + HANG_SECONDS + len(paths)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        output, trouble = done.stdout, f"worker died: {done.returncode}" * (done.returncode != 0)
    except subprocess.TimeoutExpired as error:
        output, trouble = (error.stdout or b"").decode(), "worker hung"
    lines = [json.loads(line) for line in output.splitlines()]
    if trouble:
        trouble += f" at {paths[len(lines)]}"
    return lines, trouble


def main() -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        read_all(arguments.worker)
        return 0
    noise = np.random.default_rng(arguments.seed)
    lines: list[dict[str, object]] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        seeds, names = make_seeds(Path(folder)), list(SEEDS)
        for start in range(0, arguments.files, BATCH):
            paths = []
            for index in range(start, min(arguments.files, start + BATCH)):
                which = index % len(seeds)
                path = Path(folder) / f"{index:05}-{names[which]}"
                path.write_bytes(mutated(seeds[which], noise))
                paths.append(str(path))
            failures += examine(paths, lines, keep=arguments.keep)
            for path in paths:
                Path(path).unlink()
    slowest = max(float(str(line["seconds"])) for line in lines)
    grown = max(int(str(line["grown"])) for line in lines)
    refused = sum(line["result"] == "refused" for line in lines)
    print(f"{len(lines)} files: {refused} refused, {len(lines) - refused} read")
    print(f"slowest {slowest:.2f} s, largest growth {grown / 1e6:.0f} MB, failures {len(failures)}")
    print("\n".join(failures))
    return 1 if failures else 0


def examine(paths: list[str], lines: list[dict[str, object]], *, keep: Path | None) -> list[str]:
    """Read one batch; add its lines, keep and return its failures."""
    fresh, trouble = run_batch(paths)
    lines += fresh
    failures = [trouble] if trouble else []
    for line in fresh:
        slow = float(str(line["seconds"])) > HANG_SECONDS
        large = int(str(line["grown"])) > GROWTH_BYTES
        if slow or large or str(line["result"]).startswith(("ESCAPED", "FALSE")):
            failures.append(str(line))
    if keep is not None and failures:
        keep.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if any(path in failure for failure in failures):
                shutil.copy(path, keep)
    return failures


if __name__ == "__main__":
    sys.exit(main())
