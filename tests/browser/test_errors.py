"""Errors that can be known in advance are shown on their node before anything runs."""

from __future__ import annotations

GRAPH = "06 Long Video"


def test_windows_longer_than_the_motion_module_are_refused_in_the_graph(frontend):
    frontend.open_template(GRAPH)
    page = frontend.page
    frontend.choose("ADV2V_LoadVideo", "video", "clip.mp4")
    frontend.choose("ADV2V_ContextOptions", "length", 64)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("() => Object.keys(app.lastNodeErrors ?? {}).length > 0")
    (refused,) = page.evaluate("Object.values(app.lastNodeErrors)")
    assert refused["class_type"] == "ADV2V_ContextOptions"
    assert "64 frames are more than" in refused["errors"][0]["details"]
    # Newer frontends only say that a node refuses its input; the reason is two clicks away.
    said = page.get_by_text("64 frames are more than").or_(page.get_by_text("Invalid input"))
    said.first.wait_for()
    frontend.shot("refused")
    page.keyboard.press("Escape")
