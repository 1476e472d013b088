"""Compiled layers: equal to plain ones, compiled once for all jobs, refused where impossible.

What is compiled is counted with a backend that runs the operators as they are: it takes a tenth of
the time of PyTorch's real compiler, which a layer goes through.
"""

import copy
from dataclasses import dataclass

import pytest
import torch
from animatediff_v2v.pipeline import SpeedOptions, load_models
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import LoraEntry
from animatediff_v2v.pipeline.models.ops import compiled as module
from animatediff_v2v.pipeline.models.ops.compiled import check_can_compile, compiled_layers
from animatediff_v2v.pipeline.models.ops.frame_norm import span_frames
from animatediff_v2v.pipeline.models.ops.select import EAGER_OPS
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Guidance
from torch._dynamo.utils import counters
from torch._inductor import config

from ..sampling.sampled import sample

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(ours, exact):
    return float((ours - exact).norm() / exact.norm())


@torch.inference_mode()
def test_pytorchs_own_compiler_gives_the_same_to_rounding(models):
    block = models.unet.unet.down_blocks[0].resnets[0]
    given = block, draw(4, 64, 6, 5), draw(1, 256, seed=1), 4
    plain = EAGER_OPS.resnet(*given)
    # Else another test's would be found on the disk, and processes started for one kernel.
    alone = config.patch(force_disable_caches=True, compile_threads=1)
    with alone, compiled_layers(CPU) as layers:
        ours = layers.resnet(*given)
    assert 0 < relative(ours, plain) < 1e-5


class Counter:
    """A backend that counts what it is given to compile, or fails at it."""

    def __init__(self):
        self.count, self.fails = 0, False

    def __call__(self, graph, _inputs):
        if self.fails:
            raise ValueError("no such register")
        self.count += 1
        return graph.forward

    def seen(self, run):
        """Return the number of compilations while `run` runs."""
        before = self.count
        run()
        return self.count - before


@pytest.fixture(scope="module")
def counter():
    """Count compilations. As in a process, each test finds what earlier ones compiled."""
    counter, compile_by = Counter(), torch.compile
    torch._dynamo.reset()
    module._layers.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch, "compile", lambda run, **options: compile_by(run, backend=counter, **options)
        )
        yield counter
    module._layers.cache_clear()
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def models_with_lora(weights):
    return load_models(
        weights / "checkpoint.safetensors",
        motion_module=weights / "motion_module.safetensors",
        loras=[LoraEntry(weights / "style_lora.safetensors", 0.7)],
        device=CPU,
        dtype=torch.float32,
    )


def inputs(*, frames=4, clips=1, height=6, width=5, tokens=77, alike=True):
    rows = clips * frames
    context = draw(clips if alike else rows, tokens, 64, seed=1)
    if alike:
        context = context.repeat_interleave(frames, dim=0)
    return draw(rows, 4, height, width), torch.tensor([481]), context, frames


@torch.inference_mode()
def test_one_code_serves_all_that_jobs_differ_in(models, models_with_lora, counter):
    counters.clear()
    with compiled_layers(CPU) as layers:

        def run(unet, **sizes):
            arguments = inputs(**sizes)
            assert relative(unet(*arguments, ops=layers), unet(*arguments)) < 1e-4

        # Seven kinds of resnets, transformers and motion modules of two widths each.
        assert counter.seen(lambda: run(models.unet)) == 11
        for sizes in (
            {"frames": 7},
            {"height": 8, "width": 12},
            {"frames": 6, "height": 6, "width": 6},
            {"clips": 2},
            {"tokens": 154},
            {"alike": False},
            {"frames": 1, "height": 2, "width": 2},
        ):
            assert counter.seen(lambda sizes=sizes: run(models.unet, **sizes)) == 0, sizes
        assert counter.seen(lambda: run(models_with_lora.unet)) == 0
    assert not counters["graph_break"]


@dataclass
class Job:
    """A job of a few steps, and its progress messages."""

    models: object

    def __post_init__(self):
        self.told = []

    def sample(self, *, frames=6, seed=1, scale=7.0, **options):
        return sample(
            self.models.unet,
            draw(frames, 4, 6, 5),
            Conditioning.of(draw(1, 77, 64, seed=1), draw(1, 77, 64, seed=2)),
            seed=seed,
            steps=2,
            guidance=Guidance(scale=scale),
            progress=self.told.append,
            **options,
        )


