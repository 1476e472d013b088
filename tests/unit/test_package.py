"""That the package is what its metadata say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(
    path for part in ("pipeline", "nodes", "api") for path in (ROOT / part).rglob("*.py")
)


def test_requirements_are_the_dependencies():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert lines == PROJECT["project"]["dependencies"]


def test_every_folder_of_code_is_a_package_that_is_installed():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES}
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
