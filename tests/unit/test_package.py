"""That the package is what its metadata say."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import animatediff_v2v
import pytest
from animatediff_v2v import version
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(
    path for part in ("pipeline", "nodes", "api", "cli") for path in (ROOT / part).rglob("*.py")
)


def test_requirements_are_the_dependencies():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert lines == PROJECT["project"]["dependencies"]


def test_the_version_is_the_one_of_the_project():
    assert animatediff_v2v.__version__ == PROJECT["project"]["version"]


def test_the_version_of_an_installed_package_is_its_metadata_s(monkeypatch, tmp_path):
    monkeypatch.setattr(version, "_PROJECT", tmp_path / "pyproject.toml")
    assert version.package_version() == metadata.version("animatediff-v2v")


def test_type_checkers_are_told_that_there_are_types():
    assert (ROOT / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["animatediff_v2v"]


def test_every_folder_of_code_is_a_package_that_is_installed():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES} | {"demo"}
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == {"animatediff_v2v"} | {
        "animatediff_v2v." + folder.replace("/", ".") for folder in folders
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_are_relative_and_the_pipeline_knows_no_host(path):
    """ComfyUI loads this folder under a module name of its own making."""
    host = {"comfy", "comfy_api", "folder_paths", "nodes", "server", "execution"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        roots = {name.split(".")[0] for name in names}
        assert "animatediff_v2v" not in roots
        if "pipeline" in path.relative_to(ROOT).parts:
            assert not roots & host


def test_the_registry_finds_what_it_needs():
    comfy = PROJECT["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"]
    lowest = ".".join(map(str, constant("nodes/__init__.py", "LOWEST_COMFYUI")))
    assert comfy["requires-comfyui"] == f">={lowest}"
    # Set here as well, the web folder would be served twice.
    assert "web" not in comfy
    address = f"{PROJECT['project']['urls']['Repository']}/main/"
    path = comfy["Icon"].removeprefix(address.replace("github.com", "raw.githubusercontent.com"))
    with Image.open(ROOT / path) as icon:
        assert icon.width == icon.height <= 400


def test_the_registrys_lint_is_ours_too():
    assert {"S102", "S307", "E702"} <= set(PROJECT["tool"]["ruff"]["lint"]["select"])


@pytest.mark.parametrize(
    "needed", ["__init__.py", "api", "cli", "demo/clip.mp4", "locales", "nodes", "pipeline", "web"]
)
def test_the_registrys_archive_keeps_what_nodes_need(needed):
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    assert all((ROOT / each).exists() for each in left_out)
    assert not any(f"{needed}/".startswith(f"{each}/") for each in left_out)


def constant(path, name):
    """The value that a module gives a name, without importing it."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")
