"""A host that cannot carry the pack hears why in one sentence."""

import sys
import types

import pytest
from animatediff_v2v.nodes import load_extension, version_numbers


def host(monkeypatch, version):
    module = types.ModuleType("comfyui_version")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "comfyui_version", module)


@pytest.mark.parametrize("version", ["0.3.64", "0.13.9", "0.13"])
def test_old_comfyui(monkeypatch, version):
    host(monkeypatch, version)
    with pytest.raises(RuntimeError, match=rf"needs ComfyUI 0\.14\.0 or newer.*{version}"):
        load_extension()


def test_missing_package(monkeypatch):
    host(monkeypatch, "0.33.0")
    monkeypatch.setitem(sys.modules, "animatediff_v2v.nodes.extension", None)
    with pytest.raises(RuntimeError, match=r"needs the Python package .*requirements\.txt"):
        load_extension()


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.14.0", (0, 14, 0)), ("0.33.0-rc1", (0, 33, 0)), ("1.0.0+local", (1, 0, 0))],
)
def test_version_numbers(version, numbers):
    assert version_numbers(version) == numbers
