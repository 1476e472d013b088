"""The search for nodes knows the words of those who come from other packs."""

from __future__ import annotations

import pytest

from ..unit.nodes.declared import schemas

NAMES = {schema.display_name for schema in schemas().values()}
VIDEOS = {"Load Video (every nth frame)", "Select Frames (every nth)", "Encode Video"}
VIDEOS |= {"AnimateDiff Video to Video"}


@pytest.mark.parametrize(("text", "names"), [("animatediff", NAMES), ("vhs", VIDEOS)])
def test_the_search_finds_the_nodes(frontend, text, names):
    page = frontend.page
    frontend.command("Workspace.SearchBox.Toggle")
    try:
        page.wait_for_timeout(1000)
        page.keyboard.type(text)
        found = page.get_by_test_id("result-item")
        found.first.wait_for()
        page.wait_for_timeout(1000)
        shown = {each.inner_text().split("\n")[0] for each in found.all()}
        assert names <= shown
    finally:
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
