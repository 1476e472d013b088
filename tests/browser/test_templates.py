"""The templates open from the template browser without a warning, and run in the page."""

from __future__ import annotations

import itertools
import shutil

import pytest
from animatediff_v2v.demo.install import CLIP_NAME

from ..host.comfy_server import PACK
from .conftest import TEMPLATES

ONE = "ADV2V_VideoToVideo"
GRAPH, ONE_NODE, TRY_IT_NOW = TEMPLATES[2], TEMPLATES[1], TEMPLATES[0]
BUTTON = "get_miniature"
FORM_BUTTON = "animatediff-v2v-get-miniature"
# Those without ComfyUI's own loaders, for which 2 GB are written.
RUN_ON_MINIATURE = {"03", "04", "05", "06", "07", "09"}
MINIATURE = ("checkpoints/miniature", "animatediff_models/miniature_motion")
# Left, top, right and bottom of each node, titles included, in units of the graph.
BOXES = """() => {
  const { scale } = app.canvas.ds;
  return app.graph.nodes.map((node) => {
    const card = document.querySelector(`[data-node-id="${node.id}"]`);
    const size = card && card.getBoundingClientRect();
    const [width, height] = card
      ? [size.width / scale, size.height / scale]
      : [node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT];
    const [x, y] = [node.pos[0], node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT];
    return [node.type, x, y, x + width, y + height];
  });
}"""
# The lower edge of the result, in pixels of the window.
PLAYER_BOTTOM = """Math.max(...[...document.querySelectorAll("video")]
  .filter((video) => video.src.includes("AnimateDiffV2V"))
  .map((video) => video.getBoundingClientRect().bottom))"""
# What hangs out of its node.
SPILT = """() => {
  const page = app.canvas.canvas.getBoundingClientRect(), { scale, offset } = app.canvas.ds;
  const bottoms = app.graph.nodes.map(({ id, pos, size }) => {
    const card = document.querySelector(`[data-node-id="${id}"]`);
    const box = card?.getBoundingClientRect();
    const [x, y] = [0, 1].map((axis) => (pos[axis] + offset[axis]) * scale);
    return box ?? new DOMRect(page.x + x, page.y + y, size[0] * scale, size[1] * scale);
  });
  return [...document.querySelectorAll("video, textarea, .comfy-markdown-content")]
    .map((each) => [each, each.getBoundingClientRect()])
    .filter(([each, box]) => box.width && bottoms.some(({ left, right, top, bottom }) =>
      box.left >= left - 1 && box.right <= right + 1
        && box.top > top && box.top < bottom && box.bottom > bottom + 2))
    .map(([each]) => each.outerHTML.slice(0, 80));
}"""


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_opens_without_a_warning(frontend, name):
    frontend.open_template(name, fit=False)
    page = frontend.page
    page.wait_for_timeout(1500)
    unknown = "app.graph.nodes.filter((node) => node.has_errors || !node.constructor.nodeData"
    assert not page.evaluate(f"{unknown} && node.type !== 'MarkdownNote').map((node) => node.type)")
    frontend.shot(name)
    for sign in (".p-dialog", ".p-toast-message", "[data-testid=error-overlay]"):
        shown = page.locator(sign)
        assert not shown.count(), shown.first.inner_text()
    for kind, widget in (("ADV2V_LoadVideo", "video"), ("LoadVideo", "file"), (ONE, "video")):
        if page.evaluate("(kind) => app.graph.nodes.some(({ type }) => type === kind)", kind):
            frontend.choose(kind, widget, "picture.mp4")
            page.wait_for_function(
                "() => [...document.querySelectorAll('video')].some("
                "(video) => video.readyState >= 1)"
            )
    page.wait_for_timeout(1500)
    frontend.shot(f"{name} with a clip")
    overlapping = [
        (one[0], other[0])
        for one, other in itertools.combinations(page.evaluate(BOXES), 2)
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ]
    assert not overlapping
    assert not page.evaluate(SPILT)


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
    frontend.wait_for_strip("8 of 16 frames · 8 fps · 1 s · 96 × 64")
    frontend.choose("ADV2V_LoadVideo", "select_every_nth_frame", 4)
    frontend.wait_for_strip("4 of 16 frames · 4 fps · 1 s · 96 × 64")
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


# The last widgets of the one node before the button for uploads, in the order in which they came.
ADDED = {
    "width": 0,
    "height": 0,
    "frame_load_cap": 0,
    "match_source": 0,
    "restore_frames": False,
    "refine": 1,
    "refine_denoise": 0.35,
    "refine_upscale": "image",
}


