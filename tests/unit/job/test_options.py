"""An option for every setting of the nodes, and errors that name options."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.cli.main import _parser, main
from animatediff_v2v.cli.parsing import OPTIONS, reworded
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ContextOptions,
    ControlFile,
    FrameSelection,
    Guidance,
    ModelFiles,
    Request,
    SamplingSettings,
    SpeedOptions,
)
from animatediff_v2v.pipeline.video import VideoReader, VideoWriter, probe_video

from ..nodes.declared import schemas

ROOT = Path(__file__).parents[3]
# The options of node inputs that have another name than the option.
OPTION_OF = {
    "video": "INPUT",
    "images": "INPUT",
    "prompt": "--prompt",
    "positive": "--prompt",
    "negative": "--negative-prompt",
    "num_inference_steps": "--steps",
    "base_model": "--checkpoint",
    "positive_schedule": "--prompt-schedule",
    "lora_stack": "--lora",
    "motion_lora_stack": "--motion-lora",
    "motion_lora": "--motion-lora",
    "start_time": "--start-time",
    "filename_prefix": "OUTPUT",
    "audio": "--no-audio",
    "clip": "--text-encoder",
    "control_net": "--control",
    "preprocessor": "--control-source",
    "mask": "--control-mask",
    "repeat_last": "--repeat-last-control",
    "low_threshold": "--canny-low",
    "high_threshold": "--canny-high",
    "deep_cache_interval": "--deep-cache",
    "reduced_precision": "--fast",
    "guidance_start": "--guidance-interval",
    "guidance_end": "--guidance-interval",
    "length": "--context-length",
    "overlap": "--context-overlap",
    "stride": "--context-stride",
    "fuse": "--context-fuse",
    "memory": "--context-memory",
    "memory_end": "--context-memory-end",
}
OF_ONE_NODE = {
    ("ADV2V_PromptSchedule", "schedule"): "--prompt-schedule",
    ("ADV2V_ContextOptions", "schedule"): "--context-schedule",
    ("ADV2V_MotionLoraStack", "strength"): "--motion-lora",
    ("ADV2V_ControlNet", "strength"): "--control",
    ("ADV2V_ControlNet", "start"): "--control",
    ("ADV2V_ControlNet", "end"): "--control",
    ("ADV2V_ControlNet", "images"): "--control-source",
    ("ADV2V_FreeInit", "iterations"): "--free-init",
    ("ADV2V_FreeInit", "filter"): "--free-init-filter",
    ("ADV2V_FreeInit", "spatial_stop"): "--free-init-spatial-stop",
    ("ADV2V_FreeInit", "temporal_stop"): "--free-init-temporal-stop",
    ("ADV2V_FreeInit", "order"): "--free-init-order",
    ("ADV2V_Keyframes", "images"): "--keyframe",
    ("ADV2V_Keyframes", "frames"): "--keyframe",
    ("ADV2V_Keyframes", "strength"): "--sparsectrl",
    ("ADV2V_Keyframes", "start"): "--sparsectrl",
    ("ADV2V_Keyframes", "end"): "--sparsectrl",
    ("ADV2V_Keyframes", "mask"): "--keyframe-mask",
    ("ADV2V_StrengthCurve", "curve"): "--denoise",
    ("ADV2V_StrengthCurve", "start"): "--lora",
    ("ADV2V_StrengthCurve", "end"): "--lora",
    ("ADV2V_SelectFrames", "video"): "INPUT",
    ("ADV2V_MatchSource", "source"): "INPUT",
    ("ADV2V_MatchSource", "strength"): "--match-source",
    ("ADV2V_MatchSource", "mask"): "--source-mask",
    ("ADV2V_IPAdapter", "images"): "--style-image",
    ("ADV2V_IPAdapter", "weight"): "--ip-adapter",
    ("ADV2V_IPAdapter", "start"): "--ip-adapter",
    ("ADV2V_IPAdapter", "end"): "--ip-adapter",
    ("ADV2V_IPAdapter", "arrangement"): "--style-arrangement",
    ("ADV2V_IPAdapter", "weights"): "--style-weights",
}
# Inputs without an option, and the reason.
WITHOUT_OPTION = {
    "fps": "the rate follows from the frames that are kept",
    "save_output": "OUTPUT says where",
    "contact_sheet": "the pages of batch and gallery show the frames",
    "model": "the option --checkpoint loads it",
    "context_options": "the options --context-... set it",
    "speed": "the options of its node set it",
    "free_init": "the options --free-init-... set it",
    "control": "--control is repeated for several",
    "style": "--ip-adapter is repeated for several",
    "positive_conditioning": "encoded prompts exist in ComfyUI alone",
    "negative_conditioning": "encoded prompts exist in ComfyUI alone",
    "sampler_object": "samplers as objects exist in ComfyUI alone",
    "sigmas": "noise levels as objects exist in ComfyUI alone",
    "motion_scale_mask": "masks of motion modules are for graphs and the library",
    "motion_effect_mask": "masks of motion modules are for graphs and the library",
}
NODES_WITHOUT_OPTIONS = {
    "ADV2V_ApplyMotion": "it is for ComfyUI's own samplers",
    "ADV2V_Batch": "it is the command batch",
    "ADV2V_ModelFromComfy": "it takes models that ComfyUI has loaded",
    "ADV2V_RestoreFrames": "--restore-frames does it for the whole job",
    "ADV2V_PromptTravel": "it is for ComfyUI's own samplers",
    "ADV2V_VideoInfo": "it takes a socket apart",
}


def run_options() -> set[str]:
    (commands,) = (
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    actions = commands.choices["run"]._actions
    return {name for each in actions for name in each.option_strings or [each.metavar]}


def test_every_input_of_a_node_has_an_option_or_a_reason():
    known, missing = run_options(), []
    for node_id, schema in schemas().items():
        if node_id in NODES_WITHOUT_OPTIONS:
            continue
        for declared in schema.inputs:
            name = declared.name
            if node_id == "ADV2V_LoraStack" or name in WITHOUT_OPTION:
                continue  # the slots of a stack: --lora FILE:SCALE:TEXT_SCALE, repeated
            option = OF_ONE_NODE.get((node_id, name)) or OPTION_OF.get(
                name, "--" + name.replace("_", "-")
            )
            if option not in known:
                missing.append(f"{node_id}.{name}: {option}")
    assert missing == []
    assert set(NODES_WITHOUT_OPTIONS) <= set(schemas())


REQUIRED = {
    ModelFiles: {"checkpoint": "a.safetensors"},
    SamplingSettings: {"seed": 1},
    FrameSelection: {},
    ContextOptions: {},
    SpeedOptions: {},
    Guidance: {},
    ControlFile: {"network": "a.safetensors"},
    Request: {
        "input": "a.mp4",
        "output": "b.mp4",
        "prompt": "",
        "sampling": SamplingSettings(seed=1),
    },
}
# Fields that carry other settings, which are checked by themselves, or that no option sets.
NO_OPTION = {"sampling", "selection", "guidance", "context", "speed", "metadata", "span"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, field.name)
        for kind in REQUIRED
        for field in dataclasses.fields(kind)
        if field.name not in NO_OPTION
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_sentence_about_a_field_names_its_option(kind, name):
    with pytest.raises(AnimateDiffV2VError) as refused:
        kind(**REQUIRED[kind] | {name: object()})
    sentence = reworded(str(refused.value))
    subject = sentence.split(" is ")[0]
    options = run_options() | {"the start", "the end", "the strength of --control"}
    in_control = {"strength": "strength", "mask": "mask", "repeat_last": "repeat_last"}
    if kind is ControlFile and name in in_control:
        return  # said behind "--control FILE: "
    assert subject.split(" of ")[-1] in options or subject in options, sentence


def test_the_options_that_sentences_name_exist():
    named = {part for text in OPTIONS.values() for part in text.split() if part.startswith("--")}
    assert named <= run_options()


@pytest.mark.parametrize(
    ("sentence", "ours"),
    [
        ("steps is 0; it must be from 1 to 1000.", "--steps is 0; it must be from 1 to 1000."),
        ("The steps is left.", "The steps is left."),
        ("a (max_memory_gb) b", "a (--max-memory) b"),
        ("/x/max_memory_gb.mp4 is no video.", "/x/max_memory_gb.mp4 is no video."),
        ("prompt: the weight of 'x' is 99.", "--prompt: the weight of 'x' is 99."),
        ("a, motion_scale is 2.", "a, --motion-scale is 2."),
        # Text that the user wrote is not a field.
        ("There is no file guidance_scale.", "There is no file guidance_scale."),
        ("guidance_scale is no video.", "guidance_scale is no video."),
        ("prompt: '(motion_scale)' is odd.", "--prompt: '(motion_scale)' is odd."),
        (
            "prompt: the weight of '(motion_scale:nan)' is nan.",
            "--prompt: the weight of '(motion_scale:nan)' is nan.",
        ),
        ("It's \"a, clip_skip is b\", checkpoint's own.",) * 2,
    ],
)
def test_rewording(sentence, ours):
    assert reworded(sentence) == ours


@pytest.mark.parametrize(
    ("api", "said", "unsaid"),
    [
        ('{"nonsense": 1}', "motion_module, turbo_motion_module", "--motion"),
        ('{"motion_module": 5}', ": motion_module: Input should be", "--motion"),
    ],
)
def test_serve_speaks_of_settings_not_of_options(tmp_path, capsys, api, said, unsaid):
    (tmp_path / "api.json").write_text(api)
    assert main(["serve", str(tmp_path), "--models", str(tmp_path)]) == 2
    sentence = capsys.readouterr().err
    assert said in sentence and unsaid not in sentence


@pytest.mark.parametrize("command", [["inspect"], ["serve", ".", "--models"]])
def test_a_file_called_as_a_field_keeps_its_name(capsys, command):
    assert main([*command, "guidance_scale"]) in (1, 2)
    done = "".join(capsys.readouterr())
    assert "guidance_scale" in done and "--guidance-scale" not in done


def check(code, *arguments, cwd, env=None, stdout=subprocess.PIPE):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


WITHOUT_TORCH = """
import sys
from animatediff_v2v.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
heavy = ("torch", "diffusers", "av", "scipy", "transformers")
loaded = [name for name in heavy if name in sys.modules]
print("loaded", code, loaded)
"""
NETWORKS = ["--checkpoint", "a.safetensors", "--motion-module", "b.safetensors", "--prompt", "x"]
ALL_THERE = ["there.mp4", "b.mp4", "--checkpoint", "other.mp4", "--prompt", "x"]
ALL_THERE += ["--motion-module", "none"]
LIGHT = {
    "help": (["--help"], 0),
    "help of run": (["run", "--help"], 0),
    "version": (["--version"], 0),
    "no command": ([], 2),
    "missing option": (["run", "a.mp4", "b.mp4"], 2),
    "not a number": (["run", "a.mp4", "b.mp4", "--steps", "x", *NETWORKS], 2),
    "out of range": (["run", "a.mp4", "b.mp4", "--steps", "0", *NETWORKS], 2),
    "missing input": (["run", "a.mp4", "b.mp4", *NETWORKS], 2),
    "missing model": (["run", "there.mp4", "b.mp4", *NETWORKS], 2),
    "input as output": (["run", "there.mp4", "there.mp4", *NETWORKS], 2),
    "existing output": (["run", "there.mp4", "other.mp4", *NETWORKS], 2),
    "missing LoRA": (["run", "there.mp4", "b.mp4", "--lora", "no.pt", *NETWORKS], 2),
    "loops below none": (["run", "there.mp4", "b.mp4", "--loop-count=-1", *NETWORKS], 2),
    "no folder of embeddings": (["run", *ALL_THERE, "--embeddings", "no"], 2),
    "compiled within a bound": (["run", *ALL_THERE, "--compile", "--max-memory", "4"], 2),
    "an option without effect": (["run", *ALL_THERE, "--closed-loop"], 2),
    "serve without models": (["serve", "data", "--models", "nowhere"], 2),
}


@pytest.mark.parametrize(("arguments", "code"), LIGHT.values(), ids=LIGHT)
def test_help_and_refusals_load_no_pytorch(arguments, code, tmp_path):
    for name in ("there.mp4", "other.mp4"):
        (tmp_path / name).write_bytes(b"a video")
    done = check(WITHOUT_TORCH, *arguments, cwd=tmp_path)
    last = done.stdout.decode().splitlines()[-1]
    assert last == f"loaded {code} []"
    assert code == 0 or done.stderr.decode().startswith("animatediff-v2v: ")


CASES = {
    "an empty input": ({"input": ""}, "INPUT is ''; it must be a path."),
    "an empty output": ({"output": ""}, "OUTPUT is ''"),
    "a source without a ControlNet": (
        {"control_source": "canny"},
        "--control-source is given without --control",
    ),
    "a mask without a ControlNet": ({"control_mask": "m.png"}, "--control-mask is given without"),
    "no prompt": ({"prompt": None}, "--prompt is missing"),
    "two prompts": ({"prompt_schedule": "0: a"}, "--prompt and --prompt-schedule are both given"),
    "no schedule": (
        {"prompt": None, "prompt_schedule": "a fox"},
        "--prompt-schedule: ",
    ),
    "another suffix than the format's": (
        {"output": "a.mp4", "format": "gif"},
        "a.mp4 does not fit the format gif, whose files end in .gif; change the name or --format",
    ),
    "an unknown suffix": ({"output": "a.xyz"}, "ends in no format's suffix; give .mp4, .webm"),
    "an unknown format": ({"format": "xyz"}, "--format is 'xyz'; give one of mp4-h264"),
    "a quality where there is none": (
        {"output": "a.gif", "crf": 3},
        "--crf is 3, but gif has no quality to choose; leave --crf out",
    ),
    "a quality out of range": ({"crf": 99}, "--crf is 99; for mp4-h264 give 0 (best) to 51"),
    "an unknown fit": ({"fit": "zoom"}, "--fit is 'zoom'; it can be crop, pad, stretch"),
    "a rate that is none": ({"force_rate": "fast"}, "--force-rate is 'fast'"),
    "a start before the start": ({"start_time": -1}, "--start-time is -1"),
    "a duration of nonsense": ({"duration": "nan"}, "--duration is nan"),
    "clip skip": ({"clip_skip": 0}, "--clip-skip is 0"),
    "motion scale": ({"motion_scale": 99}, "--motion-scale is 99"),
    "noise type": ({"noise_type": "pink"}, "--noise-type is 'pink'; it can be default"),
    "beta schedule": ({"beta_schedule": "x"}, "--beta-schedule is 'x'"),
    "context schedule": ({"context_schedule": "x"}, "--context-schedule is 'x'"),
    "context fuse": ({"context_fuse": "x"}, "--context-fuse is 'x'"),
    "context stride": ({"context_stride": 0}, "--context-stride is 0"),
    "context memory": ({"context_memory": "x"}, "--context-memory is 'x'; it can be none, Context"),
    "source blend": ({"source_blend": 2}, "--source-blend is 2"),
    "refined beyond": ({"refine": 4}, "--refine is 4; it must be from 1 to 2"),
    "refined by nothing known": (
        {"refine": 1.5, "refine_upscale": "lanczos"},
        "--refine-upscale is 'lanczos'; it can be image, latent.",
    ),
    "refined below": ({"refine": 1.5, "refine_denoise": -1}, "--refine-denoise is -1"),
    "colours": ({"match_source": 1.5}, "--match-source is 1.5; it must be from 0 to 1"),
    "loops": ({"loop_count": -1}, "--loop-count is -1"),
    "a ControlNet's strength": (
        {"control": "NET:99"},
        "--control NET:99: the strength of --control is 99",
    ),
    "thresholds": (
        {"control": "NET", "canny_low": 300},
        "--canny-low is 300 and --canny-high 200",
    ),
    "a missing mask": ({"source_mask": "no.png"}, "--source-mask: there is no file no.png; check"),
    "a long name": ({"output": "a" * 300 + ".mp4"}, "has 304 bytes, and file systems take"),
    "a long input": ({"input": "a" * 300 + ".mp4"}, "cannot be read"),
    "the meta device": ({"device": "meta"}, "--device is 'meta', on which this machine cannot"),
    "nonsense for a device": ({"device": "☃"}, "--device is '☃'"),
    "a source that nothing is called": (
        {"control": "NET", "control_source": "cany"},
        "--control-source is 'cany'; it can be canny, luminance, tile, or the path of a video, a "
        "folder or a picture",
    ),
    "a missing VAE": ({"vae": "no.pt"}, "--vae: there is no file no.pt; check the path."),
    "a missing checkpoint": ({"checkpoint": "no.pt"}, "--checkpoint: there is no file no.pt;"),
    "a missing motion module": ({"motion_module": "no.pt"}, "--motion-module: there is no file"),
    "a missing text encoder": ({"text_encoder": "no.pt"}, "--text-encoder: there is no file no"),
    "a missing ControlNet": ({"control": "no.pt"}, "--control: there is no file no.pt; check"),
    "a missing LoRA": ({"lora": "no.pt"}, "--lora: There is no LoRA no.pt: check the path"),
    "a LoRA with a curve in colons": (
        {"lora": "no.pt:0:0, -1:1"},
        "--lora: '0:0, -1:1' is a curve with colons; after a file, write FILE:0=0, -1=1, with = "
        "in their place.",
    ),
    "a missing motion LoRA": ({"motion_lora": "no.pt"}, "--motion-lora: There is no LoRA no.pt"),
    "a missing schedule": (
        {"prompt": None, "prompt_schedule": "no.txt"},
        "--prompt-schedule: there is no file no.txt; check the path, or give the schedule itself",
    ),
    "too many scales": (
        {"lora": "no.pt:1:2:0:1:5"},
        "--lora is 'no.pt:1:2:0:1:5'; it must be FILE[:SCALE[:TEXT_SCALE[:START[:END]]]], with at "
        "most 4 numbers",
    ),
    "too many scales of a motion LoRA": (
        {"motion_lora": "no.pt:1:2"},
        "--motion-lora is 'no.pt:1:2'; it must be FILE[:SCALE], with at most one number",
    ),
    "a scale of words": (
        {"lora": f"{__file__}:half"},
        "after the file, and 'half' is not a number",
    ),
    "a curve where none is taken": (
        {"control": f"{__file__}:0=0.2,24=1"},
        "after the file, and '0=0.2,24=1' is not a number: no curve is taken here.",
    ),
    "a curve of words": (
        {"lora": f"{__file__}:0=0.2,24=x"},
        "--lora: In the curve '0=0.2,24=x', 'x' at frame 24 is not a number.",
    ),
    "a curve that goes back": (
        {"denoise": "8: 1, 4: 0"},
        "--denoise: In the curve '8: 1, 4: 0', frame 4 comes after frame 8; give each frame once",
    ),
    "a denoise over the steps": (
        {"denoise": "0%: 0.5, 50%: 1"},
        "--denoise is the curve '0%: 0.5, 50%: 1', which changes from step to step, but is fixed",
    ),
    "a LoRA over the steps in colons": (
        {"lora": "no.pt:0%: 0, 50% : 1 ease"},
        "'0%: 0, 50% : 1 ease' is a curve with colons; after a file, write FILE:0%=0, 50%=1 ease,",
    ),
    "one point of a LoRA in colons": (
        {"lora": "no.pt:50%:1"},
        "'50%:1' is a curve with colons; after a file, write FILE:50%=1, with =",
    ),
    "frames and percent": (
        {"guidance_scale": "0: 7, 50%: 1"},
        "--guidance-scale: In the curve '0: 7, 50%: 1', 50% is a place in the noise schedule and "
        "frame 0 is not",
    ),
    "a curve out of range": (
        {"denoise": "0: 0, 4: 2"},
        "--denoise is 2 at frame 4; it must be from 0 to 1.",
    ),
    "an effect out of range": (
        {"motion_effect": "0: 0, 4: 2"},
        "--motion-effect is 2 at frame 4; it must be from 0 to 1, 1 is as trained.",
    ),
    "a scale without an end": (
        {"lora": f"{__file__}:inf"},
        "--lora: the strength of test_options.py is inf; it must be from -10 to 10",
    ),
    "embeddings of nowhere": ({"embeddings": "no"}, "--embeddings: there is no folder no; give"),
    "embeddings that are a file": (
        {"embeddings": __file__},
        "is not a folder; give one",
    ),
    "an edge where none is sought": (
        {"canny_low": 50},
        "--canny-low has no effect without --control",
    ),
    "an edge of a tile": (
        {"control": "NET", "control_source": "tile", "canny_high": 50},
        "--canny-high has no effect without --control with --control-source canny",
    ),
    "a tile of edges": (
        {"control": "NET", "tile_factor": 4},
        "--tile-factor has no effect without",
    ),
    "an edge that is no number": ({"control": "NET", "canny_low": "nan"}, "--canny-low is nan"),
    "weights of no style": (
        {"style_weights": "0: 1"},
        "--style-weights has no effect without --ip-",
    ),
    "an arrangement of no style": (
        {"style_arrangement": "average"},
        "--style-arrangement has no effect without --ip-adapter",
    ),
    "the source's prompt for other noise": (
        {"source_prompt": "a box"},
        "--source-prompt has no effect without --noise-type unsample",
    ),
    "the end of no blend": (
        {"source_blend_end": 1},
        "--source-blend-end has no effect without --sou",
    ),
    "the denoise of no second pass": (
        {"refine_denoise": 0.3},
        "--refine-denoise has no effect without --refine",
    ),
    "the upscaling of no second pass": (
        {"refine_upscale": "latent"},
        "--refine-upscale has no effect without --refine",
    ),
    "a stride of static windows": (
        {"context_stride": 2},
        "--context-stride has no effect without --context-schedule standard_uniform or looped_",
    ),
    "steps that are not whole": ({"steps": 2.5}, "--steps is '2.5'; it must be a whole number."),
    "a width of words": ({"width": "wide"}, "--width is 'wide'; it must be a whole number. See"),
    "denoise of words": (
        {"denoise": "half"},
        "--denoise is 'half'; it must be a number, or a curve, with a colon between frame and "
        "number: 0: 0.2, 24: 1.0. See",
    ),
    "a misspelt option": (
        {"stesp": 3},
        "There is no option --stesp; did you mean --steps? See `animatediff-v2v run --help`.",
    ),
    "an option of nothing": (
        {"qqqq": 3},
        "There is no option --qqqq. See `animatediff-v2v run --help`.",
    ),
    "no checkpoint": ({"checkpoint": None}, "--checkpoint must be given. See `animatediff-v2v run"),
    "a format that another suffix fits": (
        {"output": "a.webm", "format": "mp4-h264"},
        "end in .mp4; change the name or --format: webm-vp9 fits .webm.",
    ),
    "a NUL": ({"output": "a\0.mp4"}, "OUTPUT is"),
}


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path, monkeypatch):
    """Make the test's own folder the current one, for relative paths."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("switch", "sentence"),
    [
        (
            "--context-memory-end=0.5",
            "--context-memory-end has no effect without --context-memory ContextRef, NaiveReuse "
            "or FeatureBank",
        ),
        ("--closed-loop", "--closed-loop has no effect without --context-schedule looped_uniform"),
        ("--repeat-last-control", "--repeat-last-control has no effect without --control"),
        (
            "--restore-frames",
            "--restore-frames has no effect without --select-every-nth-frame 2 or more",
        ),
    ],
)
def test_a_switch_without_effect_is_refused(switch, sentence, command, capsys):
    assert main([*command(select_every_nth_frame=1), switch]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("options", "sentence"), CASES.values(), ids=CASES)
