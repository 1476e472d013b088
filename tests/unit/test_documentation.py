"""Links and names in the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .nodes.declared import ANY_FILE, schemas

ROOT = Path(__file__).parents[2]
GENERATED = {".venv", ".venv-clients", "build", "node_modules", "site", "shared"}
PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not GENERATED & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.replace(" ", "-") for heading in plain}


def dead_links(page, text):
    """The links of a page to files or headings that are not there."""
    for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        known = anchors(target.read_text(encoding="utf-8")) if anchor and target.exists() else ()
        if not target.exists() or (anchor and anchor not in known):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page):
    assert not list(dead_links(page, page.read_text(encoding="utf-8")))


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    text = "# One and two\n[a](gone.md) [b](#one-and-two) [c](#three) [d](https://e.f) [g](page.md)"
    page.write_text(text)
    assert list(dead_links(page, text)) == ["gone.md", "#three"]


def test_the_wish_list_names_what_is_there():
    """Each name in the right column is an input, an output, a choice or a socket."""
    text = (ROOT / "docs" / "coming-from-animatediff-evolved.md").read_text(encoding="utf-8")
    known = {"LORA_STACK", "VHS_VIDEOINFO", "IMAGE", "input", "animatediff-v2v run"}
    for schema in schemas().values():
        known |= {each.name for each in schema.inputs}
        known |= {each.display_name for each in schema.outputs}
        for each in schema.inputs:
            known |= set(each.options.get("options", ())) - {ANY_FILE}
    rows = [line.split(" | ", 1)[1] for line in text.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 40 and named <= known
