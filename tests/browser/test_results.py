"""Results are shown as what they are, play by themselves, and can be saved, paused and hidden."""

from __future__ import annotations

from pathlib import Path

LOAD, ENCODE, JOB = "ADV2V_LoadVideo", "ADV2V_EncodeVideo", "ADV2V_VideoToVideo"
# One of each kind of player, and each change between them.
FORMATS = {"mp4-h264": "VIDEO", "gif": "IMG", "webp": "IMG", "webm-vp9": "VIDEO"}
ORDER = ("mp4-h264", "gif", "webm-vp9", "webp", "gif", "webp", "mp4-h264")
# Formats whose files bring the graph back; the frontend reads neither gif nor mkv.
READ = ("mp4-h264", "mp4-h265", "mp4-av1", "webm-vp9", "mov-prores", "webp", "png")
TYPES = {".webm": "video/webm", ".webp": "image/webp", ".png": "image/png"}
PLAYING = """() => [...document.querySelectorAll('video')].filter((each) => each.checkVisibility())
  .map(({ src, paused, muted, loop }) =>
    [new URL(src).searchParams.get('filename'), !paused, muted, loop])"""


def encode(frontend):
    frontend.add(LOAD, video="clip.mp4", frame_load_cap=4)
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


def choose_in_menu(frontend, label):
    """Choose an entry of the menu of Encode Video."""
    page = frontend.page
    frontend.select(ENCODE)
    if frontend.renderer == "canvas":
        x, y = page.evaluate(
            "() => { const node = app.graph.nodes.at(-1), { scale, offset } = app.canvas.ds;"
            " const { x, y } = app.canvas.canvas.getBoundingClientRect();"
            " return [x + (node.pos[0] + offset[0] + 60) * scale,"
            " y + (node.pos[1] + offset[1] - 14) * scale]; }"
        )
        page.mouse.click(x, y, button="right")
    else:
        page.locator("[data-node-id]", has_text="Encode Video").locator(
            "[data-testid^=node-header], .lg-node-header"
        ).first.click(button="right")
    page.get_by_text(label, exact=True).click()


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