def test_refusals_in_the_words_of_the_options(options, sentence, command, tmp_path, capsys):
    assert main(command(**options)) == 2
    captured = capsys.readouterr()
    message = captured.err.strip().splitlines()[-1]
    assert sentence in message
    assert message.startswith("animatediff-v2v: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rn"], "COMMAND is 'rn'; it can be run, batch, work, gallery, inspect,"),
        (["run", "a", "b", "c", *NETWORKS], "Unexpected 'c'; put quotes around"),
        (
            ["run", "a", "b", *NETWORKS, "--keyframe", "-1:a.png"],
            "--keyframe needs a value; give one after it, or --keyframe=VALUE for one that begins",
        ),
        (["run", "a", "b", *NETWORKS, "--json=1"], "--json takes no value, but is given '1'"),
        (["run", "a", "b", *NETWORKS, "--con", "x"], "--con could be --control, --control-source"),
        (
            ["serve", "a", "--models", "b", "--log-level", "x"],
            "--log-level is 'x'; it can be debug",
        ),
    ],
)
def test_what_argparse_refuses_is_a_sentence(arguments, sentence, capsys):
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_the_format_goes_by_the_suffix_in_the_library_as_well():
    names = {"a.mp4": "mp4-h264", "a.WEBM": "webm-vp9", "a.gif": "gif", "a": "png"}
    for output, name in names.items():
        request = Request(**REQUIRED[Request] | {"output": Path(output)})
        assert request.format == name


