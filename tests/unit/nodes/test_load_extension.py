"""A host that cannot load the pack is told the reason in one sentence."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
from animatediff_v2v.nodes import load_extension, version_numbers

PACK = Path(__file__).parents[3]
TOO_OLD = "AnimateDiff V2V needs ComfyUI 0.14.0 or newer"

# What a host is made of, for Python processes of their own.
NO_NODE_API = "sys.modules['comfy_api'] = None"
V1_ONLY = "add_package('comfy_api')"
V3 = """
add_package("comfy_api")
add_package("comfy_api.latest")
sys.modules["comfyui_version"] = types.SimpleNamespace(__version__={version!r})
"""
# As ComfyUI loads a folder of custom_nodes, under a name that is a path.
LOAD = """
import asyncio, importlib.util, logging, sys, types
from unittest.mock import Mock
from importlib.machinery import ModuleSpec
def add_package(name):
    sys.modules[name] = Mock(__path__=[], __spec__=ModuleSpec(name, None))
logging.basicConfig(format="%(message)s")
{host}
path = {path!r}
spec = importlib.util.spec_from_file_location(path.replace(".", "_x_"), path + "/__init__.py")
pack = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
if getattr(pack, "NODE_CLASS_MAPPINGS", None) is None and {has_entrypoint}:
    try:
        asyncio.run(pack.comfy_entrypoint())
    except Exception as error:
        logging.warning(f"Error while calling comfy_entrypoint in {{path}}: {{error}}")
"""


def said(host, *, has_entrypoint):
    """Return the log of a host with these properties."""
    script = LOAD.format(host=host, path=str(PACK), has_entrypoint=has_entrypoint)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.strip().splitlines()


@pytest.mark.parametrize("host", [NO_NODE_API, V1_ONLY])
def test_host_that_knows_v1_nodes_only(host):
    (sentence,) = said(host, has_entrypoint=False)
    assert sentence == f"{TOO_OLD}, and this one is older: update ComfyUI."


def test_host_that_is_too_old():
    (sentence,) = said(V3.format(version="0.3.64"), has_entrypoint=True)
    assert sentence.endswith(f"{TOO_OLD}, and this is 0.3.64: update ComfyUI.")


@pytest.mark.parametrize("package", ["tokenizers", "av", "imageio", "imageio_ffmpeg", "torchsde"])
def test_host_that_lacks_a_package(package):
    host = V3.format(version="0.33.0") + f"sys.modules[{package!r}] = None"
    (sentence,) = said(host, has_entrypoint=True)
    assert f"needs the Python package {package!r}" in sentence
    assert "pip install -r requirements.txt" in sentence


def test_python_that_asks_for_another_name_hears_no_more_than_usual():
    import animatediff_v2v

    with pytest.raises(AttributeError, match="has no attribute 'NODES'"):
        _ = animatediff_v2v.NODES


@pytest.mark.parametrize("version", ["0.3.64", "0.13.9", "0.13"])
def test_old_comfyui(monkeypatch, version):
    module = types.ModuleType("comfyui_version")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "comfyui_version", module)
    with pytest.raises(RuntimeError, match=rf"needs ComfyUI 0\.14\.0 or newer.*{version}"):
        load_extension()


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.14.0", (0, 14, 0)), ("0.33.0-rc1", (0, 33, 0)), ("1.0.0+local", (1, 0, 0))],
)
def test_version_numbers(version, numbers):
    assert version_numbers(version) == numbers
