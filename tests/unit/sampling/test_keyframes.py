"""Keyframes: SparseCtrl's maths against diffusers', windows, spans, masks, refusals."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files.unet_layout import infer_unet_config
from animatediff_v2v.pipeline.models.loading import Placement, build_motion_unet
from animatediff_v2v.pipeline.models.sparsectrl import load_sparsectrl_network
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Guides,
    Keyframes,
    Span,
)
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.keyframes import keyframes_of_window
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.tiles import TiledModel
from safetensors.torch import save_file

from ..files import miniatures as mini
from .sampled import sample

SCHEDULE = NoiseSchedule("sqrt_linear")
CPU = torch.device("cpu")
FRAMES, HEIGHT, WIDTH = 6, 8, 4
SCALE = 0.18215


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count, seed=0, height=8 * HEIGHT, width=8 * WIDTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, height, width, 3, generator=generator)


class Codec:
    """The mean of 8x8 pixels as latents."""

    def __init__(self):
        self.encoded = 0

    def encode(self, frames):
        self.encoded += len(frames)
        means = torch.nn.functional.avg_pool2d(frames.movedim(-1, 1).float(), 8)
        return torch.cat([means, means.mean(dim=1, keepdim=True)], dim=1)


CODEC = Codec()


def saved(folder, tensors, name):
    path = folder / name
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """Return a function for a UNet with a motion module that has a middle block, and frames."""
    folder, plain = tmp_path_factory.mktemp("motion"), mini.unet_module()

    def made(*, mid=False, frames=32, motion=True):
        path = None
        if motion:
            weights = mini.state(mini.motion_module(mid=mid, frames=frames))
            path = saved(folder, weights, f"{mid}{frames}.safetensors")
        placement = Placement(CPU, torch.float32)
        tensors = mini.state(plain)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        config = infer_unet_config(shapes, layout="diffusers")
        return build_motion_unet(config, tensors, motion_module=path, placement=placement)

    return made


@pytest.fixture(scope="module")
def v3(unet):
    return unet()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The networks for pictures and for scribbles, in both layouts."""
    folder = tmp_path_factory.mktemp("sparsectrl")

    def load(layout, takes_latents):
        name = f"{'rgb' if takes_latents else 'scribble'} {layout}.safetensors"
        path = saved(folder, mini.sparsectrl(layout, takes_latents=takes_latents), name)
        return load_sparsectrl_network(path, device=CPU, dtype=torch.float32)

    layouts = ("original", "original with tables", "diffusers")
    return {(each, takes): load(each, takes) for each in layouts for takes in (True, False)}


@pytest.fixture(scope="module")
def rgb(networks):
    return networks["original", True]


@pytest.fixture(scope="module")
def scribble(networks):
    return networks["original", False]


def guided(unet, controls, *, scale=1.0, length=FRAMES, **options):
    prompts = Conditioning.of(draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2))
    defaults = {
        "schedule": SCHEDULE,
        "conditioning": prompts,
        "guidance": Guidance(scale=scale),
        "context": ContextOptions(length=length, overlap=0),
        "on_passes": lambda _share: None,
    }
    return GuidedModel(unet, controls=controls, **defaults | options)


def keyed(network, frames=(0,), **options):
    keyframes = Keyframes(network=network, pictures=pictures(len(frames)), frames=frames, **options)
    return keyframes.encoded(CODEC, 8 * WIDTH, 8 * HEIGHT)


class NormOfEachFrame(torch.nn.Module):
    """The original's norm in place of diffusers', which normalises over all frames together."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, videos):
        frames = [self.norm(videos[:, :, index]) for index in range(videos.shape[2])]
        return torch.stack(frames, dim=2)


def by_diffusers(timestep, prompt, keyframes, *, takes_latents):
    """Return the residuals of diffusers' own SparseControlNetModel for one video, in float64."""
    sparse = copy.deepcopy(mini.sparsectrl_module(takes_latents=takes_latents)).eval().double()
    for block in sparse.down_blocks:
        for module in block.motion_modules:
            module.norm = NormOfEachFrame(module.norm)
    given = keyframes.latents * SCALE if takes_latents else keyframes.pictures.movedim(-1, 1)
    condition = torch.zeros(FRAMES, *given.shape[1:], dtype=torch.float64)
    condition[list(keyframes.frames)] = given.double()
    mask = torch.zeros(1, 1, FRAMES, *given.shape[2:], dtype=torch.float64)
    mask[:, :, list(keyframes.frames)] = 1
    skips, middle = sparse(
        torch.randn(1, 4, FRAMES, HEIGHT, WIDTH, dtype=torch.float64),
        timestep,
        prompt.expand(FRAMES, -1, -1),
        condition.movedim(0, 1).unsqueeze(0),
        conditioning_mask=mask,
        return_dict=False,
    )
    return [*skips, middle]


