"""The clips of the batch node: rows of tables, and what is refused."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, SpeedOptions

from .declared import PACKAGE, without_comfyui

CHAIN = SimpleNamespace(links=(), patchers=())
GIVEN = {
    "prompt": "a fox",
    "negative_prompt": "",
    "num_inference_steps": 25,
    "guidance_scale": 7.0,
    "base_model": "base.safetensors",
    "motion_module": "motion.ckpt",
    "select_every_nth_frame": 2,
    "seed": 1,
}


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Return a function that makes the jobs of a table, and the module."""
    with without_comfyui():
        module = importlib.import_module(f"{PACKAGE}.batch_jobs")
        inputs = importlib.import_module(f"{PACKAGE}.job_inputs")
        loading = importlib.import_module(f"{PACKAGE}.loading")
        host = module.host
        host.clips_path = lambda name: str(tmp_path / name)
        host.path_in_folders = lambda path: None if "elsewhere" in path.parts else path
        host.model_path = Path
        host.lora_folders = lambda: [tmp_path]
        host.Devices.of_comfyui.return_value.unet_dtype = torch.float16
        monkeypatch.setattr(loading, "find_lora", lambda name, **_: Path("loras", name))

        def build(text, style=CHAIN, **given):
            (tmp_path / "t.csv").write_text(text)
            values = inputs.JobInputs(**GIVEN | given)
            out = tmp_path / "out"
            return module.batch_jobs("t.csv", out, values, style=style, metadata={"workflow": "1"})

        yield build


def test_a_row_has_values_of_its_own(jobs, tmp_path):
    first, second = jobs(
        "input,output,prompt,Steps,seed,lora,base_model,preset\n"
        "a.mp4,one,a cat,8,7,detail.safetensors:0.5,other.ckpt,\n"
        "a.mp4,,,,,,,turbo\n"
    )
    assert first.request.output == tmp_path / "out" / "one.mp4"
    assert (first.request.prompt, first.request.sampling.steps) == ("a cat", 8)
    assert first.request.sampling.seed == 7
    assert first.files.checkpoint == Path("checkpoints", "other.ckpt")
    (lora,) = first.files.loras
    assert (lora.path.name, lora.model_strength, lora.clip_strength) == (
        "detail.safetensors", 0.5, 0.5,
    )  # fmt: skip
    assert (second.request.prompt, second.request.sampling.steps) == ("a fox", 8)
    assert second.request.sampling.sampler == "lcm"
    assert second.files.dtype == "float16" and second.files.loras == ()
    assert second.request.metadata == {"workflow": "1"}


@pytest.mark.parametrize(
    ("preset", "connected", "interval"),
    [
        ("exact", None, 1),
        ("fast", None, 2),
        ("fast", SpeedOptions(deep_cache_interval=3), 3),
        ("fast", SpeedOptions(), 1),
    ],
)
def test_connected_speed_options_replace_those_of_the_preset(jobs, preset, connected, interval):
    (made,) = jobs("input\na.mp4\n", preset=preset, speed=connected)
    assert made.request.sampling.speed.deep_cache_interval == interval


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input,colour\na.mp4,red\n", "line 2: the column colour means nothing to this node"),
        ("input,seed\na.mp4,red\n", "line 2: seed is 'red'; give a whole number."),
        ("input,denoise\na.mp4,red\n", "line 2: denoise is 'red'; give a number."),
        ("input,denoise\na.mp4,1.5\n", "line 2: denoise is 1.5"),
        ("input,steps\na.mp4,0\n", "line 2: num_inference_steps is 0"),
        ("input,preset\na.mp4,swift\n", "line 2: preset is 'swift'"),
        ("input,lora\na.mp4,x:y\n", "line 2: lora is 'x:y'; give a file in models/loras"),
        ("input\nelsewhere/a.mp4\n", "is not in ComfyUI's input folder: move the clip there."),
    ],
)
def test_a_wrong_row_is_named(jobs, text, said):
    with pytest.raises(AnimateDiffV2VError) as refused:
        jobs(text)
    assert said in str(refused.value)


def test_style_images_are_part_of_what_is_done(jobs):
    def chain(weight=0.8, arrangement="average", weights=None, pixel=1.0):
        link = SimpleNamespace(
            weight=weight, weights=weights, arrangement=arrangement, span=(0, 1),
            embeddings=torch.full((1, 4), pixel),
        )  # fmt: skip
        return SimpleNamespace(links=(link,), patchers=(SimpleNamespace(origin=("file",)),))

    text = "input\na.mp4\n"
    styles = [chain(), chain(weight=0.5), chain(pixel=2.0), chain(arrangement="travel")]
    made = [jobs(text, style=style)[0] for style in (*styles, chain(weights={0: 1.0}))]
    assert len({job.guides for job in made}) == len(made)
    assert [job.is_whole for job in made] == [False, False, False, True, True]
    assert jobs(text)[0].guides == "" and jobs(text, style=chain())[0].guides == made[0].guides
