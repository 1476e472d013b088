"""The widgets of web/js survive copy, paste, undo, subgraphs and a reload of the page."""

from __future__ import annotations

import pytest

STACK, LOAD, JOB = "ADV2V_LoraStack", "ADV2V_LoadVideo", "ADV2V_VideoToVideo"
SELECT = "ADV2V_SelectFrames"
MODEL, SAMPLER, CONTEXT = "ADV2V_LoadModel", "ADV2V_Sampler", "ADV2V_ContextOptions"
CHECKPOINT = "checkpoint.safetensors"
LORA = "style_lora.safetensors"


def slots(*numbers):
    return [
        f"{name}_{number}"
        for number in numbers
        for name in ("lora", "model_strength", "clip_strength")
    ]


def test_slots_follow_what_is_chosen(frontend):
    frontend.add(STACK)
    assert [list(each) for each in frontend.shown(STACK)] == [slots(1)]
    frontend.choose(STACK, "lora_1", LORA)
    frontend.choose(STACK, "model_strength_1", 0.4)
    assert list(frontend.shown(STACK)[0]) == slots(1, 2)
    frontend.choose(STACK, "lora_2", LORA)
    frontend.choose(STACK, "lora_1", "None")
    assert list(frontend.shown(STACK)[0]) == slots(1, 2)
    assert frontend.shown(STACK)[0]["model_strength_1"] == 0.4


def test_slots_survive(frontend):
    frontend.add(STACK, lora_1=LORA, model_strength_1=0.4, lora_2=LORA)
    before = frontend.shown(STACK)
    assert list(before[0]) == slots(1, 2, 3)

    frontend.select(STACK)
    frontend.press("Control+c")
    frontend.press("Control+v")
    assert frontend.shown(STACK) == before * 2
    frontend.press("Control+z")
    assert frontend.shown(STACK) == before
    frontend.choose(STACK, "lora_2", "None")
    assert list(frontend.shown(STACK)[0]) == slots(1, 2)
    frontend.press("Control+z")
    assert frontend.shown(STACK) == before

    frontend.choose(STACK, "clip_strength_2", 0.3)
    before = frontend.shown(STACK)
    frontend.reload()
    assert frontend.shown(STACK) == before
    enter_subgraph(frontend, STACK)
    assert frontend.shown(STACK) == before


@pytest.mark.parametrize("kind", [LOAD, JOB])
def test_the_upload_button_is_below_the_video(frontend, kind):
    """Saved graphs have its value behind the others, as without the script that moves it."""
    frontend.add(kind, video="clip.mp4", width=64)
    (before,) = frontend.shown(kind)
    assert list(before)[:2] == ["video", "upload"]
    saved = frontend.page.evaluate("app.graph.serialize()")
    assert saved["nodes"][0]["widgets_values"][-1] == "image"
    frontend.page.evaluate("(graph) => app.loadGraphData(graph)", saved)
    frontend.select(kind)
    frontend.press("Control+c")
    frontend.press("Control+v")
    settings = [name for name in before if name not in SHOWN]
    copies = [{name: each[name] for name in settings} for each in frontend.shown(kind)]
    assert copies == [{name: before[name] for name in settings}] * 2


# Not settings, but what a node shows.
SHOWN = ("selection", "video-preview")


def test_strip_survives(frontend):
    frontend.add(LOAD, video="clip.mp4")
    frontend.wait_for_strip("8 of 16 frames")
    frontend.choose(LOAD, "select_every_nth_frame", 4)
    frontend.wait_for_strip("4 of 16 frames")
    assert frontend.strips()[0][1] == 4

    frontend.press("Control+z")
    frontend.wait_for_strip("8 of 16 frames")
    frontend.select(LOAD)
    frontend.press("Control+c")
    frontend.press("Control+v")
    frontend.wait_for_strip("8 of 16 frames", "8 of 16 frames")
    frontend.press("Control+z")
    frontend.wait_for_strip("8 of 16 frames")

    frontend.choose(LOAD, "select_every_nth_frame", 8)
    frontend.reload()
    frontend.wait_for_strip("2 of 16 frames")
    enter_subgraph(frontend, LOAD)
    frontend.wait_for_strip("2 of 16 frames")