@pytest.mark.parametrize("missing", [8, 5], ids=["from before width", "from before match_source"])
def test_a_graph_from_before_a_widget_keeps_its_values(frontend, missing):
    """The value of the upload button stood where the value of a later widget stands now."""
    frontend.open_template(ONE_NODE)
    saved = frontend.page.evaluate("app.graph.serialize()")
    for node in saved["nodes"]:
        if node["type"] == ONE:
            assert node["widgets_values"][-9:] == [*ADDED.values(), "image"]
            node["widgets_values"] = [*node["widgets_values"][: -missing - 1], "image"]
    frontend.page.evaluate("(graph) => app.loadGraphData(graph)", saved)
    (shown,) = frontend.shown(ONE)
    values = {"filename_prefix": "video/AnimateDiffV2V", **ADDED, "upload": "image"}
    assert {name: shown[name] for name in values} == values


def test_templates_are_listed_by_number(frontend):
    offered = frontend.page.evaluate(
        "async () => (await import('/scripts/api.js')).api.getWorkflowTemplates()"
    )
    assert offered["animatediff-v2v"] == TEMPLATES


def test_a_template_opens_as_large_as_the_window(frontend):
    page = frontend.page
    frontend.open_template(GRAPH, fit=False)
    scale, (left, top) = page.evaluate("[app.canvas.ds.scale, [...app.canvas.ds.offset]]")
    assert 0.7 <= scale <= 0.75
    boxes = page.evaluate(BOXES)
    # To the right of the menu on the left, below that at the top.
    assert (min(box[1] for box in boxes) + left) * scale >= 60
    assert (min(box[2] for box in boxes) + top) * scale >= 88
    assert (max(box[3] for box in boxes) + left) * scale <= page.viewport_size["width"]
    assert (max(box[4] for box in boxes) + top) * scale <= page.viewport_size["height"]


def remove_miniature(frontend, server):
    for name in MINIATURE:
        (server.folder / "models" / f"{name}.safetensors").unlink(missing_ok=True)
    (server.folder / "input" / CLIP_NAME).unlink(missing_ok=True)
    frontend.page.evaluate("app.refreshComboInNodes()")


def wait_for_result(page):
    page.wait_for_function(
        "() => [...document.querySelectorAll('video')].some("
        "(video) => video.src.includes('AnimateDiffV2V') && video.readyState >= 2)"
    )


def test_the_miniature_comes_and_runs(frontend, server):
    page = frontend.page
    remove_miniature(frontend, server)
    frontend.open_template(TRY_IT_NOW, fit=False)
    # It is offered in the note, and in the node above the clip.
    assert page.evaluate(f"{FIND}[0].name") == BUTTON
    # A graph that is saved now can be read.
    saved = page.evaluate(f"app.graph.serialize().nodes.find(({{ type }}) => type === '{ONE}')")
    assert saved["widgets_values"][1] == "a green square on a purple background"
    frontend.shot("try it now, before")
    page.locator("a", has_text="Get the miniature").click()
    page.wait_for_function(f"() => !{FIND}.some(({{ name }}) => name === '{BUTTON}')")
    for name in MINIATURE:
        file = server.folder / "models" / f"{name}.safetensors"
        assert file.read_bytes() == (PACK / "demo" / "models" / f"{name}.safetensors").read_bytes()
    # The rest is as the template has it; this is as much as shows that it runs.
    frontend.choose(ONE, "frame_load_cap", 8)
    frontend.choose(ONE, "num_inference_steps", 2 + len(frontend.renderer) % 2)
    page.get_by_test_id("queue-button").click()
    # What the node is doing is told above its frames; some frontends take it away at the end.
    page.wait_for_function(f"() => {STAGE} > 0 && {FIND}[{STAGE} + 1]?.name === 'selection'")
    wait_for_result(page)
    # The clip, the node and the result are on the screen, as the template was opened.
    page.wait_for_timeout(500)
    assert page.evaluate(PLAYER_BOTTOM) <= page.viewport_size["height"]
    frontend.shot("try it now, after")


def test_the_button_in_the_node_gets_the_miniature(frontend, server):
    page = frontend.page
    remove_miniature(frontend, server)
    frontend.open_template(ONE_NODE, fit=False)
    # Other files are missing, too: the page of the tests has those that the template names.
    frontend.choose(ONE, "base_model", "missing.safetensors")
    saved = page.evaluate("app.graph.serialize()")
    page.evaluate("(graph) => app.loadGraphData(graph)", saved)
    frontend.choose(ONE, "video", "")
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("() => Object.keys(app.lastNodeErrors ?? {}).length")
    page.wait_for_function("() => app.graph.nodes.some(({ has_errors }) => has_errors)")
    button = f"{FIND}.find(({{ name }}) => name === '{BUTTON}')"
    if frontend.renderer == "nodes 2.0":
        page.get_by_role("button", name="Get the miniature").click()
    else:
        page.evaluate(f"{button}.callback()")
    page.wait_for_function(f"() => !{button}")
    (shown,) = frontend.shown(ONE)
    assert shown["base_model"] == "miniature.safetensors" and shown["video"] == CLIP_NAME
    # Nothing is left of the run that failed.
    assert page.evaluate("Object.keys(app.lastNodeErrors ?? {})") == []
    page.wait_for_function("() => !app.graph.nodes.some(({ has_errors }) => has_errors)")
    page.get_by_test_id("error-overlay").wait_for(state="hidden")


