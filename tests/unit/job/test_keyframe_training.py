"""The stages that train the miniature's SparseCtrl, on random latents and for a few steps."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline.models import load_models, load_sparsectrl_network

DEMO = Path(__file__).parents[3] / "demo"
MODELS = DEMO / "models"
ON_CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
CLIPS = 2


@pytest.fixture
def training(monkeypatch):
    """Return a function that imports a module of the training."""
    monkeypatch.syspath_prepend(str(DEMO))
    return lambda name: importlib.import_module(f"training.{name}")


@pytest.fixture
def examples(training):
    """Return random latents; in each clip, those of the object are 2 higher."""
    scenes, made = training("scenes"), training("examples")
    drawn = [scenes.random_scene(np.random.default_rng(index)) for index in range(CLIPS)]
    pairs = [(scene, scene.recoloured(np.random.default_rng(9))) for scene in drawn]
    masks = torch.zeros(CLIPS, scenes.FRAMES, 1, 16, 16)
    masks[..., 4:10, 4:10] = 1
    latents = torch.randn(
        CLIPS, 2, scenes.FRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(1)
    )
    latents += torch.arange(2 * CLIPS).view(CLIPS, 2, 1, 1, 1, 1) + 2 * masks.unsqueeze(1)
    times = [scenes.frame_times()] * CLIPS
    return made.Examples(pairs, latents.half(), masks.half(), times)


def test_the_colours_to_know_are_those_of_object_and_background(training, examples):
    colours = training("keyframes").mean_colours(examples)
    assert colours.shape == (CLIPS, 2, 8)
    order = torch.arange(2 * CLIPS).float()
    for value in colours.flatten(0, 1).T:
        torch.testing.assert_close(value, (order - order.mean()) / order.std(), atol=0.1, rtol=0)


def test_captions_leave_the_colours_open(training, examples):
    rng = np.random.default_rng(3)
    batch = training("base_model").draw_batch(examples, rng, 40)
    captions = training("keyframes").captions_without_colours(examples, batch, rng)
    assert {"", "a shape"} < set(captions)
    assert not set(" ".join(captions).split()) & set(training("scenes").COLOURS)


def test_a_few_steps_train_a_file_that_loads(training, examples, monkeypatch, tmp_path):
    stage, networks = training("keyframes"), training("networks")
    monkeypatch.setattr(stage, "COLOURS", replace(stage.COLOURS, steps=1))
    monkeypatch.setattr(stage, "HALF_SIZE", replace(stage.HALF_SIZE, steps=1))
    monkeypatch.setattr(stage, "KEYFRAMES", replace(stage.KEYFRAMES, steps=1))
    monkeypatch.setattr(stage, "WITH_OUTLINES", 1.0)
    miniature = load_models(
        MODELS / "checkpoints" / "miniature.safetensors",
        motion_module=MODELS / "animatediff_models" / "miniature_motion.safetensors",
        **ON_CPU,
    )
    unet, modules = networks.new_unet(), networks.new_motion_modules()
    unet.load_state_dict(miniature.unet.unet.state_dict())
    modules.load_state_dict(miniature.unet.motion.state_dict())
    trained = stage.trained_sparsectrl(
        tmp_path,
        examples,
        unet,
        text_encoder=networks.new_text_encoder(),
        modules=modules,
        controlnet=networks.new_controlnet(unet),
    )
    start = networks.new_sparsectrl(unet, modules).state_dict()
    changed = {
        name for name, tensor in trained.state_dict().items() if not tensor.equal(start[name])
    }
    assert "down_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight" in changed
    assert "network.controlnet_mid_block.weight" in changed
    path = tmp_path / "sparsectrl.safetensors"
    networks.write_sparsectrl(path, trained)
    loaded = load_sparsectrl_network(path, **ON_CPU)
    loaded.check_fits(miniature.unet)
    assert loaded.takes_latents and loaded.has_mid_block and loaded.max_frames == 32
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, trained.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_the_last_layers_learn_faster(training):
    stage, loop = training("keyframes"), training("loop")
    named = {
        name: torch.nn.Parameter(torch.zeros(1))
        for name in ("network.conv_in.weight", "network.controlnet_mid_block.weight")
    }
    groups = loop._groups(named, stage.KEYFRAMES)
    assert [(group["factor"], len(group["params"])) for group in groups] == [(1.0, 1), (5.0, 1)]


def test_frames_in_order_lie_in_the_video(training):
    stage, scenes = training("keyframes"), training("scenes")
    rng = np.random.default_rng(1)
    for count in stage.LENGTHS:
        for _ in range(200):
            frames = stage.frames_in_order(count, rng)
            assert len(frames) == count
            assert len(set(np.diff(frames))) == 1 and frames[1] > frames[0]
            assert frames[0] >= 0 and frames[-1] < scenes.FRAMES
