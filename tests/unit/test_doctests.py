"""The examples in docstrings give what they show."""

import doctest
import importlib
from contextlib import nullcontext
from pathlib import Path

import pytest

from .nodes.declared import without_comfyui

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for folder in ("pipeline", "api", "cli", "migrate", "nodes", "demo")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    assert len(MODULES) > 10


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    with without_comfyui() if name.startswith("nodes.") else nullcontext():
        module = importlib.import_module(f"animatediff_v2v.{name}")
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed
