"""A graph of other packs is opened, converted, run and undone in the page."""

from __future__ import annotations

from animatediff_v2v.pipeline.video import probe_video

from ..unit.migrate.graphs import checkpoint, context, gen1, node, sampler, workflow

NOTICE = "[data-testid=animatediff-v2v-convert-notice]"
TYPES = "() => app.graph.nodes.map((node) => node.last_serialization?.type ?? node.type)"
SAME = ["ProbeNarrowNetworks", "VAEEncode", "KSampler", "VAEDecode"]
BEFORE = ["ADE_StandardStaticContextOptions", "ADE_AnimateDiffLoaderGen1"]
BEFORE += ["VHS_LoadVideo", "VHS_VideoCombine", *SAME]
AFTER = ["ADV2V_ContextOptions", "ADV2V_ApplyMotion", "ADV2V_LoadVideo", "ADV2V_EncodeVideo", *SAME]
FRAMES = 6


def graph():
    """Video to video in two windows, with drawn networks."""
    rates = {"force_rate": 0, "frame_load_cap": FRAMES, "skip_first_frames": 0}
    rates |= {"select_every_nth": 2}
    combine = {"frame_rate": 8, "loop_count": 0, "filename_prefix": "converted"}
    nodes = [
        context(1, widgets=(4, 2, "flat", False, 0, 1)),
        gen1(
            2,
            (5, 0),
            ("narrow_motion.safetensors", "autoselect"),
            context_options=("CONTEXT_OPTIONS", 1, 0),
        ),
        node(3, "VHS_LoadVideo", {"video": "clip.mp4", **rates}, ["IMAGE", "INT", "AUDIO"]),
        node(
            4,
            "VHS_VideoCombine",
            combine | {"format": "video/h264-mp4", "pingpong": False, "save_output": True},
            ["VHS_FILENAMES"],
            images=("IMAGE", 8, 0),
            audio=("AUDIO", 3, 2),
        ),
        node(5, "ProbeNarrowNetworks", [], ["MODEL", "CONDITIONING", "VAE"]),
        node(6, "VAEEncode", [], ["LATENT"], pixels=("IMAGE", 3, 0), vae=("VAE", 5, 2)),
        node(
            7,
            "KSampler",
            [1, "fixed", 2, 2.0, "euler", "normal", 0.6],
            ["LATENT"],
            model=("MODEL", 2, 0),
            positive=("CONDITIONING", 5, 1),
            negative=("CONDITIONING", 5, 1),
            latent_image=("LATENT", 6, 0),
        ),
        node(8, "VAEDecode", [], ["IMAGE"], samples=("LATENT", 7, 0), vae=("VAE", 5, 2)),
    ]
    for index, each in enumerate(nodes):
        each["pos"] = [80 + 420 * (index % 4), 120 + 400 * (index // 4)]
    return workflow(*nodes, groups=[{"title": "Mine", "bounding": [60, 40, 400, 300]}])


def test_a_graph_is_converted_run_and_undone(frontend, server):
    page = frontend.page
    page.evaluate("(graph) => app.loadGraphData(graph)", graph())
    notice = page.locator(NOTICE)
    notice.wait_for()
    says = "This graph uses 2 nodes of AnimateDiff-Evolved and 2 of VideoHelperSuite."
    assert says in notice.inner_text()
    page.keyboard.press("Escape")  # the list of missing nodes
    page.wait_for_timeout(500)
    frontend.shot("graph of other packs")
    notice.get_by_text("Convert", exact=True).click()
    page.get_by_text("The graph can be converted: 4 converted, 4 same.").wait_for()
    page.get_by_text("2 ADE_AnimateDiffLoaderGen1: converted into Apply AnimateDiff").wait_for()
    frontend.shot("report of a conversion")
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_function(f"(types) => ({TYPES})().join() === types.join()", arg=AFTER)
    page.wait_for_timeout(1000)
    frontend.shot("converted graph")
    assert not notice.count()
    assert page.evaluate("app.graph.groups.map(({ title }) => title)") == ["Mine"]
    wait_for_growth(frontend)
    page.mouse.click(800, 900)  # the empty canvas
    page.wait_for_timeout(300)
    frontend.press("Control+z")
    page.wait_for_function(f"(types) => ({TYPES})().join() === types.join()", arg=BEFORE)
    frontend.press("Control+y")
    page.wait_for_function(f"(types) => ({TYPES})().join() === types.join()", arg=AFTER)
    (shown,) = frontend.shown("ADV2V_LoadVideo")
    assert (shown["video"], shown["select_every_nth_frame"]) == ("clip.mp4", 2)
    assert frontend.run() == "success"
    video = max((server.folder / "output").glob("converted_*.mp4"))
    assert probe_video(video).frame_count == FRAMES
    frontend.wait_for_file(video.name)
    frontend.shot("converted graph after its run")


def wait_for_growth(frontend):
    """Wait until Load Video has its strip and its player, and its size no longer changes."""
    frontend.page.locator("[data-testid=animatediff-v2v-selection] img").first.wait_for()
    frontend.page.wait_for_function(
        "() => document.querySelector('.dom-widget video, [data-node-id] video')?.readyState >= 2"
    )
    frontend.page.wait_for_timeout(1000)


def test_other_graphs_raise_no_notice(frontend):
    page = frontend.page
    page.evaluate("(graph) => app.loadGraphData(graph)", workflow(checkpoint(), sampler(2, (1, 0))))
    page.wait_for_timeout(800)
    assert not page.locator(NOTICE).count()
    frontend.command("AnimateDiffV2V.ConvertGraph")
    page.get_by_text("it has no nodes of AnimateDiff").first.wait_for()
