"""`animatediff-v2v gallery`: a page that opens from its folder, made with the miniature."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from animatediff_v2v.cli.gallery import PROMPTS
from animatediff_v2v.cli.gallery_page import Picture, Row, page
from animatediff_v2v.cli.main import main
from animatediff_v2v.demo.install import DEMO_FOLDER
from animatediff_v2v.pipeline import ModelFiles, SamplingSettings
from animatediff_v2v.pipeline.video import probe_video

MODELS = DEMO_FOLDER / "models"
MINIATURE = [
    f"--checkpoint={MODELS / 'checkpoints' / 'miniature.safetensors'}",
    f"--motion-module={MODELS / 'animatediff_models' / 'miniature_motion.safetensors'}",
    "--device=cpu",
]
QUICK = ["--steps=1", "--frame-load-cap=2"]
VIDEO = re.compile(r'<video src="([^"]+)"')


def test_a_gallery_is_a_page_with_its_videos(tmp_path, capsys):
    folder = tmp_path / "my gallery"
    assert main(["gallery", str(folder), *MINIATURE, *QUICK]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "index.html")
    text = (folder / "index.html").read_text(encoding="utf-8")
    videos = [folder / unquote(name) for name in VIDEO.findall(text)]
    assert len(videos) == 1 + len(PROMPTS)
    assert {path.name for path in folder.iterdir()} == {"index.html", *(v.name for v in videos)}
    assert {probe_video(path).frame_count for path in videos} == {2}
    assert all(prompt in text for prompt in PROMPTS.values())
    assert "miniature_motion.safetensors" in text and "1 steps" in text
    # It opens without a server: nothing is fetched.
    assert "http" not in text and "<script" not in text
    again = ["gallery", str(folder), *MINIATURE, *QUICK]
    assert main(again) == 2
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--clip=gone.mp4"], "--clip: there is no file"),
        (["--steps=0"], "--steps is 0; it must be from 1 to 1000."),
        (["--frame-load-cap=-1"], "--frame-load-cap is -1"),
        (["--preset=best"], "--preset is 'best'; it can be quality, turbo, lightning, exact,"),
        (["--checkpoint=gone.safetensors"], "--checkpoint: there is no file"),
        ([f"--clip={MODELS / 'checkpoints' / 'miniature.safetensors'}"], "--clip: "),
    ],
)
def test_errors_are_sentences_and_leave_nothing(tmp_path, capsys, options, sentence):
    folder = tmp_path / "gallery"
    assert main(["gallery", str(folder), *MINIATURE, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_text("notes"), "is a file; give a folder"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("")), "holds other files"),
    ],
)
def test_files_of_the_user_stay(tmp_path, capsys, make, sentence):
    folder = tmp_path / "gallery"
    make(folder)
    assert main(["gallery", str(folder), *MINIATURE, "--overwrite"]) == 2
    assert sentence in capsys.readouterr().err


def test_names_are_escaped():
    files = ModelFiles(checkpoint=Path("a<b>.safetensors"))
    picture = Picture("50% & more.mp4", "<i>", 1.25)
    row = Row("a b.mp4", "<clip>.mp4", [picture])
    text = page([row], files=files, settings=SamplingSettings(seed=1))
    assert "a&lt;b&gt;" in text and "&lt;clip&gt;" in text and "&lt;i&gt; <small>1.2 s" in text
    assert 'src="a%20b.mp4"' in text and 'src="50%25%20%26%20more.mp4"' in text
