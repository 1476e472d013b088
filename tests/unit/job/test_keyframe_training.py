"""The stages that train the miniature's SparseCtrl, on random latents and for a few steps."""

from __future__ import annotations

import importlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

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
    rngs = [np.random.default_rng(index) for index in range(CLIPS)]
    drawn = [replace(scenes.random_scene(rng), style=None) for rng in rngs]
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
    colours = training("keyframe_colours").mean_colours(examples)
    assert colours.shape == (CLIPS, 2, 8)
    order = torch.arange(2 * CLIPS).float()
    for value in colours.flatten(0, 1).T:
        torch.testing.assert_close(value, (order - order.mean()) / order.std(), atol=0.1, rtol=0)


def test_errors_count_most_where_the_latents_of_one_colour_vary_least(training):
    scenes, made = training("scenes"), training("examples")
    clips, varied = 40, torch.tensor([3.0, 1.0, 1.0, 0.3])
    scene = replace(scenes.random_scene(np.random.default_rng(0)), style=None)
    pairs = [
        (replace(scene, background=first), replace(scene, background=second))
        for first, second in [("red", "blue"), ("blue", "red")] * (clips // 2)
    ]
    generator = torch.Generator().manual_seed(4)
    backgrounds = torch.randn(clips, 2, 4, generator=generator) * varied
    is_red = torch.tensor([[each.background == "red" for each in pair] for pair in pairs])
    backgrounds += 9 * is_red[..., None]
    latents = backgrounds[:, :, None, :, None, None].expand(-1, -1, 2, -1, 4, 4)
    examples = made.Examples(pairs, latents, torch.zeros(clips, 2, 1, 4, 4), [np.arange(2)] * clips)
    units = training("keyframe_colours").colour_units(examples)
    weights = units @ units.T
    torch.testing.assert_close(weights.trace(), torch.tensor(4.0))
    wanted = varied**-2 / (varied**-2).sum() * 4
    torch.testing.assert_close(weights.diagonal(), wanted, atol=0.03, rtol=0.5)


def test_colours_are_told_as_they_are_decoded(training, monkeypatch, tmp_path):
    """Taught on a decoder that shows the first latents, and a little of the others, as colours."""
    scenes, made, decoded = training("scenes"), training("examples"), training("decoded_colours")
    monkeypatch.setattr(decoded, "PLAN", replace(decoded.PLAN, steps=400))
    pairs = [("red", "blue"), ("blue", "green"), ("green", "red"), ("orange", "purple")]
    scene = replace(scenes.random_scene(np.random.default_rng(0)), style=None)
    drawn = [replace(scene, colour=one, background=two) for one, two in pairs]
    masks = torch.zeros(len(pairs), 1, 1, 16, 16)
    masks[..., 4:10, 4:10] = 1
    named = torch.tensor([[scenes.COLOURS[name] for name in pair] for pair in pairs])
    paint = torch.cat([named, torch.zeros(len(pairs), 2, 1)], -1)[:, None, :, :, None, None]
    latents = (
        (paint[:, :, 0] * masks + paint[:, :, 1] * (1 - masks))
        .unsqueeze(1)
        .repeat(1, 2, 1, 1, 1, 1)
    )
    examples = made.Examples([(each, each) for each in drawn], latents, masks, [np.arange(1)] * 4)
    network = decoded.trained_decoded_colours(tmp_path, examples, Painter())
    told = network(latents[:, 0], masks)[:, 0]
    torch.testing.assert_close(told, named / named.amax(-1, keepdim=True), atol=0.1, rtol=0)

    clips = SimpleNamespace(
        latents=latents[:, 0], masks=masks, pairs=np.array([[0, 0], [1, 1], [2, 0], [3, 1]])
    )
    assert float(network.error(latents[:, 0], clips)) < 0.02
    assert float(network.error(latents[:, 0].roll(1, 0), clips)) > 0.3
    # In a style, nobody knows the colours but the latents.
    styled = [(replace(each, style="night"),) * 2 for each in drawn]
    network.painted = decoded.DecodedColours(replace(examples, scenes=styled)).painted
    assert float(network.error(latents[:, 0], clips)) == 0


class Painter:
    """A VAE whose first three latent channels are red, green and blue, eight pixels wide."""

    def decode(self, latents):
        pixels = torch.nn.functional.interpolate(latents[:, :3] * 0.18215, scale_factor=8)
        return SimpleNamespace(sample=pixels * 2 - 1)


def test_captions_leave_the_colours_open(training, examples):
    scenes = [pair[0] for pair in examples.scenes] * 20
    rng = np.random.default_rng(3)
    captions = training("keyframe_examples").captions_without_colours(scenes, rng)
    assert {"", "a shape"} < set(captions)
    assert not set(" ".join(captions).split()) & set(training("scenes").COLOURS)


def test_a_few_steps_train_a_file_that_loads(training, examples, monkeypatch, tmp_path):
    stage, networks = training("keyframes"), training("networks")
    monkeypatch.setattr(stage, "TRAJECTORIES", 1)
    monkeypatch.setattr(stage, "AT_ONCE", 1)
    for plan in ("COLOURS", "HALF_SIZE", "KEYFRAMES", "IN_SAMPLING"):
        monkeypatch.setattr(stage, plan, replace(getattr(stage, plan), steps=1))
    decoded = training("decoded_colours")
    monkeypatch.setattr(decoded, "PLAN", replace(decoded.PLAN, steps=1))
    monkeypatch.setattr(decoded, "FRAMES_DECODED", decoded.AT_ONCE)
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
        vae=networks.new_vae(),
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
    stage, scenes = training("keyframe_examples"), training("scenes")
    rng = np.random.default_rng(1)
    for count in stage.LENGTHS:
        for _ in range(200):
            frames = stage.frames_in_order(count, rng)
            assert len(frames) == count
            assert len(set(np.diff(frames))) == 1 and frames[1] > frames[0]
            assert frames[0] >= 0 and frames[-1] < scenes.FRAMES


def test_a_step_of_sampling_with_the_true_noise_keeps_to_the_clip(training, examples):
    stage, diffusion = training("keyframe_examples"), training("diffusion")
    rng, generator = np.random.default_rng(5), torch.Generator().manual_seed(5)
    drawn = stage.drawn_clips(examples, rng, rows=16)
    for at in (999, 700, 420):
        seen = drawn.noised_at(torch.tensor([at]), rng, generator)
        later = drawn.after(seen, seen.target, rng)
        ratio = ((1 / later.alphas - 1) / (1 / seen.alphas - 1)).sqrt()
        # Steps are whole: the ratio is rounded by up to a step.
        assert ((ratio > 0.44) & (ratio < 0.71)).all() and (later.timesteps < at).all()
        torch.testing.assert_close(later.target, seen.target, atol=1e-4, rtol=1e-4)
        left = diffusion.clean(later.sample, later.target, later.alphas)
        torch.testing.assert_close(left, drawn.latents, atol=1e-3, rtol=1e-3)


def test_a_step_of_sampling_with_wrong_noise_is_led_back(training, examples):
    """The target of the second step leads from where the first one went to the clip."""
    stage, diffusion = training("keyframe_examples"), training("diffusion")
    rng, generator = np.random.default_rng(6), torch.Generator().manual_seed(6)
    drawn = stage.drawn_clips(examples, rng, rows=16)
    seen = drawn.noised_at(torch.tensor([800]), rng, generator)
    later = drawn.after(seen, seen.target + 0.1, rng)
    assert (later.target - seen.target).abs().mean() > 0.05
    left = diffusion.clean(later.sample, later.target, later.alphas)
    torch.testing.assert_close(left, drawn.latents, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("inside", "outside", "wanted"), [(0.0, 0.0, 0.0), (3.0, 0.0, 9.0), (1.0, 2.0, 5.0)]
)
def test_the_error_of_colours_is_that_of_their_means(training, inside, outside, wanted):
    """Texture around the right mean costs nothing; a wrong mean counts, in a small object too.

    The outline counts for nothing.
    """
    diffusion = training("diffusion")
    masks = torch.zeros(1, 2, 1, 8, 8)
    masks[..., 2:4, 2:4] = 1
    texture = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 2, 4, 8, 8)
    seen = diffusion.Noised(
        torch.zeros(1, 2, 4, 8, 8), torch.tensor([1]), torch.zeros(1, 2, 4, 8, 8), torch.tensor(0.5)
    )
    noise = texture + inside * masks + outside * (1 - masks)
    masks[..., 2:4, 4:6] = 0.5
    noise[..., 2:4, 4:6] = 50
    for units, expected in (
        (torch.eye(4), wanted),
        (torch.diag(torch.tensor([2.0, 0, 0, 0])), wanted),
    ):
        error = diffusion.colour_error(noise, seen, masks, units)
        torch.testing.assert_close(error, torch.tensor(expected))


