"""Results are shown as what they are, play by themselves, and can be saved, paused and hidden."""

from __future__ import annotations

from pathlib import Path

from ..host.conftest import FRAME_RATE

LOAD, ENCODE, JOB = "ADV2V_LoadVideo", "ADV2V_EncodeVideo", "ADV2V_VideoToVideo"
TITLES = {ENCODE: "Encode Video", JOB: "AnimateDiff Video to Video"}
# One of each kind of player, and each change between them.
FORMATS = {"mp4-h264": "VIDEO", "gif": "IMG", "webp": "IMG", "webm-vp9": "VIDEO"}
ORDER = ("mp4-h264", "gif", "webm-vp9", "webp", "gif", "webp", "mp4-h264")
# Formats whose files bring the graph back; the frontend reads neither gif nor mkv.
READ = ("mp4-h264", "mp4-h265", "mp4-av1", "webm-vp9", "mov-prores", "webp", "png")
TYPES = {".webm": "video/webm", ".webp": "image/webp", ".png": "image/png"}
PLAYING = """() => [...document.querySelectorAll('video')].filter((each) => each.checkVisibility())
  .map(({ src, paused, muted, loop }) =>
    [new URL(src).searchParams.get('filename'), !paused, muted, loop])"""


# The picture that is covered, where it is, the times of source and result, and what is shown.
COMPARED = """() => {
  const cover = document.querySelector('[data-testid=animatediff-v2v-compare]');
  if (!cover) return {};
  const source = cover.querySelector('video'), result = cover.parentElement.querySelector('video');
  const box = (each) => { const { x, y, width, height } = each.getBoundingClientRect();
    return [x, y, width, height]; };
  return { file: new URL(result.src).searchParams.get('filename'), isReady: source.readyState >= 2,
    of: new URL(source.src).searchParams.get('filename'), clip: source.style.clipPath,
    times: [source.currentTime, result.currentTime], paused: [source.paused, result.paused],
    box: box(cover), around: box(result), size: [result.videoWidth, result.videoHeight] };
}"""


def encode(frontend, **selection):
    frontend.add(LOAD, video="clip.mp4", frame_load_cap=4, **selection)
    frontend.add(ENCODE)
    frontend.connect(LOAD, 0, ENCODE, "images")
    frontend.connect(LOAD, 2, ENCODE, "fps")
    frontend.page.evaluate("app.graph.nodes[1].pos = [700, 150]")
    frontend.command("Comfy.Canvas.FitView")


def run(frontend):
    """Run the graph and wait until what it wrote is shown; return all that is shown."""
    assert frontend.run() == "success"
    frontend.wait_for_file(
        frontend.page.evaluate("app.nodeOutputs[app.graph.nodes.at(-1).id].images[0].filename")
    )
    return frontend.previews()


def test_a_result_of_another_kind_replaces_what_was_shown(frontend):
    encode(frontend)
    for number, name in enumerate(ORDER):
        frontend.choose(ENCODE, "format", name)
        frontend.choose(ENCODE, "filename_prefix", f"kind/{number}")
        shown = [each for each in run(frontend) if each[1] != "clip.mp4"]
        assert [(tag, file[0]) for tag, file in shown] == [(FORMATS[name], str(number))], name
    frontend.shot("result of another kind")


def test_the_result_of_the_one_node_follows_its_live_previews(frontend):
    # Files and seeds of the other renderer would be cached.
    seed = len(frontend.renderer)
    frontend.add(JOB, video="clip.mp4", num_inference_steps=2, frame_load_cap=4)
    frontend.command("Comfy.Canvas.FitView")
    for number in (1, 2):
        frontend.choose(JOB, "seed", seed + number)
        frontend.choose(JOB, "filename_prefix", f"one/{seed}{number}")
        ((tag, file),) = run(frontend)
        assert tag == "VIDEO" and file.startswith(f"{seed}{number}_")
    frontend.page.wait_for_timeout(1500)
    assert [name for _, name in frontend.previews()] == [file]
    # The live preview is gone.
    assert not frontend.page.locator(
        "[data-node-id] img[src^=blob], .dom-widget img[src^=blob]"
    ).count()
    frontend.shot("result of the one node")
    compare(frontend, JOB, file, start=0)


def test_previews_play_muted_in_a_loop_and_follow_the_menu(frontend):
    page = frontend.page
    encode(frontend)
    frontend.choose(ENCODE, "filename_prefix", "menu/result")
    file = run(frontend)[-1][1]
    both = {"clip.mp4": [True, True, True], file: [True, True, True]}
    page.wait_for_function(f"() => ({PLAYING})().every(([, isPlaying]) => isPlaying)")
    assert {name: rest for name, *rest in page.evaluate(PLAYING)} == both

    choose_in_menu(frontend, "Pause preview")
    assert {name: rest[0] for name, *rest in page.evaluate(PLAYING)} == {
        "clip.mp4": True,
        file: False,
    }
    choose_in_menu(frontend, "Sync preview")
    times = "[...document.querySelectorAll('video')].map((each) => each.currentTime)"
    assert min(page.evaluate(times)) == 0
    choose_in_menu(frontend, "Resume preview")
    assert {name: rest for name, *rest in page.evaluate(PLAYING)} == both

    choose_in_menu(frontend, "Hide preview")
    page.wait_for_timeout(500)
    assert [name for _, name in frontend.previews()] == ["clip.mp4"]
    frontend.shot("hidden preview")
    choose_in_menu(frontend, "Show preview")
    page.wait_for_timeout(500)
    assert {name for _, name in frontend.previews()} == {"clip.mp4", file}

    with page.expect_download() as download:
        choose_in_menu(frontend, "Save preview")
    assert download.value.suggested_filename == file
    with page.context.expect_page() as opened:
        choose_in_menu(frontend, "Open preview")
    assert file in opened.value.url
    opened.value.close()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose_in_menu(frontend, "Copy output filepath")
    page.wait_for_timeout(500)
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith(file) and Path(copied).is_absolute()


