"""Packages that import their modules late: their exports, and modules that stay unloaded."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["pipeline", "pipeline.files", "pipeline.prompts", "pipeline.sampling", "pipeline.video"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name):
    package = import_module(f"animatediff_v2v.{name}")
    assert all(getattr(package, each) is not None for each in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    assert set(package._modules) == set(package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = package.nonsense


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_module_of_the_name_of_its_function_does_not_take_its_place():
    code = """
import animatediff_v2v.pipeline.video_to_video
import animatediff_v2v.pipeline as pipeline
from animatediff_v2v.pipeline import video_to_video
import animatediff_v2v.pipeline.video.thumbnails
from animatediff_v2v.pipeline.video import thumbnails
print(callable(video_to_video), callable(thumbnails), pipeline.sampling.Span().end)
"""
    assert run(code) == "True True 1.0"


COMMAND = "from animatediff_v2v.cli.main import main"
FOLDERS = "from animatediff_v2v.demo.install import DEMO_FOLDER"
REFUSED = {
    "inspect, missing": ("main(['inspect', 'gone.safetensors'])", "1"),
    "inspect": (
        "main(['inspect', *map(str, DEMO_FOLDER.rglob('*.safetensors'))])",
        "0",
    ),
    "install, missing": ("main(['demo', '--install-models', 'gone'])", "2"),
    "install all, missing": ("main(['demo', '--native', '--install-models', 'gone'])", "2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_are_told_and_refused_without_pytorch(name):
    call, code = REFUSED[name]
    heavy = "[name for name in ('torch', 'diffusers', 'av') if name in sys.modules]"
    said = run(f"import sys\n{COMMAND}\n{FOLDERS}\nprint({call}, {heavy})")
    assert said.splitlines()[-1] == f"{code} []"


def test_settings_need_neither_pytorch_nor_a_decoder():
    code = """
import sys
from animatediff_v2v.pipeline import FrameSelection, Guidance, LoraEntry, ModelFiles, Request
from animatediff_v2v.pipeline import ContextOptions, ControlFile, SamplingSettings, SpeedOptions
ModelFiles(checkpoint="a.safetensors")
Request(input="a.mp4", output="b.mp4", prompt="", sampling=SamplingSettings(seed=1))
"""
    late = "print([name for name in ('torch', 'diffusers', 'av', 'scipy') if name in sys.modules])"
    assert run(code + late) == "[]"
