"""The names that nodes use from `host` exist; no other test without ComfyUI would notice."""

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).parents[3] / "nodes"
MODULES = sorted(path for path in NODES.rglob("*.py") if path.parent.name != "host")


def exported():
    tree = ast.parse((NODES / "host" / "__init__.py").read_text(encoding="utf-8"))
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return {alias.name for node in imports for alias in node.names}


def used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "host"
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_host_exports_what_a_module_uses(path):
    assert used(path) <= exported()


def test_names_are_found():
    assert "model_path" in used(NODES / "loading.py")
