"""The help pages open with their pictures, and nodes speak the reader's language."""

from __future__ import annotations

import json

import pytest

from ..host.comfy_server import PACK

NODE_IDS = sorted(path.stem for path in (PACK / "web" / "docs").glob("*.md"))
# One page is enough for all languages, which saves loading two.
LANGUAGES = ("ja", "fr")


def test_help_pages_open_with_their_pictures(frontend):
    page = frontend.page
    for node_id in NODE_IDS:
        # It would cover the button of the next node.
        frontend.set("Comfy.RightSidePanel.IsOpen", False)
        frontend.clear()
        frontend.add(node_id)
        frontend.show(node_id)
        frontend.select(node_id)
        page.get_by_test_id("info-button").click()
        panel = page.get_by_test_id("properties-panel")
        title = (PACK / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        heading = title.splitlines()[0].removeprefix("# ")
        panel.locator("h1", has_text=heading).wait_for()
        pictures = panel.locator("img")
        assert pictures.count() > 0, node_id
        page.wait_for_function(
            "() => [...document.querySelectorAll('[data-testid=properties-panel] img')]"
            ".every((picture) => picture.naturalWidth > 0)"
        )
    frontend.shot("help")
    frontend.set("Comfy.RightSidePanel.IsOpen", False)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_speak_the_readers_language(frontend, language):
    path = PACK / "locales" / language / "nodeDefs.json"
    texts = json.loads(path.read_text(encoding="utf-8"))["ADV2V_Sampler"]
    frontend.set("Comfy.Locale", language)
    try:
        frontend.reload()
        frontend.clear()
        frontend.add("ADV2V_Sampler")
        frontend.show("ADV2V_Sampler")
        node = "app.graph.nodes[0]"
        assert frontend.page.evaluate(f"{node}.title") == texts["display_name"]
        labels = frontend.page.evaluate(
            f"Object.fromEntries({node}.widgets.map((each) => [each.name, each.label]))"
        )
        for name in ("steps", "denoise", "guidance_scale", "preset"):
            assert labels[name] == texts["inputs"][name]["name"]
        frontend.shot(f"language {language}")
    finally:
        frontend.set("Comfy.Locale", "en")
        frontend.reload()