def test_strip_says_what_is_wrong(frontend):
    frontend.add(LOAD, video="clip.mp4", skip_first_frames=99)
    frontend.wait_for_strip("No frame of clip.mp4 is selected")


def test_strip_forgets_the_former_video_when_the_next_one_is_broken(frontend, server):
    (server.folder / "input" / "broken.mp4").write_bytes(b"no video")
    frontend.add(LOAD, video="clip.mp4")
    frontend.wait_for_strip("8 of 16 frames")
    frontend.page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")
    assert [name for _, name in frontend.previews()] == ["clip.mp4"]
    frontend.choose(LOAD, "video", "broken.mp4")
    frontend.wait_for_strip("broken.mp4")
    assert frontend.strips()[0][1] == 0
    assert "clip.mp4" not in [name for _, name in frontend.previews()]
    frontend.choose(LOAD, "video", "clip.mp4")
    frontend.wait_for_strip("8 of 16 frames")
    frontend.page.wait_for_function("() => document.querySelector('video')?.readyState >= 2")


def test_pictures_of_the_strip_are_large_enough(frontend):
    frontend.add(LOAD, video="picture.mp4")
    frontend.page.wait_for_function(
        "() => document.querySelectorAll('[data-testid=animatediff-v2v-selection] img').length"
    )
    frontend.show(LOAD)
    heights = frontend.page.evaluate(
        "[...document.querySelectorAll('[data-testid=animatediff-v2v-selection] img')]"
        ".map((each) => each.getBoundingClientRect().height / app.canvas.ds.scale)"
    )
    assert min(heights) >= 70 and len(heights) >= 2
    frontend.shot("strip")


CURVE = "document.querySelector('[data-testid=animatediff-v2v-curve]')"


def test_a_strength_curve_shows_its_curve(frontend):
    frontend.add("ADV2V_StrengthCurve", curve="0: 0.2, 24: 1.0 hold")
    drawn = f"() => {CURVE}?.textContent === '{{}}' && {CURVE}.querySelector('polyline')"
    frontend.page.wait_for_function(drawn.format("0.2 – 1 in frames 0 to 24"))
    frontend.show("ADV2V_StrengthCurve")
    points = frontend.page.evaluate(f"{CURVE}.querySelector('polyline').getAttribute('points')")
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 25 and len(set(heights[:24])) == 1 and heights[24] < heights[0]
    frontend.shot("curve")
    frontend.choose("ADV2V_StrengthCurve", "curve", "0%: 1, 50%: 0.2")
    frontend.page.wait_for_function(drawn.format("0.2 – 1 over the steps, 0 % to 100 %"))
    frontend.shot("curve over the steps")
    frontend.choose("ADV2V_StrengthCurve", "curve", "8: 1, 4: 0")
    frontend.page.wait_for_function(f"() => {CURVE}.textContent.includes('frame 4 comes after')")
    assert frontend.page.evaluate(f"{CURVE}.querySelector('polyline').getAttribute('points')") == ""


def test_one_node_tells_what_it_will_do(frontend):
    frontend.add(JOB, video="clip.mp4", base_model="another.safetensors")
    frontend.wait_for_strip("8 of 16 frames · 8 fps · 1 s · 96 × 64\n1 window · time unknown")
    frontend.choose(JOB, "base_model", CHECKPOINT)
    frontend.choose(JOB, "num_inference_steps", 2)
    assert frontend.run() == "success"
    frontend.wait_for_strip("8 of 16 frames · 8 fps · 1 s · 96 × 64\n1 window · takes ")
    frontend.show(JOB)
    frontend.shot("one node")


def test_the_miniature_advises_what_to_change_for_other_sizes(frontend):
    """The advice stands beside the figures, and takes nothing from the pictures."""
    page = frontend.page
    frontend.add(JOB, video="clip.mp4", base_model="miniature.safetensors")
    frontend.wait_for_strip("8 of 16 frames · 8 fps · 1 s · 96 × 64\n1 window · t")
    frontend.show(JOB)
    advice, room = page.evaluate(ADVICE)
    assert advice == SIZE.format(checkpoint="base_model")
    frontend.shot("advice")
    frontend.choose(JOB, "width", 128)
    frontend.choose(JOB, "height", 128)
    frontend.wait_for_strip("8 of 16 frames · 8 fps · 1 s · 128 × 128\n1 window")
    suited = page.evaluate(ADVICE)
    assert suited[0] == "" and suited[1] < room