def test_inspect_shows_the_files_before_an_empty_name(weights, capsys):
    files = [
        str(weights / name) for name in ("checkpoint.safetensors", "motion_module.safetensors")
    ]
    assert main(["inspect", *files, ""]) == 2
    captured = capsys.readouterr()
    assert [line.split(": ")[0] for line in captured.out.splitlines()] == files
    assert "FILE is ''; it must be the path of a file." in captured.err


@pytest.mark.parametrize(
    ("sides", "told"),
    [
        ({"width": 13}, ["--width is 13; 16 is used, as sizes are multiples of 8."]),
        ({"width": 16, "height": 27}, ["--height is 27; 24 is used, as sizes are multiples of 8."]),
        ({"width": 16}, []),
        ({}, []),
    ],
    ids=str,
)
def test_a_size_that_is_rounded_is_told_once(sides, told, clip, caplog):
    with VideoReader(clip, **sides) as reader:
        next(iter(reader))
    assert [reworded(record.getMessage()) for record in caplog.records] == told


CHANGES = {
    "skip": {"skip_first_frames": 1},
    "rate": {"force_rate": 5},
    "start": {"start_time": 0.5},
    "duration": {"duration": 1},
    "clip skip": {"clip_skip": 2},
    "motion scale": {"motion_scale": 2},
    "constant noise": {"noise_type": "constant"},
    "unsample": {"noise_type": "unsample"},
    "unsample from a prompt": {"noise_type": "unsample", "source_prompt": "a blue box"},
    "beta schedule": {"beta_schedule": "lcm"},
    "windows": {"context_length": 4, "context_overlap": 2},
    "uniform windows": {
        "context_length": 3,
        "context_overlap": 1,
        "context_schedule": "standard_uniform",
        "context_stride": 2,
    },
    "flat windows": {"context_length": 4, "context_overlap": 2, "context_fuse": "flat"},
    "windows with a memory": {
        "context_length": 4,
        "context_overlap": 2,
        "context_memory": "ContextRef",
    },
    "windows that begin alike": {
        "context_length": 4,
        "context_overlap": 2,
        "context_memory": "NaiveReuse",
        "context_memory_end": 0.5,
        "denoise": 1.0,
    },
    "schedule": {"prompt": None, "prompt_schedule": "0: a (red:1.2) box\n4: a green box"},
    "blend": {"source_blend": 0.5, "steps": 3},
    "blend to the end": {"source_blend": 0.5, "source_blend_end": 1, "steps": 3},
    "mask": {"source_mask": "half.png"},
    "colours": {"match_source": 0.5},
    "refined": {"refine": 1.25},
    "refined more": {"refine": 1.25, "refine_denoise": 1},
    "refined by latents": {"refine": 1.25, "refine_upscale": "latent"},
    "colours and mask": {"match_source": 0.5, "source_mask": "half.png"},
    "fit": {"width": 64, "height": 32, "fit": "stretch"},
    "pad": {"width": 64, "height": 32, "fit": "pad"},
    "crf": {"crf": 40},
    "pingpong": {"pingpong": ""},
    "loops": {"loop_count": 1},
    "silent": {"no_audio": ""},
    "restored": {"restore_frames": ""},
}


