"""Values of wrong types: each public dataclass and function refuses them in a sentence, first."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from animatediff_v2v import pipeline
from animatediff_v2v.demo.install import install_models
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.choices import checked_type
from animatediff_v2v.pipeline.files import (
    identify,
    load_checkpoint,
    load_control,
    load_ip_adapter,
    load_motion_module,
    load_text_encoder,
    load_vae,
    read_weights,
)
from animatediff_v2v.pipeline.memory.devices import resolve_device
from animatediff_v2v.pipeline.presets import Defaults, preset_defaults
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.prompts.embeddings import embedding_finder, read_embedding
from animatediff_v2v.pipeline.sampling import SourceBlend, Span, StyleImages
from animatediff_v2v.pipeline.video import (
    AudioSpan,
    ControlFrameOptions,
    VideoReader,
    VideoWriter,
    exact_rate,
    probe_video,
    read_audio,
)

ENCODED = PromptTrack(torch.zeros(1, 77, 8))
# Valid values for required fields that are not under test; other fields have defaults.
GOOD = {
    pipeline.ModelFiles: {"checkpoint": Path("a.safetensors")},
    pipeline.ControlFile: {"network": Path("a.safetensors")},
    pipeline.KeyframeFiles: {
        "network": Path("a.safetensors"),
        "pictures": (Path("a.png"),),
        "frames": (0,),
    },
    pipeline.SamplingSettings: {"seed": 1},
    pipeline.StyleFile: {
        "adapter": Path("a.safetensors"),
        "vision_model": Path("v.safetensors"),
        "images": (Path("a.png"),),
    },
    pipeline.Request: {
        "input": Path("a.mp4"),
        "output": Path("b.mp4"),
        "prompt": "a fox",
        "sampling": pipeline.SamplingSettings(seed=1),
    },
    pipeline.LoraEntry: {"path": Path("a.safetensors")},
    pipeline.FrameSelection: {},
    pipeline.FreeInit: {},
    pipeline.Guidance: {},
    pipeline.Curve: {"text": "0: 0.2, 4: 1.0"},
    pipeline.ContextOptions: {},
    pipeline.SpeedOptions: {},
    pipeline.Guides: {},
    pipeline.Conditioning: {"positive": ENCODED, "negative": ENCODED},
    Defaults: {"steps": 1, "guidance_scale": 1.0, "sampler": "euler", "scheduler": "normal"},
    PromptTrack: {"encodings": torch.zeros(1, 77, 8)},
    SourceBlend: {},
    Span: {},
    ControlFrameOptions: {},
    AudioSpan: {"path": Path("a.mp4"), "start_seconds": 0.0, "duration_seconds": 1.0},
}
NOTHING = object()
# Wrong for every field; values that are wrong only for some are below.
ALWAYS_WRONG = (NOTHING, b"bytes", 1j, {1, 2}, [None], lambda: None)
WRONG_BY_TYPE = {
    "int": (True, None, "3", 2.5, math.nan, math.inf, [1], Fraction(1, 2)),
    "float": (True, None, "0.5", [1.0]),
    "str": (None, 5, True, Path("x"), ["x"]),
    "bool": (None, 0, 1, "yes", 0.0),
    "Path": (None, 5, True, "", "a\0b", ["x"]),
}


def fields():
    for kind, good in GOOD.items():
        for field in dataclasses.fields(kind):
            wrong = [*ALWAYS_WRONG, *WRONG_BY_TYPE.get(field.type, ())]
            yield from (
                pytest.param(kind, good, field.name, value, id=f"{kind.__name__}.{field.name}-{n}")
                for n, value in enumerate(wrong)
            )


@pytest.mark.parametrize(("kind", "good", "name", "value"), list(fields()))
def test_a_field_of_another_type_is_refused_by_its_name(kind, good, name, value):
    with pytest.raises(AnimateDiffV2VError) as refused:
        kind(**good | {name: value})
    sentence = str(refused.value)
    assert sentence.startswith((name, f"context {name}", f"guidance {name}")), sentence
    assert len(sentence) < 800  # it lists all samplers
    assert sentence.endswith(".")


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_good_values_stay_as_they_are(kind):
    made = kind(**GOOD[kind])
    assert all(getattr(made, name) is value for name, value in GOOD[kind].items())


def test_every_public_dataclass_of_settings_is_in_the_table():
    results = {"Timings", "Result", "Progress", "Models", "Control", "Keyframes"}
    public = {
        name
        for name in pipeline.__all__
        if dataclasses.is_dataclass(getattr(pipeline, name)) and name not in results
    }
    assert public == {kind.__name__ for kind in GOOD if kind.__name__ in pipeline.__all__}


def test_paths_may_be_text_and_tuples_lists():
    files = pipeline.ModelFiles(
        checkpoint="a.safetensors", vae="v.pt", loras=[pipeline.LoraEntry("l.safetensors", 0.5)]
    )
    assert (files.checkpoint, files.vae) == (Path("a.safetensors"), Path("v.pt"))
    assert files.loras == (pipeline.LoraEntry(Path("l.safetensors"), 0.5),)
    request = pipeline.Request(
        input="a.mp4",
        output="b.mp4",
        prompt="",
        sampling=pipeline.SamplingSettings(seed=np.int64(3), denoise=np.float32(0.5)),
        controls=[pipeline.ControlFile(network="c.pth", source="depth.mp4")],
    )
    assert (request.input, request.output) == (Path("a.mp4"), Path("b.mp4"))
    assert request.controls[0].source == Path("depth.mp4")


SOURCES = (None, 5, b"x.mp4", "", "a\0b", ["x"], NOTHING)
CALLS = {
    "video_to_video request": lambda x: pipeline.video_to_video(x, None),
    "video_to_video models": lambda x: pipeline.video_to_video(
        pipeline.Request(**GOOD[pipeline.Request]), x
    ),
    "load_files": pipeline.load_files,
    "load_models": lambda x: pipeline.load_models(x, device=torch.device("cpu"), dtype=torch.half),
    "load_models device": lambda x: pipeline.load_models("a.pt", device=x, dtype=torch.half),
    "load_models dtype": lambda x: pipeline.load_models("a", device=torch.device("cpu"), dtype=x),
    "sample_latents": lambda x: pipeline.sample_latents(
        None, x, None, pipeline.SamplingSettings(seed=1)
    ),
    "sample_latents settings": lambda x: pipeline.sample_latents(
        None, torch.zeros(1, 4, 8, 8), pipeline.Conditioning(ENCODED, ENCODED), x
    ),
    "sample_latents guides": lambda x: pipeline.sample_latents(
        None,
        torch.zeros(1, 4, 8, 8),
        pipeline.Conditioning(ENCODED, ENCODED),
        pipeline.SamplingSettings(seed=1),
        guides=x,
    ),
    "VideoReader": VideoReader,
    "VideoReader width": lambda x: VideoReader("a.mp4", width=x),
    "VideoReader height": lambda x: VideoReader("a.mp4", height=x),
    "VideoReader fit": lambda x: VideoReader("a.mp4", fit=x),
    "VideoWriter": lambda x: VideoWriter(x, width=8, height=8, frame_rate=8),
    "VideoWriter width": lambda x: VideoWriter("a.mp4", width=x, height=8, frame_rate=8),
    "VideoWriter rate": lambda x: VideoWriter("a.mp4", width=8, height=8, frame_rate=x),
    "VideoWriter format": lambda x: VideoWriter("a.mp4", width=8, height=8, frame_rate=8, format=x),
    "VideoWriter loops": lambda x: VideoWriter(
        "a.mp4", width=8, height=8, frame_rate=8, loop_count=x
    ),
    "probe_video": probe_video,
    "read_audio": lambda x: read_audio(x, start_seconds=0, duration_seconds=1),
    "read_audio start": lambda x: read_audio("a.mp4", start_seconds=x, duration_seconds=1),
    "exact_rate": exact_rate,
    "read_weights": read_weights,
    "load_checkpoint": load_checkpoint,
    "load_motion_module": load_motion_module,
    "load_vae": load_vae,
    "load_text_encoder": load_text_encoder,
    "load_control": load_control,
    "load_ip_adapter": load_ip_adapter,
    "embedding_finder": embedding_finder,
    "read_embedding": read_embedding,
    "install_models": install_models,
    "preset_defaults": preset_defaults,
    "resolve_device": resolve_device,
    "identify": identify,
}


NUMBERS = {"VideoWriter width", "VideoWriter rate", "VideoWriter loops", "exact_rate"}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in CALLS for value in SOURCES if value != 5 or name not in NUMBERS],
)
def test_an_argument_of_another_type_is_refused(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnimateDiffV2VError):
        CALLS[name](value)
    assert list(tmp_path.iterdir()) == []


def test_a_style_without_networks_is_refused():
    with pytest.raises(AnimateDiffV2VError, match="adapter is None; it must be of the type"):
        StyleImages(adapter=None, embeddings=torch.zeros(1, 4), empty=torch.zeros(1, 4))
    with pytest.raises(AnimateDiffV2VError, match="network is 'x'; it must be of the type"):
        pipeline.Control(network="x", frames=torch.zeros(1, 8, 8, 3))


@pytest.mark.parametrize(
    ("value", "hint", "sentence"),
    [
        ("3", int, "x is '3'; it must be a whole number."),
        (True, float, "x is True; it must be a number."),
        (5, Path | None, "x is 5; it must be a path, as pathlib.Path or text or None."),
        ({"a": 1}, dict[str, str], "x is {'a': 1}; it must be a dictionary, each value text."),
        (
            "x" * 10_000,
            bool,
            "x is '" + "x" * 97 + "..." + "x" * 98 + "'; it must be True or False.",
        ),
    ],
)
def test_sentences(value, hint, sentence):
    with pytest.raises(AnimateDiffV2VError) as refused:
        checked_type("x", value, hint)
    assert str(refused.value) == sentence
