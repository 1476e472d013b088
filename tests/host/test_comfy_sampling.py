"""ControlNets and masks give the same results as ComfyUI's own sampling with tiny weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline.files import load_checkpoint
from animatediff_v2v.pipeline.models import Placement, build_motion_unet
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.unet import Parameterization
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    Control,
    Guidance,
    Guides,
    SamplingSettings,
    SourceBlend,
    Span,
    sample_latents,
)
from safetensors.torch import load_file, save_file

from .conftest import PATHS

SCRIPT = Path(__file__).with_name("reference_sampling.py")
FRAMES, HEIGHT, WIDTH, TEXT = 4, 8, 12, 64
LIMIT = 1e-4
# Steps from a noise level of 4,519 leave few digits to the differences of an ancestral step.
LIMITS = {"v_zsnr_ancestral": 5e-4}
PREDICTIONS = {"eps": "epsilon", "v_prediction": "v_prediction", "x0": "sample"}


def control(strength=1.0, start=0.0, end=1.0):
    return {"strength": strength, "start": start, "end": end}


def case(*controls, **values):
    defaults = {"seed": 7, "steps": 4, "cfg": 5.0, "sampler": "euler", "scheduler": "normal"}
    more = {"denoise": 1.0, "controls": controls, "mask": "", "sampling": "eps", "zsnr": False}
    return defaults | more | values


CASES = {
    "plain": case(),
    "whole": case(control()),
    "strong": case(control(strength=1.7)),
    "weak": case(control(strength=0.3)),
    "first_part": case(control(end=0.4)),
    "last_part": case(control(start=0.4)),
    "middle_part": case(control(start=0.2, end=0.7), steps=6),
    "two": case(control(strength=0.6), control(strength=0.8, end=0.5)),
    "denoise": case(control(start=0.3), denoise=0.6),
    "without_negative": case(control(), cfg=1.0),
    "lcm_sampler": case(control(), sampler="lcm", scheduler="sgm_uniform", cfg=1.5),
    "dpmpp_2m": case(control(end=0.8), sampler="dpmpp_2m", scheduler="karras"),
    "masked": case(mask="mask"),
    "masked_denoise": case(control(), mask="masks", denoise=0.7),
    "v": case(sampling="v_prediction"),
    "v_denoise": case(control(end=0.6), sampling="v_prediction", denoise=0.6),
    "v_zsnr": case(sampling="v_prediction", zsnr=True),
    "v_zsnr_karras": case(
        sampling="v_prediction", zsnr=True, sampler="dpmpp_2m", scheduler="karras", steps=6
    ),
    "v_zsnr_ancestral": case(sampling="v_prediction", zsnr=True, sampler="euler_ancestral"),
    "v_zsnr_sgm": case(sampling="v_prediction", zsnr=True, scheduler="sgm_uniform", denoise=0.5),
    "x0": case(sampling="x0"),
    "zsnr": case(zsnr=True, scheduler="simple"),
    "masked_ancestral": case(mask="masks", sampler="euler_ancestral"),
}


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_weights):
    """The files that both sides read; ComfyUI knows whole multiples of channels alone."""
    folder = tmp_path_factory.mktemp("sampling")
    random_weights.write_weights(folder)
    inputs = {
        "latents": draw(FRAMES, 4, HEIGHT, WIDTH, seed=1),
        "positive": draw(1, 77, TEXT, seed=2),
        "negative": draw(1, 77, TEXT, seed=3),
        "mask": draw(1, HEIGHT * 8, WIDTH * 8, seed=5).sigmoid().round(),
        "masks": draw(FRAMES, HEIGHT * 8, WIDTH * 8, seed=6).sigmoid(),
        "frames": draw(FRAMES, HEIGHT * 8 + 4, WIDTH * 8, 3, seed=4).sigmoid(),
    }
    save_file(inputs, folder / "inputs.safetensors")
    return folder


@pytest.fixture(scope="module", params=PATHS or [None], ids=lambda path: Path(path or "none").name)
def expected(request, folder, tmp_path_factory):
    """Return the result of ComfyUI's sampling for each case."""
    if request.param is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    cases = tmp_path_factory.mktemp("cases") / "cases.json"
    cases.write_text(json.dumps(CASES))
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, str(SCRIPT), str(cases), str(folder)]
    done = subprocess.run(command, cwd=request.param, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: load_file(folder / f"{name}.safetensors")["samples"] for name in CASES}


def ours(case, folder):
    inputs = load_file(folder / "inputs.safetensors")
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    weights = load_checkpoint(folder / "checkpoint.safetensors")
    network = load_control_network(folder / "controlnet.safetensors", **place)
    unet = build_motion_unet(
        weights.unet_config,
        weights.unet,
        motion_module=None,
        parameterization=Parameterization(PREDICTIONS[case["sampling"]], case["zsnr"]),
        placement=Placement(**place),
    )
    return sample_latents(
        unet,
        inputs["latents"],
        Conditioning.of(inputs["positive"], inputs["negative"]),
        SamplingSettings(
            seed=case["seed"],
            steps=case["steps"],
            guidance=Guidance(scale=case["cfg"]),
            sampler=case["sampler"],
            scheduler=case["scheduler"],
            denoise=case["denoise"],
        ),
        guides=Guides(
            controls=[
                Control(
                    network=network,
                    frames=inputs["frames"],
                    strength=each["strength"],
                    span=Span(each["start"], each["end"]),
                )
                for each in case["controls"]
            ],
            source_blend=SourceBlend(mask=inputs.get(case["mask"])),
        ),
    )


@pytest.mark.parametrize("name", CASES)
def test_equals_comfyui(name, expected, folder):
    result = ours(CASES[name], folder)
    error = (result - expected[name]).norm() / expected[name].norm()
    print(f"{name}: relative error {error:.1e}")
    assert error < LIMITS.get(name, LIMIT)
    if CASES[name]["controls"]:
        plain = ours(CASES[name] | {"controls": ()}, folder)
        assert (result - plain).norm() / plain.norm() > 0.01, "the ControlNet does nothing"