def test_each_option_changes_the_video(command):
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255
    from PIL import Image

    Image.fromarray(half).save("half.png")
    results = {}
    for name, options in {"as usual": {}, **CHANGES}.items():
        output = f"{len(results)}.mp4"
        arguments = command(**{"output": output, "steps": 1, "denoise": 1.0} | options)
        assert main([part for part in arguments if part]) == 0, name
        results[name] = Path(output).read_bytes()
    same = [name for name, data in results.items() if list(results.values()).count(data) > 1]
    assert same == []


def test_a_mask_keeps_the_source(command):
    from PIL import Image

    Image.fromarray(np.zeros((64, 64), np.uint8)).save("nothing.png")
    Path("masks").mkdir()
    for index in range(20):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(f"masks/{index}.png")
    runs = {
        "source": {"denoise": 0},
        "one": {"denoise": 1, "source_mask": "nothing.png"},
        "many": {"denoise": 1, "source_mask": "masks"},
    }
    for name, options in runs.items():
        assert main(command(output=f"{name}.mkv", steps=1, **options)) == 0
    frames = {}
    for name in runs:
        with VideoReader(f"{name}.mkv") as reader:
            frames[name] = np.stack(list(reader)).astype(int)
    assert np.abs(frames["source"] - frames["one"]).max() <= 1
    assert np.array_equal(frames["one"], frames["many"])