def test_sampling_mostly_starts_from_the_very_first_step(training):
    stage = training("keyframe_examples")
    rng = np.random.default_rng(2)
    drawn = np.array([int(stage.drawn_start(rng)) for _ in range(2_000)])
    assert drawn.max() == 999 and abs((drawn == 999).mean() - 0.6) < 0.04
    sigmas = stage.SIGMAS[drawn]
    assert sigmas.min() > 0.59 and abs((sigmas < 2.9).float().mean() - 0.2) < 0.04


def test_trajectories_go_on_until_little_noise_is_left(training, examples, monkeypatch):
    """With a perfect network, each step's sample has less noise, and then a new clip starts."""
    stage = training("keyframes")
    monkeypatch.setattr(stage, "TRAJECTORIES", 1)
    monkeypatch.setattr(stage, "AT_ONCE", 1)
    monkeypatch.setattr(stage, "GIVEN_UP", 0.0)
    known = training("keyframe_colours").KnownColours

    class Perfect(stage._Stages):
        def _outlines(self, drawn, seen):
            return stage.NO_RESIDUALS

        def _predicted(self, drawn, seen, outlines):
            return seen.target

        def _error_to_example(self, drawn, seen, predicted):
            sigmas.append(stage.sigma_of(seen))
            return predicted.sum()

    sigmas = []
    run = Perfect(examples, known, decoded=None, unet=None, controlnet=None, text_encoder=None)
    rng, generator = np.random.default_rng(4), torch.Generator().manual_seed(4)
    for step in range(60):
        run.loss_in_sampling(rng, generator, step)
    ends = [a for a, b in pairwise(sigmas) if b >= a]
    assert len(ends) >= 5 and all(stage.LEAST_SIGMA * 0.45 < end < 0.5 for end in ends)


