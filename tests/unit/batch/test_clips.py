"""The clips that inputs name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from animatediff_v2v.batch.clips import find_clips
from animatediff_v2v.pipeline import AnimateDiffV2VError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.MOV", "deep/c.mkv", "deep/frames/1.png", ".hidden.mp4", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "old.mp4").touch()
    return tmp_path / "in"


def names(*inputs, out):
    return [clip.name.as_posix() for clip in find_clips(inputs, out=out)]


def test_a_folder_gives_its_videos_and_folders_of_pictures_but_not_the_results(folder):
    assert names(folder, out=folder / "out") == ["a", "b", "deep/c", "deep/frames"]
    assert names(folder / "deep" / "frames", out=folder / "out") == ["frames"]


def test_patterns_and_files_keep_their_order(folder):
    given = (folder / "b.mp4", f"{folder}/deep/*.mkv", f"{folder}/*.M*")
    assert names(*given, out=folder / "out") == ["b", "c", "a"]


def test_clips_with_the_same_name_get_their_own(tmp_path):
    for name in ("a.mp4", "a.mov", "x/a.mp4", "y/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = names(
        *(tmp_path / each for each in ("a.mp4", "a.mov", "x/a.mp4", "y/a.mp4")),
        out=tmp_path / "out",
    )
    assert found == ["a", "a-mov", "a-mp4", "a-2"]


def test_tables_have_settings_for_each_clip(tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text(
        'Input,output,prompt,Guidance Scale\na.mp4,,"a fox, red",3\nb.mp4,deep/best.mp4,,\n'
    )
    first, second = find_clips([table], out=tmp_path / "out")
    assert (first.path, first.name) == (tmp_path / "a.mp4", Path("a"))
    assert first.settings == {"prompt": "a fox, red", "guidance_scale": "3"}
    assert (second.name, second.settings) == (Path("deep/best"), {})
    assert second.origin == f"{table}, line 3"
    lines = tmp_path / "clips.jsonl"
    lines.write_text(json.dumps({"input": "a.mp4", "lora": ["x:0.5", "y"], "seed": 1}) + "\n\n")
    (only,) = find_clips([lines], out=tmp_path / "out")
    assert only.settings == {"lora": ["x:0.5", "y"], "seed": 1}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.csv", "input,seed\na.mp4,1,2\n", "line 2: it has more values"),
        ("t.csv", "seed\n1\n", "line 2: it names no clip"),
        ("t.csv", "input\n", "has no rows"),
        ("t.csv", "input,output\na.mp4,../x.mp4\n", "output is ../x.mp4; give a name within"),
        ("t.jsonl", "{", "line 1 is not JSON"),
        ("t.jsonl", "[1]", "line 1 is not an object"),
        ("t.jsonl", b"\xff", "is not UTF-8 text"),
        ("none/*.mp4", None, "No file matches"),
        ("gone.csv", None, "cannot be read"),
        ("empty", "folder", "holds no video and no pictures"),
    ],
)
def test_errors_are_sentences(tmp_path, name, text, sentence):
    path = tmp_path / name
    if text == "folder":
        path.mkdir()
    elif text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        find_clips([path], out=tmp_path / "out")
