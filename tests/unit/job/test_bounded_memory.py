"""A limit on device memory: its refusals, its effect on memory, and results that stay the same."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ControlFile,
    FrameSelection,
    ModelFiles,
    Request,
    SamplingSettings,
    SpeedOptions,
    StyleFile,
    load_files,
    video_to_video,
)
from animatediff_v2v.pipeline.memory.estimate import Work
from animatediff_v2v.pipeline.memory.offload import _chunk_sizes
from animatediff_v2v.pipeline.memory.tracer import META, live_bytes
from animatediff_v2v.pipeline.models.batching import ChunkSizes

NEEDED = re.compile(r"need at least ([\d.]+)")


@pytest.fixture
def files(weights, monkeypatch):
    # The meta device stands in for an accelerator; jobs refuse it, as it gives nothing back.
    monkeypatch.setattr(
        sys.modules["animatediff_v2v.pipeline.memory.devices"], "resolve_device", torch.device
    )

    def build(device, bound=None):
        return ModelFiles(
            checkpoint=weights / "checkpoint.safetensors",
            motion_module=weights / "motion_module.safetensors",
            device=device,
            max_memory_gb=bound,
        )

    return build


@pytest.fixture
def request_for(clip, tmp_path):
    def build(controls=(), **speed):
        return Request(
            input=clip,
            output=tmp_path / "out.mp4",
            overwrite=True,
            prompt="a red box",
            sampling=SamplingSettings(
                # A step is like another, except with a cache of features.
                seed=3,
                steps=speed.get("deep_cache_interval", 1),
                speed=SpeedOptions(**speed),
            ),
            selection=FrameSelection(),
            controls=controls,
        )

    return build


def smallest(request, files):
    """Return the smallest possible limit, as the refusal of a smaller one states it."""
    seen = []
    with pytest.raises(AnimateDiffV2VError, match="max_memory_gb is 1e-06; windows of") as caught:
        video_to_video(request, files, progress=seen.append)
    assert seen == []
    return float(NEEDED.search(str(caught.value))[1])


def job_peak(request, files):
    """Return the peak on the meta device from the first phase on: before it, there are copies."""
    with live_bytes() as counted:

        def begin(phase):
            if phase == "encode":
                counted.restart()

        video_to_video(request, files, before_phase=begin)
    return counted.peak


def test_the_command_gives_the_same_bytes_with_smaller_parts(command, tmp_path, capsys, caplog):
    # Large enough that passes go one by one, and tokens in smaller parts.
    options = {"select_every_nth_frame": 1, "width": 192, "height": 192, "steps": 1}
    plain, bound = tmp_path / "plain.mp4", tmp_path / "bound.mp4"
    assert main(command(output=plain, **options)) == 0
    capsys.readouterr()
    assert main(command(output=bound, max_memory=1e-6, **options)) == 2
    needed = NEEDED.search(capsys.readouterr().err)[1]
    assert not bound.exists()
    with caplog.at_level(logging.INFO):
        assert main(command(output=bound, max_memory=needed, **options)) == 0
    assert "1 passes of the UNet and 512 tokens at a time" in caplog.text
    assert bound.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize(
    ("with_control", "speed", "share"),
    [(False, {}, 0.5), (True, {"deep_cache_interval": 2}, 0), (False, {"fp8_weights": True}, 0)],
    ids=str,
)
def test_the_whole_job_stays_within_the_bound(
    with_control, speed, share, *, files, request_for, weights
):
    """share: the limit's position between the smallest one and the memory of an unlimited job."""
    control = ControlFile(network=weights / "controlnet.safetensors", source="tile")
    request = request_for((control,) if with_control else (), **speed)
    needed = smallest(request, files("meta", 1e-6))
    unbound = job_peak(request, files("meta")) / 1e9
    assert unbound > needed
    bound = needed + share * (unbound - needed)
    assert 0.5 * bound * 1e9 < job_peak(request, files("meta", bound)) <= bound * 1e9


def test_compiled_layers_are_refused_within_a_bound(files, request_for):
    seen = []
    with pytest.raises(AnimateDiffV2VError, match="switch compile off, or leave out the limit"):
        video_to_video(
            request_for(compile=True), load_files(files("meta", 1.0)), progress=seen.append
        )
    assert seen == []


def test_styles_are_refused_within_a_bound(files, request_for):
    style = StyleFile(adapter=Path("a"), vision_model=Path("b"), images=(Path("c"),))
    seen = []
    with pytest.raises(AnimateDiffV2VError, match="leave out styles, or max_memory_gb"):
        video_to_video(
            replace(request_for(), styles=(style,)), files("meta", 1.0), progress=seen.append
        )
    assert seen == []


def test_networks_wait_in_main_memory_before_and_after(files, request_for):
    models = load_files(files("meta", 1.0))
    networks = [models.text_encoder.network, models.codec.vae, models.unet]
    weights = [
        weight.data_ptr() for network in networks for weight in network.state_dict().values()
    ]
    devices = []

    def watch(_phase):
        devices.append([network.device.type for network in networks])

    with live_bytes():
        video_to_video(request_for(), models, before_phase=watch)
    assert devices == [["meta", "meta", "cpu"], ["cpu", "cpu", "meta"], ["cpu", "meta", "cpu"]]

    def fail(phase):
        raise KeyboardInterrupt(phase)

    with pytest.raises(KeyboardInterrupt):
        video_to_video(request_for(), models, before_phase=fail)
    assert [network.device.type for network in networks] == ["cpu"] * 3
    assert weights == [
        weight.data_ptr() for network in networks for weight in network.state_dict().values()
    ]


def test_on_a_device_the_vae_waits_as_it_will_work(files):
    """Optimisations for a CPU are not used, although the network is in main memory."""
    waiting, there = load_files(files("meta", 1.0)).codec.vae, load_files(files("meta")).codec.vae
    assert {name: tensor.stride() for name, tensor in waiting.state_dict().items()} == {
        name: tensor.stride() for name, tensor in there.state_dict().items()
    }
    assert waiting.dtype == there.dtype == torch.float16


@pytest.mark.parametrize("device", [torch.device("cpu"), META], ids=str)
@pytest.mark.parametrize("side", [256, 512])
def test_chunks_shrink_from_the_default(device, side):
    work = Work(frames=8, width=side, height=side, settings=SamplingSettings(seed=1))
    choices = _chunk_sizes(device, work)
    default = ChunkSizes.default(device, pixels=side * side // 8)
    assert choices[0] == default
    fewest = default.passes if device.type == "cpu" else 1
    assert choices[-1] == ChunkSizes(passes=fewest, tokens=512)
    if device.type == "cpu":  # or the result would have other bits with small frames
        assert {each.passes for each in choices} == {default.passes}
    sizes = [(each.passes, each.tokens or 10**9) for each in choices]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