@pytest.mark.parametrize(
    ("output", "codec"),
    [
        ("a.mp4", "h264"),
        ("a.webm", "vp9"),
        ("a.mov", "prores"),
        ("a.mkv", "ffv1"),
        ("a.gif", "gif"),
    ],
)
def test_the_suffix_chooses_the_format(output, codec, command, tmp_path):
    assert main(command(output=tmp_path / output, steps=1, frame_load_cap=2)) == 0
    info = probe_video(tmp_path / output)
    assert info.frame_count == 2
    import av

    with av.open(str(tmp_path / output)) as container:
        assert container.streams.video[0].codec_context.name.startswith(codec)


def test_a_name_without_a_suffix_is_a_folder_of_pictures(command, tmp_path):
    assert main(command(output=tmp_path / "pictures", steps=1, frame_load_cap=2)) == 0
    assert [path.suffix for path in (tmp_path / "pictures").iterdir()] == [".png"] * 2
    assert main(command(output=tmp_path / "a.webp", steps=1, frame_load_cap=2)) == 0
    assert probe_video(tmp_path / "a.webp").frame_count == 2


def test_a_schedule_from_a_file_is_the_same(command, tmp_path):
    text = "0: a red box\n3: a green box"
    (tmp_path / "schedule.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    for name, given in (("text", text), ("file", tmp_path / "schedule.txt")):
        output = tmp_path / f"{name}.mp4"
        assert main(command(output=output, steps=1, prompt=None, prompt_schedule=given)) == 0
    assert (tmp_path / "text.mp4").read_bytes() == (tmp_path / "file.mp4").read_bytes()


RUN = "import sys; from animatediff_v2v.cli.main import main; sys.exit(main(sys.argv[1:]))"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


@pytest.mark.parametrize(
    "stream",
    [pytest.param("full", marks=needs_full), "closed pipe", "narrow encoding"],
)
def test_a_stdout_that_takes_nothing_costs_no_video(stream, command, tmp_path):
    output = tmp_path / "größer_☃.mp4"
    arguments = command(output=output, steps=1, frame_load_cap=1)
    env = {"PYTHONIOENCODING": "cp1252", "NO_COLOR": "1", "TERM": "dumb"}
    if stream == "full":
        with Path("/dev/full").open("w") as full:
            done = check(RUN, *arguments, cwd=tmp_path, stdout=full)
    elif stream == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        done = check(RUN, *arguments, cwd=tmp_path, stdout=writing)
        os.close(writing)
    else:
        done = check(RUN, *arguments, cwd=tmp_path, env=env)
        assert "größer_\\u2603.mp4: 1 frames" in done.stdout.decode("cp1252")
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 1000
    assert b"\x1b" not in done.stderr and b"\r" not in done.stderr.replace(b"\r\n", b"\n")


def test_a_rate_is_exact(tmp_path, command):
    source = tmp_path / "in.mp4"
    with VideoWriter(source, width=64, height=64, frame_rate=Fraction(30)) as writer:
        writer.write(np.zeros((12, 64, 64, 3), np.uint8))
    output = tmp_path / "out.mp4"
    arguments = command(
        input=source, output=output, steps=1, force_rate="30000/1001", select_every_nth_frame=3
    )
    assert main(arguments) == 0
    assert probe_video(output).frame_rate == Fraction(10000, 1001)
