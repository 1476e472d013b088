"""The devices that share a job."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, ModelFiles
from animatediff_v2v.pipeline.memory import devices
from animatediff_v2v.pipeline.memory.devices import job_devices


@pytest.fixture
def two_gpus(monkeypatch):
    """Pretend that this machine has two CUDA devices and an accelerator of another kind."""
    known = {"cuda", "cuda:0", "cuda:1", "xpu:0", "cpu"}
    monkeypatch.setattr(
        devices, "_usable", lambda name: torch.device(name) if name in known else None
    )
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cuda:0", "cuda:1"], "cuda:0 cuda:1"),
        (["cuda:1", "cuda"], "cuda:1 cuda:0"),
        (["cpu", "cpu"], "cpu cpu"),
    ],
)
def test_devices_keep_their_order(two_gpus, names, found):
    resolved = job_devices(ModelFiles(checkpoint="a", devices=names))
    assert " ".join(map(str, resolved)) == found


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cuda:0", "cuda:2"], "cannot compute on 'cuda:2'; it has cuda:0, cuda:1."),
        (["cuda:0", "cuda:0"], "names cuda:0 twice: name each device once."),
        (["cuda", "cuda:0"], "names cuda:0 twice"),
        (["cuda:0", "cpu"], "name devices of one kind"),
        (["xpu:0", "cuda:1"], "name devices of one kind"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(two_gpus, names, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        job_devices(ModelFiles(checkpoint="a", devices=names))
    assert sentence in str(caught.value)
