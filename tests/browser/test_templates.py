"""The templates open from the template browser without a warning, and run in the page."""

from __future__ import annotations

import pytest

from .conftest import TEMPLATES

GRAPH = "Video to Video"


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_opens_without_a_warning(frontend, name):
    frontend.open_template(name)
    page = frontend.page
    page.wait_for_timeout(1500)
    unknown = "app.graph.nodes.filter((node) => node.has_errors || !node.constructor.nodeData"
    assert not page.evaluate(f"{unknown} && node.type !== 'MarkdownNote').map((node) => node.type)")
    frontend.shot(name)
    for sign in (".p-dialog", ".p-toast-message", "[data-testid=error-overlay]"):
        shown = page.locator(sign)
        assert not shown.count(), shown.first.inner_text()


def test_clip_goes_in_and_video_plays(frontend, tmp_path, server):
    frontend.open_template(GRAPH)
    page = frontend.page
    with page.expect_file_chooser() as chooser:
        page.evaluate(
            "app.graph.nodes.find((node) => node.type === 'ADV2V_LoadVideo')"
            ".widgets.find((widget) => widget.name === 'upload').callback()"
        )
    clip = tmp_path / "uploaded.mp4"
    clip.write_bytes((server.folder / "input" / "clip.mp4").read_bytes())
    chooser.value.set_files(clip)
    frontend.wait_for_strip("8 frames · 8 fps · 1 s · 96 × 64")
    frontend.choose("ADV2V_LoadVideo", "select_every_nth_frame", 4)
    frontend.wait_for_strip("4 frames · 4 fps · 1 s · 96 × 64")
    frontend.choose("ADV2V_Sampler", "steps", 3)
    # The results of the other renderer are cached.
    frontend.choose("ADV2V_Sampler", "seed", len(frontend.renderer))
    page.evaluate(
        "async () => { const { api } = await import('/scripts/api.js');"
        " window.seen = { progress: [], previews: 0 };"
        " api.addEventListener('progress', ({ detail }) =>"
        "   seen.progress.push(detail.value / detail.max));"
        " api.addEventListener('b_preview', () => { seen.previews += 1; }); }"
    )
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('video')].some("
        "(video) => video.src.includes('AnimateDiffV2V') && video.readyState >= 2)"
    )
    seen = page.evaluate("seen")
    assert seen["progress"][-1] == 1 and len(set(seen["progress"])) > 3
    assert seen["previews"] > 0
    frontend.shot("result")