@pytest.mark.parametrize("takes_latents", [True, False])
@pytest.mark.parametrize("layout", ["original", "original with tables", "diffusers"])
@pytest.mark.parametrize("frames", [(0,), (1, 4)])
@torch.inference_mode()
def test_equals_diffusers(networks, takes_latents, layout, frames):
    """In float64: rows without a keyframe are constant at first, whose norms amplify rounding."""
    keyframes = keyed(copy.deepcopy(networks[layout, takes_latents]).double(), frames)
    timestep, prompt = torch.tensor([400]), draw(1, 7, mini.CROSS, seed=1).double()
    rows, sample = prompt.expand(FRAMES, -1, -1), draw(FRAMES, 4, HEIGHT, WIDTH).double()
    ours = keyframes.residuals(sample, timestep, rows, [list(range(FRAMES))])
    theirs = by_diffusers(timestep, prompt, keyframes, takes_latents=takes_latents)
    for one, other in zip([*ours.skips, ours.middle], theirs, strict=True):
        assert (one - other).norm() <= 1e-6 * other.norm()
    assert all(each.norm() > 0 for each in theirs)


# The frames of a window, those of the keyframes, and which one stands in which row: what
# Advanced-ControlNet's SparseMethod.get_indexes returns for them.
WINDOWS = [
    ([0, 1, 2, 3], (0,), {0: 0}),
    ([4, 5, 6, 7], (0, 6), {2: 1}),
    ([4, 5, 6, 7], (7, 4), {3: 0, 0: 1}),
    ([8, 9, 10, 11], (0,), {0: 0}),
    ([8, 9, 10, 11], (15,), {3: 0}),
    ([8, 9, 10, 11], (0, 6), {0: 1}),
    ([8, 9, 10, 11], (0, 13), {3: 1}),
    ([8, 9, 10, 11], (6, 13), {0: 0, 3: 1}),
    ([8, 9, 10, 11], (13, 6), {0: 1, 3: 0}),
    ([10, 11, 0, 1], (5,), {3: 0}),
    ([10, 11, 0, 4], (7,), {1: 0}),
    ([0, 2, 4, 6], (3,), {1: 0}),
    ([6, 7, 0, 1], (0, 7), {2: 0, 1: 1}),
]


@pytest.mark.parametrize(("window", "frames", "expected"), WINDOWS)
def test_a_window_has_its_own_keyframes_or_the_nearest(window, frames, expected):
    assert keyframes_of_window(window, frames) == expected


@torch.inference_mode()
def test_each_window_is_guided_alone(v3, rgb):
    """A frame's result is that of its window run by itself, with the keyframes that it has."""
    noisy, sigma = draw(12, 4, HEIGHT, WIDTH), SCHEDULE.sigmas[600]
    keyframes = keyed(rgb, (1, 4))
    context = ContextOptions(length=4, overlap=0, schedule="batched")
    together = guided(v3, [keyframes], scale=2.0, context=context)(noisy, sigma, 0)
    first, second = ((keyframes.pictures[i : i + 1], keyframes.latents[i : i + 1]) for i in (0, 1))
    for start, given, row in ((0, first, 1), (4, second, 0), (8, second, 0)):
        alone = Keyframes(network=rgb, pictures=given[0], latents=given[1], frames=(row,))
        result = guided(v3, [alone], scale=2.0, length=4)(noisy[start : start + 4], sigma, 0)
        assert torch.allclose(together[start : start + 4], result, atol=1e-4)


@torch.inference_mode()
def test_it_combines_with_a_controlnet_and_other_keyframes(v3, rgb, scribble, tmp_path):
    from animatediff_v2v.pipeline.models.controlnet import load_control_network

    path = saved(tmp_path, mini.state(mini.control_module()), "control.safetensors")
    net = load_control_network(path, device=CPU, dtype=torch.float32)
    control = Control(network=net, frames=pictures(FRAMES))
    noisy, sigma = draw(FRAMES, 4, HEIGHT, WIDTH), SCHEDULE.sigmas[500]
    guides = [control, keyed(rgb, (0, 5)), keyed(scribble, (2,))]
    rows = draw(1, 7, mini.CROSS, seed=1).expand(FRAMES, -1, -1)
    parts = [
        each.residuals(noisy, torch.tensor([500]), rows, [list(range(FRAMES))]) for each in guides
    ]
    summed = parts[0].plus(parts[1]).plus(parts[2])
    for index in range(len(summed.skips)):
        assert torch.equal(summed.skips[index], sum(each.skips[index] for each in parts))
    results = [guided(v3, guides[:count])(noisy, sigma, 0) for count in range(4)]
    for one, other in pairwise(results):
        assert not torch.allclose(one, other, atol=1e-3)


