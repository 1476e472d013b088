"""ComfyUI's samplers and schedules over this pack's model equal its own of the same names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from animatediff_v2v.pipeline.sampling import Sampler, Scheduler
from safetensors.torch import load_file

from .comfy_server import PACK
from .conftest import PATHS
from .test_behaviour import failure, graph, sampler

SCRIPT = Path(__file__).with_name("custom_sampling.py")
LIMIT = 1e-4
# ComfyUI's UniPC takes the logarithm of 1 - exp(-1e-6) in float32, which leaves few digits.
LIMITS = {"uni_pc": 2e-4, "uni_pc_bh2": 2e-4}
SENTENCES = {
    "AsksForMore": "asks the model for diffusion_model, which models of this pack do not have.",
    "UnevenLevels": "gives the frames different noise levels,",
    "OtherShape": "returned latents of the shape [1, 4, 5, 6] for [3, 4, 5, 6].",
    "str": "sampler_object is a str, not a SAMPLER: connect a node such as KSamplerSelect.",
}


@pytest.fixture(scope="module", params=PATHS or [None], ids=lambda path: Path(path or "none").name)
def found(request):
    if request.param is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "-W", "ignore", str(SCRIPT), str(PACK)]
    done = subprocess.run(command, cwd=request.param, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_every_sampler_equals_comfyui_s(found):
    errors = found["samplers"]
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert set(get_args(Sampler)) - {"tcd"} >= set(errors)
    high = {name: e for name, e in errors.items() if not e < LIMITS.get(name, LIMIT)}
    assert high == {}
    assert found["other_calls"] == []


def test_every_scheduler_equals_comfyui_s(found):
    errors = found["schedulers"]
    assert {name.split()[0] for name in errors} <= set(get_args(Scheduler))
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


def test_a_schedule_of_another_node_is_sampled_along(found):
    assert found["align_your_steps"] < LIMIT


def test_what_the_model_cannot_give_is_refused_with_a_sentence(found):
    assert found["refusals"].keys() == SENTENCES.keys()
    for name, sentence in SENTENCES.items():
        assert sentence in found["refusals"][name]


LEVELS = {"model_type": "SD1", "steps": 10, "denoise": 0.4}
SOURCES = {
    "pick": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
    "levels": {"class_type": "AlignYourStepsScheduler", "inputs": LEVELS},
}


def latents_of(server, **sampling):
    save = {"samples": ["sample", 1], "filename_prefix": "custom"}
    more = {"save": {"class_type": "SaveLatent", "inputs": save}, **SOURCES}
    folder = server.folder / "output"
    before = set(folder.glob("custom*.latent"))
    server.run(graph(sample=sampler(**sampling), **more))
    (path,) = set(folder.glob("custom*.latent")) - before
    return load_file(path)["latent_tensor"]


def test_the_node_takes_a_sampler_and_levels(server):
    levels = ["levels", 0]
    given = latents_of(server, sampler_object=["pick", 0], sigmas=levels, steps=7, denoise=0.0)
    named = latents_of(server, sampler="dpmpp_2m", sigmas=levels, steps=7, denoise=1.0)
    other = latents_of(server, sampler="euler", sigmas=levels)
    error = float((given - named).norm() / named.norm())
    print(f"relative error {error:.1e}")
    assert error < LIMIT < float((other - named).norm() / named.norm())


def test_flipped_levels_are_refused_with_a_sentence(server):
    flip = {"class_type": "FlipSigmas", "inputs": {"sigmas": ["levels", 0]}}
    flipped = graph(sample=sampler(sigmas=["flip", 0]), flip=flip, **SOURCES)
    assert "must start above 0 and never rise. To start from noise" in failure(server, flipped)
