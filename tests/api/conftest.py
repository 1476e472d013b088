"""The API on a bare application, and in each ComfyUI that COMFYUI_PATH names."""

from __future__ import annotations

from pathlib import Path

import pytest
from animatediff_v2v.pipeline.video.probe import probe_video

from ..host.conftest import PATHS
from .homes import BareHome, ComfyHome, data_uri, model_folder, write_clip

BARE = "bare"
HOMES = [BARE, *PATHS]


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Eight frames in a second."""
    return write_clip(tmp_path_factory.mktemp("clip") / "rocket.mp4", frames=8, frame_rate=8)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory):
    """Six seconds, as a data URI."""
    path = write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", frames=6, frame_rate=1)
    return data_uri(path)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def make_home(tmp_path_factory, clip, models, weights):
    """Return a function that makes a home, not started yet, for BARE or for a ComfyUI's path."""

    def make(kind, **settings):
        folder = tmp_path_factory.mktemp("home")
        if kind == BARE:
            return BareHome(folder, clip, models, **settings)
        return ComfyHome(kind, folder, clip, models, weights, **settings)

    return make


@pytest.fixture(scope="session", params=HOMES, ids=lambda path: Path(path).name)
def home(request, make_home):
    """A running home shared by all tests; its log must contain no complaint at the end."""
    with make_home(request.param, max_video_seconds=5, max_video_bytes=200_000) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()
    for secret in (running.key, running.other_key, "a rocket"):
        assert secret not in running.log()


@pytest.fixture(params=HOMES, ids=lambda path: Path(path).name)
def fresh_home(request, make_home):
    """A home of a test's own, which may break it."""
    with make_home(request.param) as running:
        yield running


@pytest.fixture
def read_video(tmp_path):
    """Return a function that reads frame count, width and height from a video's bytes."""

    def read(content):
        path = tmp_path / "made.mp4"
        path.write_bytes(content)
        info = probe_video(path)
        return info.frame_count, info.width, info.height

    return read
