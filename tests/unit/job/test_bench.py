"""`animatediff-v2v bench`: measured on small networks, predicted for whole jobs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline.bench import findings, machine, passes, peaks, report
from animatediff_v2v.pipeline.bench.networks import SD15, Sizes, meta_unet
from animatediff_v2v.pipeline.bench.passes import Line, PassTimes
from animatediff_v2v.pipeline.memory import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = Sizes(channels=(64,) * 4, vae_channels=(32,) * 4, layers=1, text_channels=32, heads=2)
KEYS = {"machine", "width", "height", "frames", "matrix_tflops", "copy_gb", "step_seconds"}
KEYS |= {"step_share_of_peak", "vae_seconds", "memory_gb", "jobs", "findings", "best_setting"}


@pytest.fixture(scope="module")
def result():
    """The report on tiny networks, with products and copies that take milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "_MATRIX_SIDE", {"cpu": 128})
        patch.setattr(peaks, "_COPIED_BYTES", {"cpu": 2**20})
        return report.bench(CPU, torch.float32, width=64, height=64, frames=2, sizes=TINY)


@pytest.fixture
def _measured(result, monkeypatch):
    """Let the command report what was measured already."""
    monkeypatch.setattr(report, "bench", lambda *_, **__: result)


@pytest.mark.usefixtures("_measured")
def test_the_command_prints_what_was_measured_and_predicted(capsys):
    assert main(["bench", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for part in ("float32: 2 frames of 64x64", "TFLOP/s", "25 steps", "For bug reports:", "torch "):
        assert part in shown


@pytest.mark.usefixtures("_measured")
def test_json_holds_every_figure(capsys):
    assert main(["bench", "--json", "--device", "cpu"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == KEYS
    assert [job["steps"] for job in printed["jobs"]] == [25, 8, 4]
    whole, _, short = (job["seconds"] for job in printed["jobs"])
    assert whole > short > printed["vae_seconds"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--width", "100"], "--width is 100; it must be a multiple of 8 from 64 to 2048."),
        (["--height", "0"], "--height is 0; it must be a multiple of 8"),
        (["--frames", "0"], "--frames is 0; it must be from 1 to 32"),
        (["--frames", "33"], "--frames is 33; it must be from 1 to 32"),
        (["--dtype", "int8"], "--dtype is 'int8'; it can be auto, float32"),
        (["--device", "tpu"], "--device is 'tpu', on which this machine cannot compute"),
    ],
)
def test_refusals(options, sentence, capsys):
    assert main(["bench", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_the_operations_of_stable_diffusion_are_all_recorded():
    kinds, operations = passes.recorded(meta_unet(), height=512, width=512, frames=2)
    names = Counter(kind.operation for kind in kinds)
    assert names == {"resnet": 22, "transformer": 16, "motion": 21}
    assert operations == pytest.approx(1.106e12, rel=0.001)
    assert len({kind.key for kind in kinds}) == 22


def test_most_operations_are_those_of_the_recorded_kinds():
    kinds, operations = passes.recorded(meta_unet(TINY), height=64, width=64, frames=2)
    recorded = sum(passes.counted(kind, 2) for kind in kinds) / 2
    assert 0.8 < recorded / operations < 1


@pytest.mark.parametrize(
    ("most", "affordable", "rows"),
    [(16, 100.0, [16]), (16, 16.0, [16]), (16, 8.0, [2, 6]), (16, 0.1, [1, 2]), (1, 2.0, [1])],
)
def test_slices(most, affordable, rows):
    assert passes.slices(most, affordable) == rows


@pytest.mark.parametrize(("side", "rows"), [(64, 4), (2048, 2)])
def test_as_many_rows_are_timed_as_go_together(monkeypatch, side, rows):
    """Small frames go through the UNet with both prompts, large ones on a CPU with each."""
    seen = []

    def timed(*_: object, rows: list[int], **__: object) -> Line:
        seen.append(rows)
        return Line(0.0, 1.0)

    monkeypatch.setattr(passes, "timed", timed)
    monkeypatch.setattr(passes, "_timed_vae", lambda *_, **__: (0.1, 0.2, 1e12, 2e12))
    passes.time_passes(
        CPU, torch.float32, width=side, height=side, frames=2, peak=1.0, seconds=1e3, sizes=TINY
    )
    assert seen and all(each == [rows] for each in seen)


def test_a_line_through_two_slices_gives_the_time_of_all_rows(monkeypatch):
    seconds = iter([3.0, 7.0])  # 1 + 2 a row, for 1 and 3 rows
    monkeypatch.setattr(passes, "seconds_of", lambda *_: next(seconds))
    kind = passes.recorded(meta_unet(TINY), height=64, width=64, frames=1)[0][0]
    line = passes.timed(kind, CPU, torch.float32, rows=[1, 3], frames=8)
    assert line == Line(1.0, 2.0)
    assert line.at(16) == 33.0


TIMES = PassTimes(Line(1.0, 0.5), 1e12, 0.1, 0.2, 1e12, 2e12)


@pytest.mark.parametrize(
    ("device", "guidance", "pixels", "seconds"),
    [
        (CUDA, 7.0, 512 * 512, 17.0),  # both prompts in a pass of 32 rows
        (CUDA, 1.0, 512 * 512, 9.0),
        (CPU, 7.0, 512 * 512, 18.0),  # a pass of 16 rows for each prompt
        (CPU, 7.0, 128 * 128, 17.0),
        (CPU, 1.0, 512 * 512, 9.0),
    ],
)
def test_a_step_is_as_many_passes_as_the_sampler_makes(device, guidance, pixels, seconds):
    assert report.step_seconds(TIMES, device, 16, pixels, guidance) == seconds


def test_the_memory_of_a_job_is_that_of_the_measured_one():
    """Counted 4.645 GB for the whole job; see benchmarks/RESULTS.md, Memory of a GPU."""
    counted = report.memory_of_a_job(
        CUDA, torch.float16, width=512, height=512, frames=16, sizes=SD15
    )
    assert counted / 1e9 == pytest.approx(4.645, rel=0.01)


def found(device=CPU, dtype=torch.float32, *, peak=1.0):
    return {each.setting: each for each in findings.find(device, dtype, peak=peak)}


@pytest.fixture
def plain(monkeypatch):
    """A machine on which nothing is missing."""
    monkeypatch.setattr(findings, "attention_speed", lambda *_: 1.0)
    monkeypatch.setattr(findings, "usable_cores", torch.get_num_threads)
    monkeypatch.setattr(findings, "has_fast_bfloat16", lambda _: False)
    monkeypatch.setattr(findings.shutil, "which", lambda _: None)
    return monkeypatch


def test_nothing_is_missing(plain):
    assert found() == {}


def test_a_driver_without_cuda_in_pytorch(plain):
    plain.setattr(findings.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert "install PyTorch with CUDA" in found()["PyTorch with CUDA"].sentence


def test_idle_cores(plain):
    threads = torch.get_num_threads()
    plain.setattr(findings, "usable_cores", lambda: 16 * threads)
    assert found()["OMP_NUM_THREADS"].gain == 8.0


def test_bfloat16_where_the_processor_has_it(plain):
    plain.setattr(findings, "has_fast_bfloat16", lambda _: True)
    plain.setattr(findings, "matrix_peak", lambda _device, _dtype: 2.2)
    assert found(peak=1.0)["--dtype bfloat16"].gain == 2.2
    assert found(peak=2.2) == {}
    assert found(dtype=torch.bfloat16) == {}


def test_missing_kernels_and_narrow_sums_of_a_graphics_card(plain):
    plain.setattr(findings, "default_ops", lambda *_: findings.EAGER_OPS)
    plain.setattr(findings, "matrix_peak", lambda *_: 1.9)
    missing = found(CUDA, torch.float16)
    assert missing["--fast"].gain == 1.9
    assert max(missing.values(), key=lambda each: each.gain).setting == "--fast"
    assert {"triton", "triton-windows"} & set(missing)
    assert "--fast" not in found(CUDA, torch.bfloat16)


@pytest.mark.parametrize(("share", "sentence"), [(1.0, None), (0.75, None), (0.2, "leave 20%")])
def test_a_busy_machine_is_told(share, sentence):
    told = report._busy(share)
    assert len(told) == (sentence is not None)
    assert all(sentence in each.sentence and each.gain == 1 / share for each in told)


def test_the_setting_that_helps_most(result):
    few = findings.Finding("a", "few", 1.2)
    for given, best in (((), "--preset fast"), ((few,), "--preset fast")):
        assert replace(result, findings=given).best.setting == best
    much = replace(few, setting="much", gain=2.0)
    assert replace(result, findings=(few, much)).best.setting == "much"
    shown = "\n".join(report.described(replace(result, findings=(few, much))))
    assert "Helps most: much." in shown
    assert "Nothing is missing." in "\n".join(report.described(replace(result, findings=())))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.434, "     0.43 s"),
        (119.99, "   119.99 s"),
        (120, "      2.0 min"),
        (1956, "     32.6 min"),
        (7200, "      2.0 h"),
        (188_369, "     52.3 h"),
    ],
)
def test_long_times_are_told_in_minutes_or_hours(seconds, text):
    assert report.in_units(seconds) == text


def test_slow_attention(plain):
    plain.setattr(findings, "attention_speed", lambda *_: 0.05)
    assert "Attention reaches 5%" in found()["another PyTorch"].sentence


def test_too_little_memory_names_the_limit_to_give():
    facts = machine.this_machine(CPU, torch.float32)
    small = replace(facts, device="cuda:0", free_gb=3.4)
    assert "--max-memory 3.4" in report._too_little(small, 4.6).sentence
    assert report._too_little(small, 3.3) is None
    assert "close other programs" in report._too_little(replace(facts, free_gb=1.0), 4.6).sentence


def test_sums_in_16_bits_are_switched_back():
    products = torch.backends.cuda.matmul
    with findings.fp16_accumulation() as possible:
        assert possible and products.allow_fp16_accumulation
        with findings.fp16_accumulation(on=False) as still:
            assert still
    assert not products.allow_fp16_accumulation


@pytest.mark.parametrize(
    ("case", "has_it", "expected"),
    [
        (("auto", False), True, (torch.float32, False)),
        (("auto", True), True, (torch.bfloat16, False)),
        (("auto", True), False, (torch.float32, False)),
        (("float32", True), True, (torch.float32, False)),
        (("bfloat16", False), True, (torch.bfloat16, False)),
        (("bfloat16", False), False, (torch.bfloat16, True)),
        (("float16", False), True, (torch.float16, True)),
    ],
)
def test_the_dtype_on_a_processor(case, has_it, expected, monkeypatch, caplog):
    (name, reduced), (dtype, warns) = case, expected
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert devices.resolve_dtype(name, CPU, reduced_precision=reduced) == dtype
    assert (f"dtype is {name}, which is slower than float32 on this CPU" in caplog.text) == warns
    assert devices.resolve_dtype("auto", CUDA, reduced_precision=reduced) == torch.float16
