"""The estimate before a run follows from the last run with the same checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .declared import without_comfyui

PACK = Path(__file__).parents[3]
SETTINGS = {"steps": "10", "guidance_scale": "7", "checkpoint": "a.safetensors"}
SIZE = {"width": 512, "height": 512}
SECONDS = {"encode": 2.0, "sample": 60.0, "decode_latents": 4.0}


@pytest.fixture
def pack(tmp_path):
    with without_comfyui():
        from animatediff_v2v.nodes import forecast, run_times

        run_times.host.data_folder = lambda: tmp_path / "data"
        yield forecast, run_times


def forecast_of(pack, count=16, **changed):
    return pack[0].describe_forecast(SETTINGS | changed, frame_count=count, **SIZE)


@pytest.mark.parametrize(
    ("count", "query", "windows"),
    [
        (16, {}, 1),
        (17, {}, 2),
        (32, {"windows": "fitting"}, 1),
        (33, {"windows": "fitting"}, 3),
        (40, {"context": '{"length": 24, "overlap": 8}', "windows": "fitting"}, 2),
    ],
)
def test_windows_are_counted(pack, count, query, windows):
    assert forecast_of(pack, count, **query)["windows"] == windows


def test_time_is_that_of_the_last_run_in_proportion(pack):
    _, run_times = pack
    assert forecast_of(pack)["seconds"] is None
    settings = run_times.SamplingSettings(seed=1, steps=10)
    context = run_times.ContextOptions()
    work = run_times.Work.of(16, **SIZE, settings=settings, context=context)
    for seconds in ({"sample": 1.0}, SECONDS):
        run_times.remember_run("a.safetensors", work, seconds)
    expected = {
        66: {},
        126: {"steps": "20"},
        # Without guidance, half the passes.
        36: {"guidance_scale": "1"},
        # Steps and guidance are quality's, so the preset's are taken: 4 of the 20 passes.
        18: {"preset": "lightning", "steps": "25"},
        6: {"denoise": "0"},
    }
    for total, changed in expected.items():
        assert forecast_of(pack, **changed)["seconds"] == pytest.approx(total), changed
    # 28 frames are two windows of 16.
    assert forecast_of(pack, 28)["seconds"] == pytest.approx(6 * 28 / 16 + 60 * 2)
    assert forecast_of(pack, checkpoint="b.safetensors")["seconds"] is None


def test_a_run_of_no_steps_is_no_measure(pack):
    _, run_times = pack
    settings = run_times.SamplingSettings(seed=1, denoise=0.0)
    context = run_times.ContextOptions()
    work = run_times.Work.of(16, **SIZE, settings=settings, context=context)
    run_times.remember_run("a.safetensors", work, SECONDS)
    assert forecast_of(pack)["seconds"] is None


@pytest.mark.parametrize("stored", ["", "[]", "{", '{"a.safetensors": 3}', '{"a.safetensors": {}}'])
def test_a_damaged_file_is_as_none(pack, tmp_path, stored):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run_times.json").write_text(stored)
    assert forecast_of(pack)["seconds"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": "many"},
        {"steps": "0"},
        {"guidance_scale": "x"},
        {"preset": "best"},
        {"context": "{"},
        {"context": '{"size": 3}'},
        {"context": '{"length": "long"}'},
        {"context": "[1]"},
    ],
)
def test_wrong_values_are_refused(pack, changed):
    with pytest.raises(Exception) as caught:
        forecast_of(pack, **changed)
    assert type(caught.value).__name__ == "AnimateDiffV2VError"


def test_every_socket_type_of_the_pack_has_a_colour():
    script = (PACK / "web" / "js" / "socket_colours.js").read_text(encoding="utf-8")
    coloured = set(re.findall(r'^  (\w+): "#[0-9a-f]{6}",$', script, re.MULTILINE))
    source = (PACK / "nodes" / "sockets.py").read_text(encoding="utf-8")
    of_comfyui = {"OPTICAL_FLOW"}
    assert coloured == set(re.findall(r'io\.Custom\("(\w+)"\)', source)) - of_comfyui
