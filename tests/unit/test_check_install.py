"""`make check-install` finds packages that would not install, on an index of a few small wheels."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from uv import find_uv_bin

SCRIPT = Path(__file__).parents[2] / ".ci/check_install.py"
# The packages of the index: their file names and what they need.
WHEELS = {
    "torch-2.0-py3-none-any.whl": ["triton==3.7.1"],
    "triton-3.7.1-py3-none-any.whl": [],
    "triton-3.9.0-py3-none-any.whl": [],
    "numpy-1.0-cp310-cp310-win_amd64.whl": [],
    "numpy-2.0-py3-none-any.whl": [],
    "transformers-4.57.1-py3-none-any.whl": ["huggingface-hub<1"],
    "transformers-5.1.0-py3-none-any.whl": ["huggingface-hub>=1"],
    "huggingface_hub-0.36.0-py3-none-any.whl": [],
    "huggingface_hub-1.5.0-py3-none-any.whl": [],
    "uv-1.0-py3-none-any.whl": [],
    "tokenizers-1.0-py3-none-any.whl": ["huggingface-hub>=0.16"],
    "diffusers-0.9-py3-none-any.whl": ["huggingface-hub"],
    "diffusers-1.0-py3-none-any.whl": ["huggingface-hub>=1"],
}
PROJECT = """[project]
name = "pack"
version = "1"
requires-python = ">=3.10"
classifiers = ["Programming Language :: Python :: 3.10"]
dependencies = ["torch", "numpy"]
"""
LOCK = "torch==2.0\ntriton==3.7.1\nnumpy==2.0\n"
REQUIREMENTS = "tokenizers\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    for wheel, needs in WHEELS.items():
        name, version, *_ = wheel.split("-")
        page = folder / name.replace("_", "-")
        page.mkdir(exist_ok=True)
        with zipfile.ZipFile(page / wheel, "w") as archive:
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += [f"Requires-Dist: {each}" for each in needs]
            archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
            archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
            archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
        links = [f'<a href="{each.name}">{each.name}</a>' for each in page.glob("*.whl")]
        (page / "index.html").write_text("<!DOCTYPE html><body>" + "".join(links))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def script(index, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("UV_DEFAULT_INDEX", index)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "uv"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    spec = importlib.util.spec_from_file_location("check_install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_install", module)
    spec.loader.exec_module(module)
    return module


def check(script, folder, lock=LOCK, requirements=REQUIREMENTS):
    folder.joinpath("pyproject.toml").write_text(PROJECT)
    folder.joinpath("constraints.txt").write_text(lock)
    folder.joinpath("requirements.txt").write_text(requirements)
    return script.check(folder, find_uv_bin())


def test_a_lock_that_resolves_passes(script, tmp_path, capsys):
    assert check(script, tmp_path) == 0
    words = capsys.readouterr().out
    assert "5 of 5 resolved" in words
    assert "resolved  constraints.txt for Python 3.10, macos" in words


@pytest.mark.parametrize(
    ("lock", "failed"),
    [
        (LOCK.replace("==3.7.1", "==3.9.0"), {"linux", "windows", "macos"}),
        (LOCK.replace("numpy==2.0", "numpy==1.0"), {"linux", "macos"}),
    ],
    ids=["contradiction", "no wheel for a system"],
)
def test_a_lock_that_does_not_resolve_fails_with_the_machine_and_the_reason(
    lock, failed, script, tmp_path, capsys
):
    assert check(script, tmp_path, lock=lock) == 1
    told = capsys.readouterr().out
    for platform in ("linux", "windows", "macos"):
        word = "FAILED  " if platform in failed else "resolved"
        assert f"{word}  constraints.txt for Python 3.10, {platform}" in told
    assert "No solution found" in told


def test_requirements_that_lift_huggingface_hub_under_an_older_transformers_fail(
    script, tmp_path, capsys
):
    assert check(script, tmp_path, requirements="diffusers\n") == 1
    told = capsys.readouterr().out
    assert "FAILED    requirements.txt in a ComfyUI with transformers==4.57.*" in told
    assert "huggingface_hub would become 1.5.0" in told
    assert "resolved  requirements.txt in a ComfyUI with transformers==5.*" in told


def test_requirements_that_name_transformers_take_what_suits_it(script, tmp_path):
    assert check(script, tmp_path, requirements="transformers\ndiffusers\n") == 0


def test_an_index_that_does_not_answer_is_told_and_fails_nothing(script, monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    assert script.main() == 0
    assert "the package index did not answer" in capsys.readouterr().out


def test_an_index_that_answers_is_not_taken_for_silent(script, index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index)
    assert script.index_answers()