@torch.inference_mode()
def test_strength_mask_and_span(v3, rgb):
    noisy, sigma = draw(FRAMES, 4, HEIGHT, WIDTH), SCHEDULE.sigmas[500]

    def run(**options):
        return guided(v3, [keyed(rgb, (0,), **options)])(noisy, sigma, 0)

    plain, whole = guided(v3, [])(noisy, sigma, 0), run()
    assert not torch.allclose(plain, whole, atol=1e-3)
    assert torch.equal(run(strength=0), plain)
    assert torch.equal(run(mask=torch.zeros(1, 4, 4)), plain)
    assert torch.allclose(run(mask=torch.ones(FRAMES, 8, 4)), whole, atol=1e-4)
    assert torch.equal(run(span=Span(0.6, 1.0)), plain)
    assert torch.equal(run(span=Span(0.2, 0.6)), whole)
    both = guided(v3, [keyed(rgb, strength=0.5), keyed(rgb, strength=0.5)])(noisy, sigma, 0)
    assert torch.allclose(both, whole, atol=1e-4)


@torch.inference_mode()
def test_a_tile_sees_its_part(v3, rgb, scribble):
    """A single tile is the whole; the halves of a scribble's keyframe reach their own tile."""
    noisy, sigma = draw(FRAMES, 4, HEIGHT, WIDTH), SCHEDULE.sigmas[500]
    for network in (rgb, scribble):
        keyframes = keyed(network)
        whole = guided(v3, [keyframes])(noisy, sigma, 0)
        options = guided(v3, [])
        tiled = TiledModel(
            v3,
            tile=(HEIGHT, WIDTH),
            on_passes=lambda _share: None,
            controls=[keyframes],
            schedule=SCHEDULE,
            conditioning=options._conditioning,
            guidance=Guidance(scale=1.0),
            context=ContextOptions(length=FRAMES, overlap=0),
        )
        assert torch.allclose(tiled(noisy, sigma, 0), whole, atol=1e-5)
        top = keyframes.cut(lambda pictures: pictures[:, : pictures.shape[1] // 2])
        assert top.pictures.shape[1:3] == (4 * HEIGHT, 8 * WIDTH)
        if network is rgb:
            assert torch.equal(top.latents, keyframes.latents[:, :, : HEIGHT // 2])


def prompts():
    return Conditioning.of(draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2))


def test_the_last_frame_is_minus_one(v3, rgb):
    latents = draw(FRAMES, 4, HEIGHT, WIDTH)
    made = [
        sample(v3, latents, prompts(), controls=(keyed(rgb, frames),))
        for frames in ((0, -1), (0, FRAMES - 1), (0, 1))
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], made[2], atol=1e-3)


def test_pictures_are_encoded_once_and_only_where_that_is_needed(rgb, scribble):
    latents, codec = draw(FRAMES, 4, HEIGHT, WIDTH), Codec()
    large = pictures(2, height=16 * HEIGHT, width=16 * WIDTH)
    guides = Guides(
        controls=(
            Keyframes(network=rgb, pictures=large, frames=(0, -1)),
            Keyframes(network=scribble, pictures=pictures(1)),
        )
    )
    encoded = guides.encoded(codec, latents)
    assert codec.encoded == 2
    assert encoded.controls[0].latents.shape == (2, 4, HEIGHT, WIDTH)
    assert encoded.controls[0].frames == (0, FRAMES - 1)
    assert encoded.controls[1].latents is None
    # Colours are averaged, not picked.
    means = large.view(2, HEIGHT, 16, WIDTH, 16, 3).mean(dim=(2, 4)).movedim(-1, 1)
    assert (encoded.controls[0].latents[:, :3] - means).abs().max() < 0.05
    assert encoded.encoded(codec, latents).controls[0].latents is encoded.controls[0].latents
    assert codec.encoded == 2


@pytest.fixture(scope="module")
def with_middle(tmp_path_factory):
    """Return a function for the network for pictures with a motion module in its middle block."""
    weights = mini.sparsectrl(takes_latents=True)
    last = "down_blocks.1.motion_modules.0."
    middle = {
        f"mid_block.{name.removeprefix('down_blocks.1.')}": tensor
        for name, tensor in weights.items()
        if name.startswith(last)
    }
    folder = tmp_path_factory.mktemp("middle")

    def made(scale=1.0):
        scaled = {name: tensor * scale for name, tensor in middle.items()}
        path = saved(folder, weights | scaled, f"{scale}.safetensors")
        return load_sparsectrl_network(path, device=CPU, dtype=torch.float32)

    return made


@torch.inference_mode()
def test_a_middle_block_moves_too(with_middle, rgb):
    rows, sample = draw(1, 7, mini.CROSS, seed=1).expand(FRAMES, -1, -1), draw(FRAMES, 4, 8, 4)

    def made(network):
        window = [list(range(FRAMES))]
        return keyed(network).residuals(sample, torch.tensor([400]), rows, window)

    without, whole, off = made(rgb), made(with_middle()), made(with_middle(0.0))
    for one, other in zip([*without.skips, without.middle], [*off.skips, off.middle], strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(one, two) for one, two in zip(off.skips, whole.skips, strict=True))
    assert (whole.middle - off.middle).norm() > 0.01 * off.middle.norm()


def test_a_network_with_a_middle_block_is_for_motion_modules_that_have_one(unet, with_middle):
    keyframes = keyed(with_middle())
    for options in ({}, {"frames": 24}, {"motion": False}):
        with pytest.raises(AnimateDiffV2VError, match="a middle block, which the model lacks"):
            sample(
                unet(**options), draw(FRAMES, 4, HEIGHT, WIDTH), prompts(), controls=(keyframes,)
            )
    plain, made = (
        sample(unet(mid=True), draw(FRAMES, 4, HEIGHT, WIDTH), prompts(), controls=each)
        for each in ((), (keyframes,))
    )
    assert not torch.allclose(plain, made, atol=1e-3)


NOT_V3 = {
    "v1": {"frames": 24},
    "v2": {"mid": True},
    "no motion module": {"motion": False},
}


@pytest.mark.parametrize("family", NOT_V3)
def test_other_motion_modules_are_refused(unet, rgb, family):
    with pytest.raises(AnimateDiffV2VError) as caught:
        keyed(rgb).check_fits(unet(**NOT_V3[family]), draw(FRAMES, 4, HEIGHT, WIDTH))
    assert family in str(caught.value)
    assert str(caught.value).endswith("use v3_sd15_mm.")


REFUSED = [
    ({"strength": math.inf}, "keyframe strength is inf; it must be from 0 to 10."),
    ({"pictures": torch.zeros(8, 8, 3)}, "have the shape [8, 8, 3]"),
    ({"mask": torch.ones(4, 4)}, "The mask of"),
    ({"frames": (0, 1)}, "1 keyframes are given for"),
    (
        {"frames": (FRAMES,)},
        "A keyframe is at frame 6, and the video has 6 frames: frames go from 0 to 5, and -1 is "
        "the last one.",
    ),
    ({"frames": (-FRAMES - 1,)}, "A keyframe is at frame -7"),
    (
        {"frames": (5, -1), "pictures": pictures(2), "latents": torch.zeros(2, 4, HEIGHT, WIDTH)},
        "Two keyframes are at frame 5: give each one a frame of its own.",
    ),
    ({"mask": torch.ones(2, 64, 32)}, "has 2 masks, and the video has 6 frames"),
    ({"latents": None}, "call `encoded` with the VAE first"),
    ({"pictures": pictures(1, height=64, width=96)}, "are 96x64 pixels, another shape than"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(v3, rgb, values, sentence):
    given = {
        "network": rgb,
        "pictures": pictures(1),
        "frames": (0,),
        "latents": torch.zeros(1, 4, HEIGHT, WIDTH),
    }
    with pytest.raises(AnimateDiffV2VError) as caught:
        Keyframes(**given | values).check_fits(v3, draw(FRAMES, 4, HEIGHT, WIDTH))
    assert sentence in str(caught.value)


def test_long_windows_and_other_sizes_are_refused(v3, unet, rgb):
    latents = draw(40, 4, HEIGHT, WIDTH)
    long = unet(frames=64)
    context = ContextOptions(length=40, overlap=0)
    with pytest.raises(AnimateDiffV2VError, match="supports at most 32 frames at once"):
        sample(long, latents, prompts(), context=context, controls=(keyed(rgb),))
    other = copy.copy(v3)
    other.unet = mini.unet_module((64, 96))
    with pytest.raises(AnimateDiffV2VError, match="use one for the same base model"):
        keyed(rgb).check_fits(other, latents)
