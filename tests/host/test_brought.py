"""Graphs of other packs in a running ComfyUI: routes, node replacement, what loaders read."""

from __future__ import annotations

import shutil

import pytest
from animatediff_v2v.migrate.known import known_nodes, targets

from .conftest import FRAMES
from .test_behaviour import encode_video, load_video, streams

NATIVE = {
    "class_type": "CheckpointLoaderSimple",
    "inputs": {"ckpt_name": "miniature_native.safetensors"},
}


def test_the_targets_are_those_of_comfyui(object_info):
    """Nodes of other packs that stay, and nodes that only newer ComfyUIs have, may be missing."""
    for node_id, target in targets().items():
        if node_id not in object_info:
            assert node_id.startswith("IPAdapter") or node_id == "ComfyNumberConvert"
            continue
        info = object_info[node_id]
        names = {name for part in ("required", "optional") for name in info["input"].get(part, {})}
        ours = {name.rstrip("?") for name in target.sockets} | {
            name for name, (kind, _) in target.widgets.items() if kind not in ("control", "upload")
        }
        assert ours <= names, node_id
        assert set(info["input"].get("required", {})) <= ours
        outputs = [kind if isinstance(kind, str) else "COMBO" for kind in info["output"]]
        assert list(target.outputs.values()) == outputs


def test_graphs_are_converted_by_a_route(server):
    graph = {
        "1": NATIVE,
        "2": {"class_type": "ADE_UseEvolvedSampling", "inputs": {"model": ["1", 0]}},
        "3": {"class_type": "VHS_LoadVideo", "inputs": {"video": "clip.mp4"}},
    }
    status, answer = server.post("/animatediff_v2v/convert", graph)
    assert status == 200 and answer["graph"]["3"]["class_type"] == "ADV2V_LoadVideo"
    assert answer["report"]["summary"].startswith("The graph was converted: 1 converted, 1 dropped")
    status, answer = server.post("/animatediff_v2v/convert", {"1": NATIVE})
    assert (status, answer["graph"]) == (200, None)
    status, answer = server.post("/animatediff_v2v/convert", [])
    assert status == 400 and "holds no graph" in answer["error"]
    listed = server.get("/animatediff_v2v/other_packs")
    assert listed["animatediff"]["ADE_UseEvolvedSampling"] == "AnimateDiff-Evolved"
    assert listed["others"]["VHS_LoadVideo"] == "VideoHelperSuite"
    assert "VHS_LoadAudio" not in listed["others"]  # it stays


def test_nodes_that_map_one_to_one_are_replaced_by_comfyui(server):
    listed = server.get("/node_replacements")
    for name in ("VHS_VideoInfo", "ADE_StandardStaticContextOptions"):
        (replacement,) = listed[name]
        assert replacement["new_node_id"] == known_nodes()[name].to
        assert replacement["old_widget_ids"] == list(known_nodes()[name].widgets)
    prompt = {
        "load": load_video(frame_load_cap=3),
        "size": {
            "class_type": "ImageSizeAndBatchSize",
            "inputs": {"image": ["load", 0]},
            "_meta": {"title": "Size"},
        },
        "encode": encode_video(["load", 0], loop_count=["size", 2]),
    }
    (path,) = server.files(server.run(prompt))
    assert streams(path)[1] == 3 * (3 + 1)


@pytest.mark.parametrize("name", ["below/clip.mp4", "../outside.mp4", "pictures"])
def test_files_and_folders_below_the_input_folder(server, name):
    inputs = server.folder / "input"
    (inputs / "below").mkdir(exist_ok=True)
    (inputs / "pictures").mkdir(exist_ok=True)
    shutil.copy(inputs / "clip.mp4", inputs / "below" / "clip.mp4")
    for number in range(3):
        shutil.copy(inputs / "picture.png", inputs / "pictures" / f"{number}.png")
    prompt = {
        "load": load_video(video=name, select_every_nth_frame=1),
        "encode": encode_video(["load", 0]),
    }
    if name.startswith(".."):
        shutil.copy(inputs / "clip.mp4", server.folder / "outside.mp4")
        with pytest.raises(AssertionError, match="There is no video"):
            server.run(prompt)
        return
    (path,) = server.files(server.run(prompt))
    assert streams(path)[1] == (3 if name == "pictures" else FRAMES)
    listed = server.get("/object_info/ADV2V_LoadVideo")["ADV2V_LoadVideo"]["input"]["required"]
    assert name in listed["video"][1].get("options", listed["video"][0])


def test_video_info(server):
    prompt = {
        "load": load_video(select_every_nth_frame=2),
        "info": {"class_type": "ADV2V_VideoInfo", "inputs": {"video_info": ["load", 4]}},
        "encode": encode_video(["load", 0], fps=["info", 5], loop_count=["info", 6]),
    }
    (path,) = server.files(server.run(prompt))
    assert streams(path)[1] == FRAMES // 2 * (FRAMES // 2 + 1)
