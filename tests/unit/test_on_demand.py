"""Packages that import their modules late: their exports, and modules that stay unloaded."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = [
    "pipeline",
    "pipeline.files",
    "pipeline.models",
    "pipeline.prompts",
    "pipeline.sampling",
    "pipeline.video",
]


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


# What ComfyUI does with a pack as it starts, up to the nodes' schemas; the rest of it stands in.
START = """
import asyncio, importlib, runpy, sys
from types import SimpleNamespace
from unittest.mock import Mock
names = "comfy comfy.cli_args comfy_execution comfy_execution.utils server"
host = {name: Mock() for name in names.split()}
host["folder_paths"] = SimpleNamespace(
    models_dir=FOLDER,
    folder_names_and_paths={},
    supported_pt_extensions={".safetensors"},
    add_model_folder_path=lambda name, path: host["folder_paths"].folder_names_and_paths.update(
        {name: ([path], set())}
    ),
    get_filename_list=lambda name: [],
    get_input_directory=lambda: FOLDER,
    get_user_directory=lambda: FOLDER,
)
host["comfyui_version"] = SimpleNamespace(__version__="0.33.0")
sys.modules.update(host | runpy.run_path(DECLARED)["node_api"]())
pack = importlib.import_module("animatediff_v2v")
extension = asyncio.run(pack.comfy_entrypoint())
asyncio.run(extension.on_load())
nodes = asyncio.run(extension.get_node_list())
print(len([node.define_schema() for node in nodes]) >= 15)
roots = {name.split(".")[0] for name in sys.modules}
slow = {"diffusers", "transformers", "scipy", "imageio", "av", "torchsde", "pydantic"}
print(sorted(roots & slow))
print([name for name in sys.modules if ".pipeline.models." in name])
"""


def test_comfyui_starts_without_what_runs_the_nodes(tmp_path):
    """Users who use none of the nodes neither wait for the networks nor keep them in memory."""
    declared = Path(__file__).parent / "nodes" / "declared.py"
    said = run(f"FOLDER = {str(tmp_path)!r}\nDECLARED = {str(declared)!r}\n{START}")
    assert said.splitlines() == ["True", "[]", "[]"]
    assert (tmp_path / "animatediff_models").is_dir()