def test_the_form_of_app_mode_offers_the_miniature(frontend, server):
    """The form shows the button where files are missing; in the graph, the node has its own."""
    page = frontend.page
    remove_miniature(frontend, server)
    frontend.open_template(TRY_IT_NOW, fit=False)
    offered = page.get_by_test_id("animatediff-v2v-selection").locator("button")
    page.wait_for_function(f"() => !document.querySelector('.{FORM_BUTTON}').hidden")
    assert not offered.is_visible()
    frontend.command("Comfy.ToggleLinear")
    try:
        offered.wait_for()
        frontend.shot("app mode before the miniature")
        offered.click()
        page.get_by_text("The miniature is installed").first.wait_for()
        offered.wait_for(state="hidden")
        (shown,) = frontend.shown(ONE)
        assert shown["base_model"] == "miniature.safetensors" and shown["video"] == CLIP_NAME
    finally:
        frontend.command("Comfy.ToggleLinear")


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name[:2] in RUN_ON_MINIATURE])
def test_a_template_runs_on_the_miniature(frontend, name):
    """Press the button in its note, and Run; then nothing in the graph is red."""
    page = frontend.page
    frontend.open_template(name, fit=False)
    page.locator("a", has_text="Get the miniature").click()
    page.get_by_text("The miniature is installed").first.wait_for()
    # The rest is as the template has it; this is as much as shows that it runs.
    frontend.choose("ADV2V_LoadVideo", "frame_load_cap", 8)
    frontend.choose("ADV2V_Sampler", "steps", 2)
    assert frontend.run() == "success"
    wait_for_result(page)
    assert not page.evaluate("app.graph.nodes.filter(({ has_errors }) => has_errors).length")
    frontend.shot(f"{name} on the miniature")


FIND = f"app.graph.nodes.find(({{ type }}) => type === '{ONE}').widgets"
STAGE = f"{FIND}.findIndex(({{ name }}) => name === '$$node-text-preview')"
FORM = ["video", "frames", "prompt", "base_model", "motion_module", "denoise"]
FORM += ["select_every_nth_frame", "frame_load_cap", "width", "height"]


# As the server does while a node runs.
TELL = """async ([event, detail]) => { const { api } = await import('/scripts/api.js');
  api.dispatchEvent(new CustomEvent(event, { detail })); }"""


@pytest.mark.parametrize("width", [1600, 412])
def test_the_form_of_app_mode(frontend, server, tmp_path, width):
    """Clip, frames, prompt, checkpoint, strength and the button, on a screen and on a phone."""
    page = frontend.page
    frontend.open_template(ONE_NODE)
    frontend.choose(ONE, "video", "clip.mp4")
    before = page.viewport_size
    page.set_viewport_size({"width": width, "height": 915})
    frontend.command("Comfy.ToggleLinear")
    try:
        if width < 600:  # A phone shows the form and the result one at a time.
            page.get_by_text("Edit & Run").click()
        fields = page.get_by_test_id("app-mode-widget-item")
        fields.first.wait_for()
        frontend.shot(f"app mode {width}")
        assert [each.inner_text().split("\n")[0] for each in fields.all()] == FORM
        # What is left out is said.
        frontend.wait_for_strip("8 of 16 frames · 8 fps")
        assert "8 of 16 frames" in fields.all()[1].inner_text()
        # Again and again.
        for name in ("first.mp4", "second.mp4"):
            upload = tmp_path / name
            shutil.copy(server.folder / "input" / "clip.mp4", upload)
            with page.expect_file_chooser() as chooser:
                fields.first.locator("label").last.click()
            chooser.value.set_files(upload)
            page.wait_for_function(f"() => {FIND}[0].value === '{name}'")
        frontend.wait_for_strip("8 of 16 frames · 8 fps")
        stage = page.get_by_test_id("animatediff-v2v-stage")
        page.evaluate(TELL, ["progress_text", {"nodeId": "2", "text": "Reading the video…\n\nFew"}])
        stage.get_by_text("Reading the video…", exact=True).wait_for()
        page.evaluate(TELL, ["execution_interrupted", {"prompt_id": "none"}])
        stage.wait_for(state="detached")
        for field in fields.all():
            box = field.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.get_by_test_id("linear-run-button").count()
    finally:
        page.set_viewport_size(before)
        frontend.command("Comfy.ToggleLinear")
        page.wait_for_timeout(500)
    # The strip is in its node again.
    frontend.wait_for_strip("8 of 16 frames")
