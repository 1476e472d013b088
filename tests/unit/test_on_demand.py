"""Packages that import their modules late: what they give, and what they do not load."""

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
    assert set(package._places) == set(package.__all__)
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


def test_settings_need_neither_pytorch_nor_a_decoder():
    code = """
import sys
from animatediff_v2v.pipeline import *
from animatediff_v2v.pipeline.request import Request, ModelFiles, SamplingSettings
ModelFiles(checkpoint="a.safetensors")
Request(input="a.mp4", output="b.mp4", prompt="", sampling=SamplingSettings(seed=1))
"""
    late = "print([name for name in ('torch', 'diffusers', 'av', 'scipy') if name in sys.modules])"
    assert run(code + late) == "[]"
