"""The command, end to end: its files, its output and its errors."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import av
import pytest
from animatediff_v2v.cli.arguments import control_files, lora_entry
from animatediff_v2v.cli.console import ProgressBar, ProgressLines
from animatediff_v2v.cli.main import WordedLines, _parser, main
from animatediff_v2v.cli.parsing import reworded
from animatediff_v2v.cli.run import request_of
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.ops import compiled as compiled_layers
from animatediff_v2v.pipeline.progress import Progress
from animatediff_v2v.pipeline.sampling import SpeedOptions
from animatediff_v2v.pipeline.video import probe_video


def test_writes_a_video_with_the_right_count_rate_size_and_sound(command, tmp_path):
    assert main(command()) == 0
    info = probe_video(tmp_path / "out.mp4")
    assert (info.frame_count, info.frame_rate) == (5, Fraction(10, 4))
    assert (info.width, info.height) == (64, 64)
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound = container.streams.audio[0]
        assert abs(float(sound.duration * sound.time_base) - 2.0) < 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4"]


def test_a_warning_is_written_once_in_the_words_of_the_command(command, capsys, caplog):
    """It is written by the log only, in the form of the other lines."""
    assert main(command(frame_load_cap=4)) == 0
    assert "are too few for a" not in capsys.readouterr().err  # pytest takes the log's place
    (record,) = [each for each in caplog.records if "are too few for a" in each.getMessage()]
    line = WordedLines(reworded).format(record)
    assert line.startswith("animatediff-v2v: 4 frames are too few for a motion module")
    assert "a smaller --select-every-nth-frame, a higher --force-rate" in line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("guidance_scale 7 is too strong", "--guidance-scale 7 is too strong"),
        ("guidance_rescale is 0.7 and has", "--guidance-rescale is 0.7 and has"),
        ("dtype is bfloat16, which is slower", "--dtype is bfloat16, which is slower"),
        ("a.mp4 gave 3 frames", "a.mp4 gave 3 frames"),
    ],
)
def test_warnings_name_options(message, line):
    record = logging.makeLogRecord({"msg": message})
    assert WordedLines(reworded).format(record) == f"animatediff-v2v: {line}"


def test_json_is_one_object_on_stdout(command, tmp_path, capsys):
    assert main([*command(width=72, height=80), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    video = result["video"]
    assert video["url"] == (tmp_path / "out.mp4").resolve().as_uri()
    assert (video["content_type"], video["file_name"]) == ("video/mp4", "out.mp4")
    assert video["file_size"] == (tmp_path / "out.mp4").stat().st_size
    assert result["seed"] == 7
    phases = {"decode", "encode", "sample", "decode_latents", "write", "total"}
    assert set(result["timings"]) == phases
    parts = sum(seconds for phase, seconds in result["timings"].items() if phase != "total")
    assert 0 < parts <= result["timings"]["total"] * 1.01
    assert "100%" in captured.err
    assert (probe_video(tmp_path / "out.mp4").width, video["file_size"] > 1000) == (72, True)


def test_same_seed_same_bytes_and_a_random_seed_is_told(command, tmp_path, capsys):
    outputs = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    for output, seed in zip(outputs, (7, 7, None), strict=True):
        assert main([*command(output=output, seed=seed), "--json"]) == 0
    first, second, third = (path.read_bytes() for path in outputs)
    assert first == second != third
    seeds = [json.loads(line)["seed"] for line in capsys.readouterr().out.splitlines()]
    assert seeds[:2] == [7, 7]
    assert 0 <= seeds[2] <= 2**53 - 1


def test_a_lora_changes_the_picture_and_scale_zero_does_not(command, weights, tmp_path):
    lora = weights / "style_lora.safetensors"
    outputs = {}
    for name, value in (("none", None), ("zero", f"{lora}:0"), ("one", str(lora))):
        outputs[name] = tmp_path / f"{name}.mp4"
        assert main(command(output=outputs[name], lora=value)) == 0
    none, zero, one = (path.read_bytes() for path in outputs.values())
    assert none == zero != one


def test_devices_share_a_clip_with_the_same_bytes(command, weights, tmp_path, capsys, caplog):
    options = {
        "lora": weights / "style_lora.safetensors",
        "control": weights / "controlnet.safetensors",
        "context_length": 4,
        "context_overlap": 2,
        "steps": 1,
    }
    alone, shared = tmp_path / "alone.mp4", tmp_path / "shared.mp4"
    assert main(command(output=alone, **options)) == 0
    assert "the others wait" not in caplog.text
    assert main(command(output=shared, devices="cpu,cpu,cpu", **options)) == 0
    assert "5 frames are 2 context windows, and there are 3 devices" in caplog.text
    assert shared.read_bytes() == alone.read_bytes()
    assert main([*command(output=tmp_path / "c.mp4", devices="cpu,cpu"), "--compile"]) == 2
    assert "--compile is on and several devices are given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [{"deep_cache": 2}, {"guidance_interval": "0:0.5"}, {"fp8_weights": ""}],
    ids=str,
)
def test_an_option_for_speed_changes_the_picture(options, command, tmp_path):
    outputs = [tmp_path / name for name in ("exact.mp4", "fast.mp4", "off.mp4")]
    assert main(command(output=outputs[0])) == 0
    fast = [part for part in command(output=outputs[1], **options) if part]
    assert main(fast) == 0
    off = {"deep_cache": 1, "guidance_interval": "0:1"}
    assert main(command(output=outputs[2], **off)) == 0
    exact, fast, off = (path.read_bytes() for path in outputs)
    assert fast != exact == off


@pytest.mark.parametrize(
    ("options", "speed"),
    [
        ([], SpeedOptions()),
        (["--preset", "exact"], SpeedOptions()),
        (["--preset", "fast"], SpeedOptions(deep_cache_interval=2, reduced_precision=True)),
        (["--preset", "fast", "--deep-cache", "1"], SpeedOptions(reduced_precision=True)),
        (["--preset", "draft"], SpeedOptions(reduced_precision=True)),
        (["--fast"], SpeedOptions(reduced_precision=True)),
        (["--guidance-interval", "0.1:0.9"], SpeedOptions(guidance_start=0.1, guidance_end=0.9)),
    ],
)
def test_options_for_speed_are_the_presets_with_those_given(options, speed):
    networks = ["--checkpoint", "a.ckpt", "--motion-module", "none", "--prompt", "x"]
    parsed = _parser().parse_args(["run", "a.mp4", "b.mp4", *networks, *options])
    assert request_of(parsed).sampling.speed == speed


def test_what_cannot_be_compiled_is_refused_before_anything_is_loaded(
    command, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(compiled_layers, "_has_cpp_compiler", lambda: False)
    job = import_module("animatediff_v2v.pipeline.video_to_video")
    monkeypatch.setattr(job, "load_files", lambda *_files: pytest.fail("the files are loaded"))
    output = tmp_path / "out.mp4"
    assert main([*command(output=output), "--compile", "--device", "cpu"]) == 2
    assert "there is no C++ compiler: install" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("option", "file", "sentence"),
    [
        ("checkpoint", "motion_module.safetensors", ", where a checkpoint is wanted."),
        ("motion_module", "checkpoint.safetensors", ", where a motion module is wanted."),
        ("vae", "motion_module.safetensors", ", where a VAE is wanted."),
        ("lora", "checkpoint.safetensors", ", where a LoRA is wanted."),
        ("motion_lora", "motion_module.safetensors", ", where a motion LoRA is wanted."),
    ],
)
def test_a_wrong_model_file_is_refused_before_anything_is_loaded(
    command, weights, tmp_path, capsys, *, option, file, sentence
):
    assert main(command(output=tmp_path / "out.mp4", **{option: weights / file})) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"animatediff-v2v: --{option.replace('_', '-')}: {weights / file} is ")
    assert sentence in line


def test_what_is_no_video_is_refused_before_anything_is_loaded(command, tmp_path, capsys):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert main(command(input=text, output=tmp_path / "out.mp4")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"animatediff-v2v: INPUT: {text} cannot be read as a video")


def test_what_is_compiled_has_no_bound_and_is_refused_before_anything_is_loaded(
    command, tmp_path, capsys
):
    output = tmp_path / "out.mp4"
    (tmp_path / "no.safetensors").write_text("no model")
    missing = command(output=output, checkpoint=tmp_path / "no.safetensors", max_memory=4)
    assert main([*missing, "--compile"]) == 2
    assert "--compile is on and memory has a limit (--max-memory)" in capsys.readouterr().err
    assert not output.exists()


def test_styles_have_no_bound_and_are_refused_before_anything_is_loaded(command, tmp_path, capsys):
    output = tmp_path / "out.mp4"
    missing = command(output=output, checkpoint=tmp_path / "missing.safetensors", max_memory=4)
    style = ["--ip-adapter", "a", "--clip-vision", "b", "--style-image", "c"]
    assert main([*missing, *style]) == 2
    assert capsys.readouterr().err == (
        "animatediff-v2v: --ip-adapter is given together with --max-memory, but what IP-Adapters "
        "and their vision models take is not counted: leave out --ip-adapter, or --max-memory.\n"
    )
    assert not output.exists()


def test_a_refined_job_says_which_pass_it_is_in(command, capsys):
    assert main(command(refine=1.25, steps=1)) == 0
    shown = capsys.readouterr().err
    assert all(f"sampling step 1 of 1, pass {number} of 2 (" in shown for number in (1, 2))


def test_the_bar_shows_what_is_said_without_a_step_forward(capsys):
    with ProgressBar() as bar:
        bar.begin("loading the models")
        bar.show(Progress("sample", 0.25, "sampling step 1 of 4"))
        bar.show(Progress("sample", 0.25, "compiling, once"))
        shown = capsys.readouterr().err
        assert "loading the models" in shown and "compiling, once" in shown
    assert capsys.readouterr().err.endswith("\n")


def test_a_log_gets_a_line_for_each_phase_and_each_tenth(capsys):
    with ProgressLines() as lines:
        lines.begin("loading the models")
        for percent in range(0, 61):
            lines.show(Progress("sample", percent / 100, f"sampling {percent}"))
        for percent in range(61, 101):
            lines.show(Progress("decode_latents", percent / 100, f"decoding {percent}"))
    shown = capsys.readouterr().err
    assert "\r" not in shown and "|" not in shown
    said = [line.split(":", 1)[1].split(" (")[0].strip() for line in shown.splitlines()]
    tens = [f"{n}% sampling {n}" for n in (0, 10, 20, 30, 40, 50, 60)]
    rest = [f"{n}% decoding {n}" for n in (61, 70, 80, 90, 100)]
    assert said == ["loading the models", *tens, *rest]


def wrong(**options):
    return options


WRONG_INPUTS = {
    "missing clip": (wrong(input="nowhere.mp4"), "nowhere.mp4"),
    "text named mp4": (wrong(input="TEXT"), "text.mp4"),
    "missing checkpoint": (wrong(checkpoint="no.safetensors"), "no.safetensors"),
    "checkpoint as motion module": (wrong(motion_module="CHECKPOINT"), "motion module"),
    "motion module as checkpoint": (wrong(checkpoint="MOTION"), "motion module"),
    "no interval": (wrong(guidance_interval="0.5"), "--guidance-interval is '0.5'; it must be two"),
    "an interval of words": (wrong(guidance_interval="a:b"), "for example 0:0.8"),
    "an interval that ends first": (wrong(guidance_interval="0.6:0.5"), "from 0.6 to 1"),
    "DeepCache never": (wrong(deep_cache=0), "--deep-cache is 0; it must be from 1 to 10"),
    "no frame selected": (wrong(frame_load_cap=-1), "--frame-load-cap is -1"),
    "every 0th frame": (wrong(select_every_nth_frame=0), "0"),
    "unknown sampler": (wrong(sampler="eula"), "--sampler is 'eula'; it can be euler,"),
    "unknown scheduler": (wrong(scheduler="x"), "--scheduler is 'x'; it can be normal,"),
    "unknown preset": (wrong(preset="swift"), "--preset is 'swift'; it can be quality, turbo"),
    "unknown dtype": (wrong(dtype="int8"), "--dtype is 'int8'"),
    "unknown device": (wrong(device="npu:7"), "--device is 'npu:7'"),
    "several devices, one unknown": (
        wrong(devices="cpu,cuda:99"),
        "--devices is cpu, cuda:99, and this machine cannot compute on 'cuda:99'",
    ),
    "devices without a name": (wrong(devices="cpu,"), "--devices is 'cpu,'; give names"),
    "auto among devices": (wrong(devices="auto,cpu"), "cannot compute on 'auto'"),
    "a device and devices": (
        wrong(device="cpu", devices="cpu,cpu"),
        "--device is 'cpu', and --devices is given as well: give one of the two.",
    ),
    "no steps": (wrong(steps=0), "--steps is 0"),
    "steps that are no number": (wrong(steps="many"), "many"),
    "denoise above 1": (wrong(denoise=1.5), "--denoise is 1.5; it must be from 0 to 1"),
    "negative guidance": (wrong(guidance_scale=-1), "--guidance-scale is -1"),
    "guidance that is no number": (wrong(guidance_scale="nan"), "--guidance-scale is nan"),
    "seed too large": (wrong(seed=2**64), "18446744073709551615"),
    "strength without an end": (wrong(lora="LORA:inf"), "the strength of style_lora.safetensors"),
    "strength that is none": (wrong(motion_lora="LORA:nan"), "is nan; it must be from -10 to 10"),
    "weight that is none": (wrong(prompt="a (box:nan)"), "prompt: the weight of 'box' is nan;"),
    "absurd weight": (
        wrong(negative_prompt="(a:1e30)"),
        "--negative-prompt: the weight of 'a' is 1",
    ),
    "absurd guidance": (wrong(guidance_scale=1e9), "is 1000000000; it must be from 0 to 100"),
    "absurd steps": (wrong(steps=10**6), "steps is 1000000; it must be from 1 to 1000"),
    "absurd size": (wrong(width=10**6), "width is 1000000; it must be from 0 to 8192"),
    "unwritable output": (wrong(output="nowhere/out.mp4"), "nowhere"),
    "output of another kind": (wrong(output="out.txt"), "out.txt"),
    "missing LoRA": (wrong(lora="no_lora.safetensors:0.5"), "no_lora.safetensors"),
    "LoRA elsewhere": (wrong(lora="https://host.example/a.safetensors"), "Fetch it with: curl"),
    "missing prompt": (wrong(prompt=None), "--prompt"),
    "window longer than the module": (wrong(context_length=40), "at most 32 frames"),
    "overlap of a whole window": (wrong(context_overlap=16), "--context-overlap is 16"),
    "no memory": (wrong(max_memory=0), "--max-memory is 0; it must be from 1e-06 to 1000000"),
    "memory without an end": (wrong(max_memory="inf"), "--max-memory is inf"),
    "too little memory": (wrong(max_memory=0.001), "windows of 5 frames of 64x64 with these"),
    "missing ControlNet": (wrong(control="no_net.safetensors:0.5"), "no_net.safetensors"),
    "checkpoint as ControlNet": (wrong(control="CHECKPOINT"), "where a ControlNet is wanted"),
    "span that ends before it starts": (wrong(control="CONTROL:1:0.8:0.2"), "end is 0.2"),
    "strength that is no number": (wrong(control="CONTROL:nan"), "strength"),
    "missing control video": (
        wrong(control="CONTROL", control_source="nowhere.mp4"),
        "nowhere.mp4",
    ),
    "missing folder of embeddings": (wrong(embeddings="nowhere"), "nowhere"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_input_is_one_sentence_and_leaves_nothing(case, command, weights, monkeypatch, capfd):
    tmp_path = Path(command()[2]).parent
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("not a video, whatever its name")
    stand_ins = {
        "TEXT": tmp_path / "text.mp4",
        "CHECKPOINT": weights / "checkpoint.safetensors",
        "MOTION": weights / "motion_module.safetensors",
    }
    options, expected = WRONG_INPUTS[case]
    options = dict(options)
    if "control" in options:
        net = str(weights / "controlnet.safetensors")
        options["control"] = options["control"].replace("CONTROL", net)
    for name in {"lora", "motion_lora"} & options.keys():
        options[name] = options[name].replace("LORA", str(weights / "style_lora.safetensors"))
    options = {name: stand_ins.get(value, value) for name, value in options.items()}
    before = sorted(tmp_path.rglob("*"))
    assert main(command(**options)) == 2
    captured = capfd.readouterr()
    *lines, message = captured.err.strip().splitlines()
    assert all(line.startswith("animatediff-v2v: ") for line in [*lines, message])
    assert expected in message
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT, which Windows has not")
@pytest.mark.parametrize(
    ("interpreter", "moment", "number"),
    [
        (["-X", "importtime"], "torch._VF", signal.SIGINT),
        (["-X", "importtime"], "animatediff_v2v.pipeline.models.layers", signal.SIGINT),
        ([], "sampling step 1", signal.SIGINT),
        ([], "sampling step 1", signal.SIGTERM),
        ([], "sampling step 1", getattr(signal, "SIGHUP", signal.SIGTERM)),
    ],
    ids=["importing torch", "importing networks", "sampling", "terminated", "hung up"],
)
def test_ctrl_c_leaves_no_file(interpreter, moment, number, command, tmp_path):
    arguments = [sys.executable, *interpreter, "-m", "animatediff_v2v.cli"]
    # Background jobs of a shell ignore SIGINT, those of nohup SIGHUP; children inherit that.
    heard = {each: signal.signal(each, signal.SIG_DFL) for each in {signal.SIGINT, number}}
    process = subprocess.Popen(
        [*arguments, *command(steps=1000)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    for each, handler in heard.items():
        signal.signal(each, handler)
    seen = ""
    while moment not in seen:
        character = process.stderr.read(1)
        assert character, f"ended early: {seen}"
        seen += character
    process.send_signal(number)
    rest = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert "Traceback" not in seen + rest
    assert list(tmp_path.iterdir()) == []


def test_inspect_tells_a_line_for_each_file(weights, tmp_path, capsys):
    page = tmp_path / "model.safetensors"
    page.write_text("<!doctype html><title>Please log in</title>")
    files = [weights / "checkpoint.safetensors", weights / "motion_module.safetensors", page]
    assert main(["inspect", *map(str, files)]) == 1
    checkpoint, motion_module, web_page = capsys.readouterr().out.splitlines()
    assert "checkpoint, SD1.5, LDM layout, 7.4 M parameters in float16" in checkpoint
    assert "motion module, SD1.5, original layout" in motion_module
    assert "web page" in web_page
    assert main(["inspect", "--json", *map(str, files[:2])]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [report["kind"] for report in reports] == ["checkpoint", "motion module"]
    wanted = {"path", "kind", "base_model", "layout", "usable", "message"}
    assert all(wanted <= set(report) for report in reports)


@pytest.mark.parametrize(
    ("text", "file", "scales"),
    [
        ("a.safetensors", "a.safetensors", (1.0, 1.0)),
        ("a.safetensors:0.5", "a.safetensors", (0.5, 0.5)),
        ("a.safetensors:-1", "a.safetensors", (-1.0, -1.0)),
        ("a.safetensors:0.5:0", "a.safetensors", (0.5, 0.0)),
        ("C:a.safetensors", "C:a.safetensors", (1.0, 1.0)),
        ("C:a.safetensors:0.3", "C:a.safetensors", (0.3, 0.3)),
    ],
)
def test_lora_argument(text, file, scales, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).touch()
    entry = lora_entry(text)
    assert (str(entry.path), entry.model_strength, entry.clip_strength) == (file, *scales)


@pytest.mark.parametrize(
    ("text", "curve", "text_scale"),
    [
        ("a.safetensors:0=0.2,24=1.0", Curve("0=0.2,24=1.0"), 0.0),
        ("a.safetensors:0=0.2, -1=1 ease:0.5", Curve("0=0.2, -1=1 ease"), 0.5),
        ("a.safetensors:0%=1,50%=0.2:0.5", Curve("0%=1,50%=0.2"), 0.5),
        ("C:a.safetensors:0=0,8=1:0:0.1", Curve("0=0,8=1", start=0.1), 0.0),
        ("a.safetensors:0.8:0.7:0.1:0.5", Curve("0: 0.8", start=0.1, end=0.5), 0.7),
        ("a=b,c=d.safetensors:0=0,8=1", Curve("0=0,8=1"), 0.0),
    ],
)
def test_lora_argument_with_a_curve(text, curve, text_scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = f"{text.partition('.safetensors')[0]}.safetensors"
    (tmp_path / file).touch()
    entry = lora_entry(text)
    assert (str(entry.path), entry.model_strength, entry.clip_strength) == (file, curve, text_scale)


@pytest.mark.parametrize(
    ("text", "file", "strength", "start", "end"),
    [
        ("a.safetensors", "a.safetensors", 1, 0, 1),
        ("a.safetensors:0.5", "a.safetensors", 0.5, 0, 1),
        ("a.safetensors:0.5:0.1", "a.safetensors", 0.5, 0.1, 1),
        ("a.safetensors:1.5:0.1:0.8", "a.safetensors", 1.5, 0.1, 0.8),
        (r"C:\nets\a.safetensors:1:0:0.5", r"C:\nets\a.safetensors", 1, 0, 0.5),
    ],
)
def test_control_argument(text, file, strength, start, end):
    (control,) = control_files([text], [])
    assert (str(control.network), control.strength) == (file, strength)
    assert (control.span.start, control.span.end) == (start, end)
    assert control.source == "canny"


def test_control_sources():
    def sources(*given):
        return [each.source for each in control_files(["a", "b"], given)]

    assert sources() == ["canny", "canny"]
    assert sources("tile") == ["tile", "tile"]
    assert sources("canny", "depth.mp4") == ["canny", Path("depth.mp4")]
    with pytest.raises(AnimateDiffV2VError, match="given 3 times and --control 2 times"):
        sources("canny", "tile", "tile")


def test_control_guides_the_clip(command, weights, clip, tmp_path):
    control = weights / "controlnet.safetensors"
    runs = {
        "none": {},
        "zero": {"control": f"{control}:0"},
        "canny": {"control": control},
        "tile": {"control": control, "control_source": "tile"},
        "video": {"control": control, "control_source": clip},
        "late": {"control": f"{control}:1:0.9:1"},
    }
    outputs = {name: tmp_path / f"{name}.mp4" for name in runs}
    for name, options in runs.items():
        assert main(command(output=outputs[name], **options)) == 0
    none, zero, *guided = (path.read_bytes() for path in outputs.values())
    assert none == zero
    assert len({none, *guided}) == 5
    assert sorted(tmp_path.iterdir()) == sorted(outputs.values()), "something is left over"