def test_jobs_of_a_process_share_what_is_compiled(models, counter):
    job, on = Job(models), SpeedOptions(compile=True)
    assert relative(job.sample(speed=on), job.sample()) < 1e-4
    job.told.clear()
    for options in (
        {"seed": 2},
        {"scale": 1.0},
        {"frames": 11, "context": ContextOptions(length=4, overlap=1)},
        {"noise_type": "unsample"},
        {"speed": SpeedOptions(compile=True, deep_cache_interval=2)},
    ):
        given = {"speed": on, **options}
        assert counter.seen(lambda given=given: job.sample(**given)) == 0, options
    assert job.told and not any("compiling" in step.message for step in job.told)


def test_compiling_is_told_where_the_job_stands(still_models, counter):
    job = Job(still_models)
    # On a CPU PyTorch has other convolutions from 16 frames on: there is something to compile.
    on = SpeedOptions(compile=True)
    assert counter.seen(lambda: job.sample(frames=16, scale=1.0, speed=on)) > 0
    assert job.told[0].message == "compiling, once" and job.told[0].fraction == 0
    fractions = [step.fraction for step in job.told]
    assert fractions == sorted(fractions) and fractions[-1] == 1


@torch.inference_mode()
def test_norms_that_span_clips_know_any_number_of_frames(models, counter):
    block = copy.deepcopy(models.unet.unet.down_blocks[0].resnets[0])
    span_frames(block)
    with compiled_layers(CPU) as layers:

        def run(rows, frames):
            given = block, draw(rows, 64, 6, 5), draw(1, 256, seed=1), frames
            assert relative(layers.resnet(*given), EAGER_OPS.resnet(*given)) < 1e-4

        run(4, 4)
        run(8, 4)
        assert counter.seen(lambda: (run(6, 6), run(10, 5))) == 0


@torch.inference_mode()
def test_what_fails_to_compile_is_a_sentence(models, counter, monkeypatch):
    torch._dynamo.reset()
    # Undone at the end: tests run in any order when processes share them.
    monkeypatch.setattr(counter, "fails", True)
    sentence = "layers for cpu; switch compile off: .*no such register"
    with (
        pytest.raises(AnimateDiffV2VError, match=sentence),
        compiled_layers(CPU) as layers,
    ):
        models.unet(*inputs(), ops=layers)


OBSTACLES = {
    "a CPU without a compiler": ("cpu", "linux", False, ()),
    "Apple's GPU": ("mps", "darwin", False, ("g++",)),
    "Windows without Triton": ("cuda", "win32", False, ("g++",)),
    "Linux without Triton": ("cuda", "linux", False, ("gcc",)),
    "Triton without a compiler": ("cuda", "linux", True, ()),
}
SENTENCES = {
    "a CPU without a compiler": "there is no C++ compiler: install",
    "Apple's GPU": "it is not made for mps: use a CPU, or a GPU of",
    "Windows without Triton": "install the package triton-windows",
    "Linux without Triton": "install the package triton,",
    "Triton without a compiler": "Triton needs a C compiler and there is none: install gcc",
}
POSSIBLE = {
    "a CPU": ("cpu", "linux", False, ("g++",)),
    "Linux": ("cuda", "linux", True, ("gcc",)),
    "Windows": ("cuda", "win32", True, ()),
}


@pytest.fixture
def machine(monkeypatch):
    """Make this machine look like another one; return its device."""

    def pretend(device, platform, has_triton, programs):
        monkeypatch.setattr(module.sys, "platform", platform)
        monkeypatch.setattr("torch.utils._triton.has_triton", lambda: has_triton)
        monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
        which = {program: program for program in programs}
        monkeypatch.setattr(module.shutil, "which", which.get)
        monkeypatch.delenv("CC", raising=False)
        return torch.device(device)

    return pretend


@pytest.mark.parametrize("name", OBSTACLES)
def test_it_says_what_is_missing(name, machine):
    with pytest.raises(AnimateDiffV2VError) as caught:
        check_can_compile(machine(*OBSTACLES[name]))
    sentence = str(caught.value)
    assert sentence.startswith("compile is on, but ") and SENTENCES[name] in sentence
    assert sentence.endswith(", or switch compile off.")


@pytest.mark.parametrize("name", POSSIBLE)
def test_where_nothing_is_missing_it_says_nothing(name, machine):
    check_can_compile(machine(*POSSIBLE[name]))


def test_pytorch_itself_finds_no_compiler():
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(AnimateDiffV2VError, match=r"there is no C\+\+ compiler"),
    ):
        check_can_compile(CPU)


def test_an_old_pytorch_is_named(monkeypatch):
    monkeypatch.setattr(module, "OLDEST_PYTORCH", "99.0")
    with pytest.raises(AnimateDiffV2VError, match=r"this is PyTorch \S+: use 99.0 or newer"):
        check_can_compile(CPU)
