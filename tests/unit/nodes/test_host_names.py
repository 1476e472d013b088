"""The names that nodes use from `host` exist; no other test without ComfyUI would notice."""

import ast
from pathlib import Path

import pytest
from animatediff_v2v.nodes import host

NODES = Path(__file__).parents[3] / "nodes"
MODULES = sorted(path for path in NODES.rglob("*.py") if path.parent.name != "host")


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
    assert used(path) <= set(host.__all__)


def test_every_name_that_is_exported_is_there():
    """Its modules need ComfyUI, so that their sources are read."""
    assert set(host._modules) == set(host.__all__)
    for name, module in host._modules.items():
        source = Path(host.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        assert name in defined_in(source), f"{module}.{name}"


def defined_in(source):
    """The names that a module gives to values, functions and classes."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets}
    return names


def test_names_are_found():
    assert "model_path" in used(NODES / "loading.py")
