"""A hook of MkDocs: adds pages from outside docs/, and turns links into those of the site.

Links in the repository's pages work on GitHub. Those to files that are no pages lead there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Where files of the repository are in the site; folders with all that is in them.
PLACES = {
    "docs": "",
    "web/docs": "nodes",
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
    "benchmarks/graphs.md": "benchmarks/graphs.md",
    "demo/README.md": "demo/README.md",
}
PICTURES = (".gif", ".jpg", ".png", ".svg")
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")


def site_path(path: str) -> str | None:
    """Return where a file of the repository is in the site, or None if it is not there."""
    for source, place in PLACES.items():
        if path == source:
            return place
        if path.startswith(f"{source}/"):
            return posixpath.join(place, path.removeprefix(f"{source}/"))
    return path if path.endswith(PICTURES) else None


def on_config(config: Any) -> Any:
    """List the nodes in the navigation by the titles of their pages."""
    pages = sorted((ROOT / "web" / "docs").glob("*.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for page in pages]
    entries = [{title: f"nodes/{page.name}"} for title, page in zip(titles, pages, strict=True)]
    config.nav = [{"Nodes": entries} if "Nodes" in each else each for each in config.nav]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages and pictures that lie outside docs/."""
    for source in PLACES:
        path = ROOT / source
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file() and source != "docs":
                _add(files, each, config)
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            target = ROOT / _repository_path(page, link[1])
            if target.suffix in PICTURES and target.is_file():
                _add(files, target, config)
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point each relative link at the site's page, or at the file on GitHub."""

    def pointed(found: re.Match[str]) -> str:
        path = _repository_path(page.file, found[2])
        place = site_path(path)
        if place is None or files.get_file_from_path(place) is None:
            if files.get_file_from_path(posixpath.join(place or "", "README.md")) and place:
                place = posixpath.join(place, "README.md")
            else:
                return f"{found[1]}{config.repo_url}/blob/main/{path}"
        return found[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(pointed, markdown)


def _add(files: Files, path: Path, config: Any) -> None:
    place = site_path(path.relative_to(ROOT).as_posix())
    if place is not None and files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, abs_src_path=str(path)))


def _repository_path(file: File, link: str) -> str:
    source = Path(file.abs_src_path).relative_to(ROOT).as_posix()
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