STRIP = "document.querySelector('[data-testid=animatediff-v2v-selection]')"
# The sentence, and the pixels that the node keeps free for the strip.
ADVICE = f"""() => [{STRIP}.children[1].textContent, app.graph.nodes[0].widgets.find(
  ({{ name }}) => name === 'selection').options.getMinHeight()]"""
SIZE = (
    "The miniature only knows coloured shapes of 128 × 128 pixels. To try it, set width and height"
    " to 128; for real videos, choose another {checkpoint} and motion_module."
)


def test_sampler_tells_what_it_will_do(frontend):
    frontend.add(SAMPLER)
    frontend.add(LOAD, video="clip.mp4")
    frontend.connect(LOAD, 0, SAMPLER, "images")
    wait_for_forecast(frontend, "8 frames · 1 s · 1 window")
    frontend.add(CONTEXT, length=4, overlap=0)
    frontend.connect(CONTEXT, 0, SAMPLER, "context_options")
    wait_for_forecast(frontend, "8 frames · 1 s · 2 windows")
    frontend.add(MODEL, checkpoint=CHECKPOINT)
    frontend.connect(MODEL, 0, SAMPLER, "model")
    # It was measured with the one node.
    wait_for_forecast(frontend, "8 frames · 1 s · 2 windows · takes ")
    frontend.show(SAMPLER)
    frontend.shot("sampler")
    frontend.choose(MODEL, "checkpoint", "miniature.safetensors")
    wait_for_forecast(frontend, SIZE.format(checkpoint="checkpoint"))
    frontend.choose(LOAD, "video", "missing.mp4")
    wait_for_forecast(frontend, "missing.mp4")


def test_sampler_knows_the_frames_of_comfyuis_own_loader(frontend):
    frontend.add(SAMPLER)
    frontend.add("LoadVideo", file="clip.mp4")
    frontend.add(SELECT, select_every_nth_frame=4)
    frontend.connect("LoadVideo", 0, SELECT, "video")
    frontend.connect(SELECT, 0, SAMPLER, "images")
    wait_for_forecast(frontend, "4 frames · 1 s · 1 window")


def wait_for_forecast(frontend, says):
    frontend.page.wait_for_function(
        "(says) => document.querySelector('[data-testid=animatediff-v2v-forecast]')"
        "?.textContent.includes(says)",
        arg=says,
    )


def test_sockets_have_colours_in_every_palette(frontend):
    page = frontend.page
    frontend.add(SAMPLER)
    frontend.show(SAMPLER)
    for palette in ("light", "dark"):
        frontend.set("Comfy.ColorPalette", palette)
        page.wait_for_timeout(500)
        colours = page.evaluate(
            "[app.canvas.default_connection_color_byType.ADV2V_MODEL,"
            " LGraphCanvas.link_type_colors.ADV2V_MODEL]"
        )
        assert colours == ["#9575cd"] * 2
        if frontend.renderer != "canvas":
            seen = page.evaluate(
                "[...document.querySelectorAll('[data-node-id] *')].flatMap((each) =>"
                " { const { backgroundColor, fill } = getComputedStyle(each);"
                " return [backgroundColor, fill]; })"
            )
            assert "rgb(149, 117, 205)" in seen


def enter_subgraph(frontend, kind):
    """Turn a node into a subgraph, and look inside."""
    frontend.page.evaluate(
        "(type) => { const node = app.graph.nodes.find((each) => each.type === type);"
        " const { subgraph, node: outer } = app.graph.convertToSubgraph(new Set([node]));"
        " app.canvas.openSubgraph(subgraph, outer); }",
        kind,
    )
    frontend.page.wait_for_function(
        "(type) => app.canvas.graph !== app.graph && app.canvas.graph.nodes[0]?.type === type",
        arg=kind,
    )
