"""The widgets of web/js survive copy, paste, undo, subgraphs and a reload of the page."""

from __future__ import annotations

STACK, LOAD = "ADV2V_LoraStack", "ADV2V_LoadVideo"
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


def test_strip_survives(frontend):
    frontend.add(LOAD, video="clip.mp4")
    frontend.wait_for_strip("8 frames")
    frontend.choose(LOAD, "select_every_nth_frame", 4)
    frontend.wait_for_strip("4 frames")
    assert frontend.strips()[0][1] == 4

    frontend.press("Control+z")
    frontend.wait_for_strip("8 frames")
    frontend.select(LOAD)
    frontend.press("Control+c")
    frontend.press("Control+v")
    frontend.wait_for_strip("8 frames", "8 frames")
    frontend.press("Control+z")
    frontend.wait_for_strip("8 frames")

    frontend.choose(LOAD, "select_every_nth_frame", 8)
    frontend.reload()
    frontend.wait_for_strip("2 frames")
    enter_subgraph(frontend, LOAD)
    frontend.wait_for_strip("2 frames")


def test_strip_says_what_is_wrong(frontend):
    frontend.add(LOAD, video="clip.mp4", skip_first_frames=99)
    frontend.wait_for_strip("No frame of clip.mp4 is selected")


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