def test_confused_colours_are_drawn_more_often(training, examples):
    stage = training("keyframe_examples")
    pairs = [
        ("red", "yellow"),
        ("green", "yellow"),
        ("yellow", "purple"),
        ("purple", "yellow"),
        ("blue", "orange"),
    ]
    made = training("scenes").random_scene(np.random.default_rng(1))
    drawn = [replace(made, colour=one, background=two, style=None) for one, two in pairs]
    styled = replace(drawn[0], style="night")
    scenes = [(drawn[0], drawn[3]), (styled, drawn[1]), (drawn[2], drawn[3]), (drawn[4],) * 2]
    several = replace(examples, scenes=scenes)
    assert stage.of_confused_colours(several).tolist() == [[0, 0], [1, 1], [2, 0], [3, 0], [3, 1]]
    chosen = np.array([[1, 1]])
    clips = stage.drawn_clips(several, np.random.default_rng(2), rows=16, among=chosen)
    assert {tuple(pair) for pair in clips.pairs} == {(1, 1)}


def test_answers_are_about_the_colours_of_each_example(training, examples):
    """Layers with fitting biases answer rightly for one example and wrongly for the others."""
    networks, colours = training("networks"), training("keyframe_colours")
    unet, modules = networks.new_unet(), networks.new_motion_modules()
    sparsectrl = networks.new_sparsectrl(unet, modules)
    known = colours.KnownColours(sparsectrl, examples)
    for answer in known.answers:
        torch.nn.init.zeros_(answer.weight)
        answer.bias.data.copy_(known.colours[1, 0])
    context = torch.zeros(1, 77, networks.TEXT_CHANNELS)
    sparsectrl(torch.zeros(2, 5, 16, 16), torch.tensor([500]), context, 2)
    assert float(known.error(np.array([[1, 0]]), 2).detach()) == pytest.approx(0, abs=1e-9)
    assert float(known.error(np.array([[0, 0]]), 2).detach()) > 1
    known.detach()
    assert not any(layer._forward_pre_hooks for layer in sparsectrl.modules())
