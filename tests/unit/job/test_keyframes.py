"""Keyframes of whole jobs: from the command, within a limit on memory, in a second pass."""

from __future__ import annotations

import re
from importlib import import_module

import numpy as np
import pytest
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.keyframe_files import KeyframeFiles, parse_frames
from PIL import Image
from safetensors.torch import load_file, save_file

from ..files import miniatures as mini

NEEDED = re.compile(r"need at least ([\d.e-]+)")


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    """A motion module without middle block, SparseCtrl models that fit, and a picture."""
    folder = tmp_path_factory.mktemp("keyframes")
    motion = load_file(weights / "motion_module.safetensors")
    v3 = {name: tensor for name, tensor in motion.items() if not name.startswith("mid_block")}
    save_file(v3, folder / "v3.safetensors")
    for name, takes_latents in (("rgb", True), ("scribble", False)):
        module = mini.sparsectrl_module((64, 128), cross=64, takes_latents=takes_latents)
        save_file(mini.state(module), folder / f"{name}.safetensors")
    gradient = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    Image.fromarray(gradient).save(folder / "a.png")
    return folder


@pytest.fixture
def keyed(command, files):
    """Return a function that makes the arguments of a run with keyframes."""

    def build(model="rgb", keyframes=("0:PNG",), strength="", **options):
        given = {"motion_module": files / "v3.safetensors", "steps": 1} | options
        if model is not None:
            given["sparsectrl"] = f"{files / model}.safetensors{strength}"
        arguments = command(**given)
        for text in keyframes:
            arguments.append(f"--keyframe={text.replace('PNG', str(files / 'a.png'))}")
        return arguments

    return build


def test_keyframes_guide_the_video(keyed, tmp_path):
    runs = {
        "none": {"model": None, "keyframes": ()},
        "last": {"keyframes": ("-1:PNG",)},
        "fourth": {"keyframes": ("4:PNG",)},
        "drawn": {"model": "scribble"},
    }
    outputs = {name: tmp_path / f"{name}.mp4" for name in runs}
    for name, options in runs.items():
        assert main(keyed(output=outputs[name], **options)) == 0
    made = {name: path.read_bytes() for name, path in outputs.items()}
    assert made["last"] == made["fourth"]
    assert len(set(made.values())) == 3
    assert sorted(tmp_path.iterdir()) == sorted(outputs.values()), "something is left over"


def test_they_act_beside_a_controlnet_within_a_limit_and_in_a_second_pass(
    keyed, weights, tmp_path, capsys
):
    mask = tmp_path / "mask.png"
    Image.linear_gradient("L").resize((64, 64)).save(mask)
    shared = {"control": weights / "controlnet.safetensors", "keyframe_mask": mask}
    whole, bound = tmp_path / "whole.mp4", tmp_path / "bound.mp4"
    assert main(keyed(output=whole, **shared)) == 0
    capsys.readouterr()
    assert main(keyed(max_memory=1e-6, **shared)) == 2
    needed = NEEDED.search(capsys.readouterr().err)[1]
    assert main(keyed(output=bound, max_memory=needed, **shared)) == 0
    assert whole.read_bytes() == bound.read_bytes()
    assert main(keyed(output=tmp_path / "refined.mp4", refine=1.25, **shared)) == 0


WRONG = {
    "no model": ({"model": None}, "--keyframe needs --sparsectrl: give the SparseCtrl model"),
    "no keyframe": (
        {"keyframes": ()},
        "--sparsectrl needs --keyframe: give a picture and its frame",
    ),
    "no frame": ({"keyframes": ("PNG",)}, "it must be FRAME:PICTURE, for example 0:first.png"),
    "digits of another script": ({"keyframes": ("١:PNG",)}, "it must be FRAME:PICTURE"),
    "a frame of thousands of digits": ({"keyframes": (f"{'9' * 5000}:PNG",)}, "FRAME:PICTURE"),
    "a folder": ({"keyframes": ("0:.",)}, ". cannot be read as a picture"),
    "two pictures of a frame": (
        {"keyframes": ("0:PNG", "-5:PNG")},
        "Two keyframes are at frame 0: give each one a frame of its own",
    ),
    "a missing picture": ({"keyframes": ("0:no.png",)}, "--keyframe: there is no file no.png"),
    "too strong": ({"strength": ":99"}, "the strength of --sparsectrl is 99"),
    "outside of the video": (
        {"keyframes": ("0:PNG", "5:PNG")},
        "A keyframe is at frame 5, and the video has 5 frames: frames go from 0 to 4",
    ),
    "a mask alone": (
        {"model": None, "keyframes": (), "keyframe_mask": "a.png"},
        "--keyframe-mask has no effect without --keyframe",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case, keyed, capsys):
    options, sentence = WRONG[case]
    assert main(keyed(**options)) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said


@pytest.mark.parametrize("case", ["two pictures of a frame", "outside of the video", "a folder"])
def test_keyframes_are_checked_before_models_are_loaded(case, keyed, monkeypatch, capsys):
    options, sentence = WRONG[case]
    loaded = []
    job = import_module("animatediff_v2v.pipeline.video_to_video")
    monkeypatch.setattr(job, "load_networks", lambda *_, **__: loaded.append(True))
    assert main(keyed(**options)) == 2
    assert sentence in capsys.readouterr().err and not loaded


def test_files_in_each_other_s_place_are_refused(keyed, weights, files, capsys):
    control = weights / "controlnet.safetensors"
    assert main(keyed(sparsectrl=control, model=None)) == 2
    assert "is a ControlNet for Stable Diffusion 1.5, where a SparseCtrl" in capsys.readouterr().err
    assert main(keyed(model=None, keyframes=(), control=files / "rgb.safetensors")) == 2
    said = capsys.readouterr().err
    assert "is a SparseCtrl model for pictures (RGB), where a ControlNet is wanted." in said
    assert "Use it with Keyframes" in said
    assert main(keyed(motion_module=weights / "motion_module.safetensors")) == 2
    assert "Keyframes need AnimateDiff's v3 motion module" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "frames"),
    [("0", (0,)), ("0, 24", (0, 24)), (" 3,-1 ", (3, -1)), ("0 8\n16", (0, 8, 16))],
)
def test_frames_are_read(text, frames):
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["", " , ", "a", "1.5", "0:1", "--1", "0; 24"])
def test_other_texts_are_refused(text):
    with pytest.raises(AnimateDiffV2VError, match="it must be frame numbers separated by commas"):
        parse_frames(text)


def test_each_picture_needs_a_frame():
    with pytest.raises(AnimateDiffV2VError, match="1 pictures and 2 frames are given"):
        KeyframeFiles(network="a.safetensors", pictures=["a.png"], frames=(0, 1))
