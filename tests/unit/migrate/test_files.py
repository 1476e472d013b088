"""Graphs are read out of what ComfyUI and its packs save, and written whole or not at all."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from animatediff_v2v.cli.main import main
from animatediff_v2v.migrate.files import read_graph, write_graph
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.video import VideoWriter
from animatediff_v2v.pipeline.video.formats import format_by_suffix
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .graphs import checkpoint, gen1, workflow

GRAPH = workflow(checkpoint(), gen1(2), extra={"title": "ü 🎭"})
TEXT = json.dumps(GRAPH)
PROMPT = json.dumps({"1": {"class_type": "KSampler", "inputs": {}}})


def video(path, metadata):
    size = {"width": 16, "height": 16, "frame_rate": Fraction(8)}
    form = format_by_suffix(path)
    with VideoWriter(path, **size, format=form, metadata=metadata, overwrite=True) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mov", ".webp"])
def test_a_video_that_this_pack_wrote(tmp_path, suffix):
    video(tmp_path / f"a{suffix}", {"workflow": TEXT, "prompt": PROMPT})
    assert read_graph(tmp_path / f"a{suffix}") == GRAPH


def test_the_comment_that_videohelpersuite_wrote(tmp_path):
    for inner in ({"workflow": GRAPH}, {"prompt": PROMPT, "workflow": TEXT}):
        video(tmp_path / "a.mp4", {"comment": json.dumps(inner)})
        assert read_graph(tmp_path / "a.mp4") == GRAPH


def test_pictures(tmp_path):
    texts = PngInfo()
    texts.add_text("prompt", PROMPT)
    texts.add_text("workflow", json.dumps(GRAPH, ensure_ascii=False))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=texts)
    assert read_graph(tmp_path / "a.png") == GRAPH
    texts = PngInfo()
    texts.add_text("workflow", "{}")
    texts.add_text("prompt", PROMPT)
    Image.new("RGB", (8, 8)).save(tmp_path / "script.png", pnginfo=texts)
    assert read_graph(tmp_path / "script.png") == json.loads(PROMPT)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = f"Workflow:{TEXT}", f"Prompt:{PROMPT}"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=exif)
    assert read_graph(tmp_path / "a.webp") == GRAPH


@pytest.mark.parametrize(
    "content",
    [TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("0.4", "NaN").encode()],
)
def test_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert read_graph(tmp_path / "a.json")["nodes"] == GRAPH["nodes"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.json", None, "There is no file"),
        ("a.json", b"", "is empty"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"\xff\xfe{}", "cannot be read as text"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.png", b"\x89PNG\r\n\x1a\nxxxx", "cannot be read as a picture"),
        ("a.mp4", b"not a video at all", "cannot be read as a video"),
    ],
)
def test_files_that_hold_no_graph(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AnimateDiffV2VError, match=said):
        read_graph(tmp_path / name)


def test_a_picture_without_a_graph(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(AnimateDiffV2VError, match="holds no graph"):
        read_graph(tmp_path / "a.png")


def test_a_graph_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(AnimateDiffV2VError, match="cannot be written"):
        write_graph(GRAPH, tmp_path / "gone" / "a.json")
    with pytest.raises(TypeError):
        write_graph({"a": object()}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, capsys):
    source, target = tmp_path / "a.json", tmp_path / "a.converted.json"
    source.write_text(TEXT, encoding="utf-8")
    assert main(["convert", str(source)]) == 0
    assert capsys.readouterr().out == f"The graph was converted: 1 converted, 1 same.\n{target}\n"
    assert json.loads(target.read_text(encoding="utf-8"))["nodes"][1]["type"] == "ADV2V_ApplyMotion"
    assert main(["convert", str(source)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    target.write_text("mine", encoding="utf-8")
    assert main(["convert", str(source), "--report"]) == 0
    report = [
        "same      1 CheckpointLoaderSimple",
        "converted 2 ADE_AnimateDiffLoaderGen1 into ADV2V_ApplyMotion",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "The graph can be converted: 1 converted, 1 same.",
        *report,
        "Nothing was written: give -o OUT to write the converted graph.",
    ]
    assert target.read_text(encoding="utf-8") == "mine"
    options = ["--report", "-o", str(target), "--overwrite"]
    assert main(["convert", str(source), *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The graph was converted: 1 converted, 1 same.",
        *report,
        str(target),
    ]
    assert "ADV2V_ApplyMotion" in target.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [target, source]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([""], 2, "GRAPH is ''"),
        (["gone.json"], 2, "There is no file"),
        (["a.json", "-o", ""], 2, "OUT is ''"),
        (["a.json", "-o", "b.txt"], 2, "it must be the name of a .json file"),
        (["a.json", "-o", "a.json", "--overwrite"], 2, "is the same file as the input"),
        (["plain.json"], 1, "it has no nodes of AnimateDiff"),
    ],
)
def test_refusals_of_the_command(in_folder, capsys, options, code, said):
    tmp_path = in_folder
    (tmp_path / "a.json").write_text(TEXT, encoding="utf-8")
    (tmp_path / "plain.json").write_text(json.dumps(workflow(checkpoint())), encoding="utf-8")
    assert main(["convert", *options]) == code
    assert said in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2