def test_a_result_is_compared_with_its_source(frontend):
    encode(frontend, skip_first_frames=4)
    frontend.choose(ENCODE, "filename_prefix", "compare/first")
    compare(frontend, ENCODE, run(frontend)[-1][1], start=4 / FRAME_RATE)
    # The next result, in whichever player it comes, and of other frames.
    choose_in_menu(frontend, "Compare with source")
    frontend.choose(LOAD, "skip_first_frames", 8)
    frontend.choose(ENCODE, "filename_prefix", "compare/second")
    run(frontend)
    frontend.page.wait_for_function(f"() => ({COMPARED})().file?.startsWith('second')")
    check_times(frontend, "Encode Video", start=8 / FRAME_RATE)
    choose_in_menu(frontend, "Stop comparing")
    # Played backwards, it has no times of the source.
    frontend.choose(ENCODE, "pingpong", True)
    open_menu(frontend, "Encode Video")
    assert not frontend.page.get_by_text("Compare with source", exact=True).count()
    frontend.page.mouse.click(300, 900)  # closes the menu


def compare(frontend, kind, file, *, start):
    """Compare the result of a node, move the divider, pause, and stop."""
    page, title = frontend.page, TITLES[kind]
    choose_in_menu(frontend, "Compare with source", title)
    page.get_by_test_id("animatediff-v2v-compare").wait_for()
    page.wait_for_function(f"() => ({COMPARED})().isReady")
    shown = page.evaluate(COMPARED)
    assert (shown["file"], shown["of"]) == (file, "clip.mp4")
    assert shown["clip"] == "inset(0px 50% 0px 0px)"
    # It covers the picture, not the bars beside it.
    (x, y, width, height), (left, top, wide, high) = shown["box"], shown["around"]
    scale = min(wide / shown["size"][0], high / shown["size"][1])
    assert abs(width - shown["size"][0] * scale) < 2 and abs(height - shown["size"][1] * scale) < 2
    assert abs(x + width / 2 - left - wide / 2) < 2 and abs(y + height / 2 - top - high / 2) < 2
    page.mouse.move(x + width / 4, y + height / 4)
    page.wait_for_timeout(200)
    clip = page.evaluate(COMPARED)["clip"]
    assert 73 < float(clip.split()[1].rstrip("%")) < 77, clip
    frontend.shot(f"compare {kind}")
    check_times(frontend, title, start=start)
    choose_in_menu(frontend, "Stop comparing", title)
    assert not page.get_by_test_id("animatediff-v2v-compare").count()


def check_times(frontend, title, *, start):
    """Pause, and check that source and result show the same time."""
    choose_in_menu(frontend, "Pause preview", title)
    frontend.page.wait_for_timeout(500)
    shown = frontend.page.evaluate(COMPARED)
    assert shown["paused"] == [True, True]
    source, result = shown["times"]
    assert abs(source - start - result) <= 0.11
    choose_in_menu(frontend, "Resume preview", title)


def choose_in_menu(frontend, label, title="Encode Video"):
    """Choose an entry of the menu of the last node, which has this title."""
    open_menu(frontend, title)
    frontend.page.get_by_text(label, exact=True).click()


def open_menu(frontend, title):
    page = frontend.page
    page.evaluate("app.canvas.selectItems([app.graph.nodes.at(-1)])")
    if frontend.renderer == "canvas":
        x, y = page.evaluate(
            "() => { const node = app.graph.nodes.at(-1), { scale, offset } = app.canvas.ds;"
            " const { x, y } = app.canvas.canvas.getBoundingClientRect();"
            " return [x + (node.pos[0] + offset[0] + 60) * scale,"
            " y + (node.pos[1] + offset[1] - 14) * scale]; }"
        )
        page.mouse.click(x, y, button="right")
    else:
        page.locator("[data-node-id]", has_text=title).locator(
            "[data-testid^=node-header], .lg-node-header"
        ).first.click(button="right")


def test_a_dropped_result_brings_its_graph_back(frontend):
    page = frontend.page
    encode(frontend)
    files = {}
    for number, name in enumerate(READ):
        frontend.choose(ENCODE, "format", name)
        frontend.choose(ENCODE, "filename_prefix", f"drop/{number}")
        assert frontend.run() == "success"
        path = Path(page.evaluate("app.nodeOutputs[app.graph.nodes.at(-1).id].paths[0]"))
        files[name] = path if path.is_file() else path / "00001.png"
    for name, path in files.items():
        frontend.clear()
        data = list(path.read_bytes())
        page.evaluate(
            "async ([bytes, name, type]) => { const carried = new DataTransfer();"
            " carried.items.add(new File([new Uint8Array(bytes)], name, { type }));"
            " document.dispatchEvent(new DragEvent('drop',"
            " { dataTransfer: carried, bubbles: true, cancelable: true })); }",
            [data, path.name, TYPES.get(path.suffix, "")],
        )
        page.wait_for_function("() => app.graph.nodes.length > 1")
        (shown,) = frontend.shown(ENCODE)
        assert shown["format"] == name
