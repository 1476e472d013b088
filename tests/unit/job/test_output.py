"""No file is lost: outputs that are inputs, and outputs that already exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ControlFile,
    ModelFiles,
    Request,
    SamplingSettings,
    load_files,
    video_to_video,
)
from animatediff_v2v.pipeline.output_file import is_same_file


@pytest.fixture
def folder(clip, tmp_path, monkeypatch):
    """A folder with the clip under several names, made the current folder."""
    (tmp_path / "source.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "sub").mkdir()
    os.link(tmp_path / "source.mp4", tmp_path / "hard.mp4")
    (tmp_path / "link.mp4").symlink_to("source.mp4")
    (tmp_path / "here").symlink_to(".", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SPELLINGS = {
    "itself": "source.mp4",
    "dot": "./source.mp4",
    "through another folder": "sub/../source.mp4",
    "a link": "link.mp4",
    "a hard link": "hard.mp4",
    "a linked folder": "here/source.mp4",
    "whole path": "WHOLE",
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_an_output_that_is_the_input_is_refused_before_anything_is_loaded(
    spelling, overwrite, folder, command, capsys
):
    output = str(folder / "source.mp4") if spelling == "WHOLE" else spelling
    before = (folder / "source.mp4").read_bytes()
    arguments = command(input="source.mp4", output=output, checkpoint="no.safetensors")
    assert main([*arguments, *(["--overwrite"] if overwrite else [])]) == 2
    said = capsys.readouterr().err
    assert "is the same file as the input source.mp4" in said
    assert (folder / "source.mp4").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_folder_that_does_not_tell_capitals_from_small_letters(folder, monkeypatch):
    """As on such a file system, both spellings are the same file."""
    stat = os.stat

    def stat_of_either(path, **how):
        return stat(str(path).replace("SOURCE.MP4", "source.mp4"), **how)

    monkeypatch.setattr(Path, "stat", stat_of_either)
    monkeypatch.setattr(os, "stat", stat_of_either)
    assert is_same_file(folder / "SOURCE.MP4", folder / "source.mp4")
    assert not is_same_file(folder / "sub", folder / "source.mp4")


def test_an_output_that_is_a_video_of_control_frames_is_refused(folder, weights, command, capsys):
    (folder / "depth.mp4").write_bytes((folder / "source.mp4").read_bytes())
    before = (folder / "depth.mp4").read_bytes()
    arguments = command(
        input="source.mp4",
        output="sub/../depth.mp4",
        control=weights / "controlnet.safetensors",
        control_source="depth.mp4",
    )
    assert main([*arguments, "--overwrite"]) == 2
    assert "is the same file as the input depth.mp4" in capsys.readouterr().err
    assert (folder / "depth.mp4").read_bytes() == before


def request(**fields):
    given = {"input": "source.mp4", "output": "out.mp4", "prompt": "a box"} | fields
    return Request(sampling=SamplingSettings(seed=1, steps=1), **given)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"output": "link.mp4"}, "same file as the input source.mp4"),
        ({"output": "hard.mp4", "overwrite": True}, "same file as the input source.mp4"),
        ({"output": "old.mp4"}, "old.mp4 exists already: choose another name, or set overwrite"),
        ({"output": "nowhere_link.mp4"}, "nowhere_link.mp4 exists already"),
        (
            {"output": "old.mp4", "controls": [ControlFile(network="n.pth", source="old.mp4")]},
            "same file as the input old.mp4",
        ),
    ],
    ids=str,
)
def test_the_library_refuses_first(fields, sentence, folder):
    (folder / "old.mp4").write_bytes(b"somebody's video")
    (folder / "nowhere_link.mp4").symlink_to("nowhere.mp4")
    before = sorted(folder.iterdir())
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        video_to_video(request(**fields), ModelFiles(checkpoint="no.safetensors"))
    assert sorted(folder.iterdir()) == before
    assert (folder / "old.mp4").read_bytes() == b"somebody's video"


def test_an_output_that_is_there_is_replaced_by_overwrite_alone(folder, command, capsys):
    (folder / "out.mp4").write_bytes(b"somebody's video")
    arguments = command(input="source.mp4", output="out.mp4", steps=1)
    assert main([*arguments, "--checkpoint", "no.safetensors"]) == 2
    assert "out.mp4 exists already" in capsys.readouterr().err
    assert (folder / "out.mp4").read_bytes() == b"somebody's video"
    assert main([*arguments, "--overwrite"]) == 0
    assert (folder / "out.mp4").stat().st_size > 1000


def test_a_link_is_replaced_and_not_what_it_leads_to(folder, command):
    (folder / "precious.mp4").write_bytes(b"somebody's video")
    (folder / "out.mp4").symlink_to("precious.mp4")
    assert main([*command(input="source.mp4", output="out.mp4", steps=1), "--overwrite"]) == 0
    assert (folder / "precious.mp4").read_bytes() == b"somebody's video"
    assert not (folder / "out.mp4").is_symlink()


def test_a_file_that_appears_during_the_job_stays(folder, weights, caplog):
    models = load_files(
        ModelFiles(
            checkpoint=weights / "checkpoint.safetensors",
            motion_module=weights / "motion_module.safetensors",
            device="cpu",
        )
    )

    def appear(_phase):
        (folder / "out.mp4").write_bytes(b"of another job")

    result = video_to_video(request(), models, before_phase=appear)
    assert (folder / "out.mp4").read_bytes() == b"of another job"
    assert result.path == folder / "out-2.mp4"
    assert result.file_size == result.path.stat().st_size > 1000
    assert "has appeared since the job began" in caplog.text


def test_text_for_a_path_does_the_whole_job(folder, weights):
    result = video_to_video(
        request(output="text.mp4"),
        ModelFiles(
            checkpoint=str(weights / "checkpoint.safetensors"),
            motion_module=str(weights / "motion_module.safetensors"),
            device="cpu",
        ),
    )
    assert result.path == Path("text.mp4")
    assert result.as_json()["video"]["url"] == (folder / "text.mp4").as_uri()
