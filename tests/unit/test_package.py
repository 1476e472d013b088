"""The package matches its metadata."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
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
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 12
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(
    path
    for part in ("pipeline", "nodes", "api", "batch", "cli", "migrate")
    for path in (ROOT / part).rglob("*.py")
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
    heavy = {"diffusers", "transformers"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        roots = {name.split(".")[0] for name in names}
        assert "animatediff_v2v" not in roots
        assert not roots & heavy, "seconds to load, and not among the requirements"
        if "pipeline" in path.relative_to(ROOT).parts:
            assert not roots & host


def test_no_module_imports_itself_by_way_of_others():
    graph = import_graph({name_of(path): path for path in SOURCES})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_circle_of_imports_is_found(tmp_path):
    sources = {
        "pack": "",
        "pack.one": "from .folder import Two",
        "pack.folder": "if TYPE_CHECKING:\n    from .two import Two",
        "pack.folder.two": "from ..three import Three",
        "pack.three": "from . import one",
    }
    paths = {}
    for name, text in sources.items():
        stem = "/__init__" if name in ("pack", "pack.folder") else ""
        paths[name] = tmp_path / f"{name.replace('.', '/')}{stem}.py"
        paths[name].parent.mkdir(exist_ok=True)
        paths[name].write_text(text)
    with pytest.raises(CycleError) as found:
        TopologicalSorter(import_graph(paths)).prepare()
    assert set(found.value.args[1]) == {"pack.one", "pack.folder.two", "pack.three"}
    paths["pack.three"].write_text("def late():\n    from . import one")
    TopologicalSorter(import_graph(paths)).prepare()


def import_graph(paths):
    """The modules that each module imports as it is imported, by name."""
    graph = {}
    for name, path in paths.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        imported = set()
        for node in imports_of(path, for_types=False):
            base = base_of(node, package)
            imported |= {home_of(base, alias.name, paths) for alias in node.names}
            # From outside, a package is imported whole before what is taken of it.
            is_outside = not f"{package}.".startswith(f"{base}.")
            imported = imported | {base} if is_outside else imported - {base}
        graph[name] = {each for each in imported if each in paths and each != name}
    return graph


def imports_of(path, *, for_types):
    """Relative imports at the top of a module: those for types alone, or all others."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_for_types == for_types:
            for each in node.body if isinstance(node, ast.If) else [node]:
                if isinstance(each, ast.ImportFrom) and each.level:
                    yield each


def base_of(node, package):
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def home_of(base, name, paths):
    """The module that defines what `from base import name` gives, through packages' exports."""
    if f"{base}.{name}" in paths:
        return f"{base}.{name}"
    if base in paths and paths[base].stem == "__init__":
        for for_types in (False, True):
            for node in imports_of(paths[base], for_types=for_types):
                if name in {alias.asname or alias.name for alias in node.names}:
                    return home_of(base_of(node, base), name, paths)
    return base


def name_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "path",
    [
        path
        for part in ("pipeline", "nodes", "api", "batch", "cli", "migrate")
        for path in sorted((ROOT / part).rglob("*.py"))
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_functions_are_short_and_take_few_parameters(path):
    """At most 60 lines and 12 parameters; nodes take an input for each parameter."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name == "execute" and "nodes" in path.relative_to(ROOT).parts:
            continue
        where = f"{node.name}, line {node.lineno}"
        assert node.end_lineno - node.lineno < LONGEST_FUNCTION, where
        given = [each.arg for each in node.args.posonlyargs + node.args.args]
        given += [each.arg for each in node.args.kwonlyargs]
        assert len(set(given) - {"self", "cls"}) <= MOST_PARAMETERS, where


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
    path = comfy["Banner"].removeprefix(address.replace("github.com", "raw.githubusercontent.com"))
    with Image.open(ROOT / path) as banner:
        assert banner.width * 9 == banner.height * 21


def test_the_registrys_lint_is_ours_too():
    assert {"S102", "S307", "E702"} <= set(PROJECT["tool"]["ruff"]["lint"]["select"])


@pytest.mark.parametrize(
    "needed",
    [
        "__init__.py",
        "api",
        "batch",
        "cli",
        "demo/clip.mp4",
        "locales",
        "migrate",
        "nodes",
        "pipeline",
        "web",
    ],
)
def test_the_registrys_archive_keeps_what_nodes_need(needed):
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    assert all((ROOT / each).exists() for each in left_out)
    assert not any(f"{needed}/".startswith(f"{each}/") for each in left_out)


def constant(path, name):
    """Return the value of a module's constant, without importing it."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"])
def test_pages_for_contributors_name_what_is_there(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https:)([^)#]+)", text):
        assert (path.parent / link).exists(), link
    named = re.findall(r"`((?:pipeline|nodes|api|cli|migrate|demo|tests|web|docs)/[\w./]+)`", text)
    assert named or page == "SECURITY.md"
    for each in named:
        assert (ROOT / each).exists() or "your_node" in each or "YourNode" in each, each


def test_recipes_name_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Recipes")[1]
    for path, names in re.findall(r"^\d\. `([\w/.]+\.py)`:((?:.|\n(?!\d))*)", text, re.MULTILINE):
        if "your_node" in path:
            continue
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`(_?[A-Z][A-Z_]+|test_\w+)`", names):
            assert name in source, f"{path}: {name}"
