"""Clips with two scenes, and jobs that need no networks."""

from __future__ import annotations

import signal
from fractions import Fraction

import av
import numpy as np
import pytest
from animatediff_v2v.batch.digests import content_digest, stamp_of
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.join import join_parts
from animatediff_v2v.batch.run import Result
from animatediff_v2v.batch.unit import Job
from animatediff_v2v.cli import batch_run
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    FrameSelection,
    ModelFiles,
    Request,
    SamplingSettings,
)
from animatediff_v2v.pipeline.job_video import open_reader, open_writer
from animatediff_v2v.pipeline.progress import never
from animatediff_v2v.pipeline.video import Audio, VideoReader, VideoWriter

RATE = Fraction(10)
# Ray waits for ever for a process that does not start.
LONGEST_SECONDS = 400
MODELS = ["--motion-module=none", "--device=cpu"]


def write_clip(path, scenes, *, sound=False, times=()):
    """Write a clip of scenes, each (frames, brightness), with a bar that moves.

    `times` are the seconds of the frames, if the rate varies.
    """
    length = sum(frames for frames, _ in scenes)
    wave = np.sin(np.arange(4800 * length) / 20)[np.newaxis].astype(np.float32) * 0.3
    audio = Audio(wave, 48_000) if sound else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(
        path, width=64, height=64, frame_rate=RATE, audio=audio, overwrite=True
    ) as writer:
        index = 0
        for frames, brightness in scenes:
            for _ in range(frames):
                frame = np.full((1, 64, 64, 3), brightness, np.uint8)
                frame[:, 8:24, index % 48 : index % 48 + 16] = (220, 60, 30)
                writer.write(frame)
                index += 1
        writer.frame_times += times
    return path


def times_of(path):
    """Return the seconds of the frames of a video, as another reader sees them."""
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.fixture
def models(tmp_path):
    """A file in place of a checkpoint."""
    path = tmp_path / "models" / "checkpoint.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    return ModelFiles(checkpoint=path, device="cpu")


@pytest.fixture(autouse=True)
def no_model_checks(monkeypatch):
    """Let any file be a model."""
    monkeypatch.setattr(
        "animatediff_v2v.pipeline.files.recognition.check_kind", lambda *_, **__: None
    )


@pytest.fixture
def job(tmp_path, models):
    """Return a function that makes a job of a clip."""

    def build(path, **settings):
        values = {
            "output": tmp_path / "out" / f"{path.stem}.mp4",
            "prompt": "a fox",
            "sampling": SamplingSettings(seed=1),
            "selection": FrameSelection(),
        }
        return Job(Request(input=path, **(values | settings)), models)

    return build


class Inverter:
    """Renders units without networks: the colours are inverted."""

    def __init__(self):
        self.rendered = []
        self.fails = {}

    def __call__(self, unit, on_progress, is_cancelled=never):
        on_progress(0.5, "inverting")
        if self.fails.get(unit.name, 0):
            self.fails[unit.name] -= 1
            raise AnimateDiffV2VError(f"{unit.name} cannot be inverted.")
        self.rendered.append(unit.name)
        unit.target.parent.mkdir(parents=True, exist_ok=True)
        if unit.kind == "join":
            frames = join_parts(unit.request, unit.parts, unit.spans, is_cancelled=is_cancelled)
        else:
            with open_reader(unit.request) as reader, open_writer(unit.request, reader) as writer:
                for frame in reader:
                    writer.write(255 - frame[None])
            frames = writer.frame_count
        return Result(content_digest(unit.target), stamp_of(unit.target), frames)


@pytest.fixture
def inverter():
    return Inverter()


def frames_of(path):
    with VideoReader(path) as reader:
        return np.stack(list(reader))


@pytest.fixture
def workers(monkeypatch, inverter):
    """Let the command's engine invert the colours in this process."""

    def engine(run, *, device, workers):
        run_inline(run, inverter, worker=f"{device}-{workers}")

    monkeypatch.setattr(batch_run, "run_here", engine)
    return inverter


@pytest.fixture
def batch(tmp_path, models):
    """Return a function that runs the command on two clips."""
    for name, length in (("a", 5), ("b", 6)):
        write_clip(tmp_path / "in" / f"{name}.mp4", [(length, 90)])

    def run(*options, inputs=(tmp_path / "in",), out=tmp_path / "out", prompt="--prompt=a <fox>"):
        return main(
            ["batch", *map(str, inputs), str(out), f"--checkpoint={models.checkpoint}",
             *MODELS, prompt, *options]
        )  # fmt: skip

    return run


@pytest.fixture
def ray():
    """Ray, which is ended after the test, and fails the test if that takes too long."""
    module = pytest.importorskip("ray", reason="needs the package ray")

    def fail(*_):
        pytest.fail(f"Ray has neither finished nor failed in {LONGEST_SECONDS} seconds.")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST_SECONDS)
    yield module
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    module.shutdown()
