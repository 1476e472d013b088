"""IP-Adapters: their maths against diffusers', style travel, weights, windows, refusals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.ip_adapter import load_ip_adapter_network
from animatediff_v2v.pipeline.models.ops.image_prompt import cross_attentions
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.prompts.style_weights import parse_weights
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Guidance,
    Span,
    StyleImages,
)
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.style import spread, weight_at
from safetensors.torch import save_file

from ..files import miniatures as mini
from .sampled import sample

SCHEDULE = NoiseSchedule("linear")
CHANNELS, LAYERS = (32, 64), 2
FRAMES, HEIGHT, WIDTH = 6, 6, 5
FAMILIES = ["base", "plus", "full"]
SIGMA = SCHEDULE.sigmas[600]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(family, count, seed=5):
    tokens = () if family == "base" else (mini.IMAGE_TOKENS,)
    return draw(count, *tokens, mini.IMAGE_CHANNELS, seed=seed)


def load(folder, family, unet):
    path = folder / f"{family}.safetensors"
    save_file(mini.ip_adapter(family, unet), path)
    return load_ip_adapter_network(path, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def unet():
    return MotionUNet(mini.unet_module(CHANNELS, LAYERS).eval().requires_grad_(False), None)


@pytest.fixture(scope="module")
def adapters(unet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {family: load(folder, family, unet.unet) for family in FAMILIES}


def style(adapter, count=1, **options):
    empty = torch.zeros_like(images(adapter.family, 1))
    if adapter.family != "base":
        empty = images(adapter.family, 1, seed=99)
    defaults = {"embeddings": images(adapter.family, count), "empty": empty}
    return StyleImages(adapter=adapter, **defaults | options)


def denoised(unet, styles, noisy, *, scale=1.0, context=None, sigma=SIGMA):
    model = GuidedModel(
        unet,
        schedule=SCHEDULE,
        conditioning=Conditioning.of(
            draw(1, 7, mini.CROSS, seed=1), draw(1, 7, mini.CROSS, seed=2)
        ),
        guidance=Guidance(scale=scale),
        context=context or ContextOptions(length=len(noisy), overlap=0),
        on_passes=lambda _share: None,
        styles=[each.track(len(noisy)) for each in styles],
    )
    return model(noisy, sigma, 0)


def noise_by_diffusers(unet, family, sample, prompt, *, embeddings, weight):
    """Use diffusers' own IP-Adapter in its own UNet."""
    tensors = mini.ip_adapter(family, unet)
    parts = {
        part: {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{part}.")
        }
        for part in ("image_proj", "ip_adapter")
    }
    theirs = copy.deepcopy(unet)
    theirs._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    for processor in theirs.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [weight]
    rows = len(sample)
    expanded = embeddings.expand(rows, *embeddings.shape[1:]).unsqueeze(1)
    with torch.no_grad():
        return theirs(
            sample / (SIGMA**2 + 1).sqrt(),
            SCHEDULE.timestep(SIGMA),
            prompt.expand(rows, -1, -1),
            added_cond_kwargs={"image_embeds": [expanded]},
            return_dict=False,
        )[0]


@pytest.mark.parametrize("weight", [1.0, 0.4, -0.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_diffusers(unet, adapters, family, weight):
    noisy = draw(FRAMES, 4, HEIGHT, WIDTH)
    used = style(adapters[family], weight=weight)
    noise = (noisy - denoised(unet, [used], noisy)) / SIGMA
    expected = noise_by_diffusers(
        unet.unet,
        family,
        noisy,
        draw(1, 7, mini.CROSS, seed=1),
        embeddings=used.embeddings,
        weight=weight,
    )
    assert (noise - expected).norm() / expected.norm() < 1e-5
    plain = (noisy - denoised(unet, [], noisy)) / SIGMA
    assert (plain - expected).norm() / expected.norm() > 1e-3, "the IP-Adapter does nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_negative_prompt_looks_at_no_image(unet, adapters, family):
    noisy = draw(FRAMES, 4, HEIGHT, WIDTH)
    used = style(adapters[family])
    both = denoised(unet, [used], noisy, scale=3.0)
    noises = [
        noise_by_diffusers(
            unet.unet,
            family,
            noisy,
            draw(1, 7, mini.CROSS, seed=seed),
            embeddings=embeds,
            weight=1.0,
        )
        for seed, embeds in ((1, used.embeddings), (2, used.empty))
    ]
    expected = noisy - SIGMA * (noises[1] + 3 * (noises[0] - noises[1]))
    assert (both - expected).norm() / expected.norm() < 1e-5


def test_the_unet_is_left_as_it_was(unet, adapters):
    noisy = draw(2, 4, HEIGHT, WIDTH)
    before = denoised(unet, [], noisy)
    processors = [attention.processor for attention in cross_attentions(unet.unet)]
    denoised(unet, [style(adapters["base"])], noisy)
    assert [attention.processor for attention in cross_attentions(unet.unet)] == processors
    assert torch.equal(denoised(unet, [], noisy), before)
    with pytest.raises(RuntimeError):
        denoised(unet, [style(adapters["base"])], noisy[:, :3])
    assert torch.equal(denoised(unet, [], noisy), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_zero_and_two_halves(unet, adapters, family):
    noisy = draw(FRAMES, 4, HEIGHT, WIDTH)
    idle = style(adapters[family], weight=0.0)
    assert torch.allclose(denoised(unet, [idle], noisy), denoised(unet, [], noisy), atol=1e-4)
    halves = [style(adapters[family], weight=0.5)] * 2
    whole = denoised(unet, [style(adapters[family])], noisy)
    assert torch.allclose(denoised(unet, halves, noisy), whole, atol=1e-4)


def alone(unet, adapter, noisy, frame, **options):
    """Return the result of one frame with its own style."""
    return denoised(unet, [style(adapter, **options)], noisy[frame : frame + 1])


def test_weights_along_the_clip(unet, adapters):
    noisy = draw(FRAMES, 4, HEIGHT, WIDTH)
    used = style(adapters["plus"], weight=0.8, weights={1: 1.0, 5: 0.0})
    together = denoised(unet, [used], noisy)
    for frame, factor in enumerate((1.0, 1.0, 0.75, 0.5, 0.25, 0.0)):
        expected = alone(unet, adapters["plus"], noisy, frame, weight=0.8 * factor)
        assert torch.allclose(together[frame], expected[0], atol=1e-4)


def test_style_travels_from_image_to_image(unet, adapters):
    noisy, adapter = draw(5, 4, HEIGHT, WIDTH), adapters["base"]
    together = denoised(unet, [style(adapter, 3, arrangement="travel")], noisy)
    each = images("base", 3)
    for frame, image in ((0, 0), (2, 1), (4, 2)):
        expected = alone(unet, adapter, noisy, frame, embeddings=each[image : image + 1])
        assert torch.allclose(together[frame], expected[0], atol=1e-4)
    tokens = style(adapter, 3, arrangement="travel").track(5).images.at([0, 1, 2])
    assert torch.allclose(tokens[1], (tokens[0] + tokens[2]) / 2, atol=1e-6)


def test_average_and_concat(unet, adapters):
    noisy = draw(3, 4, HEIGHT, WIDTH)
    for family in FAMILIES:
        adapter, several = adapters[family], images(family, 3)
        mean = style(adapter, embeddings=several.mean(dim=0, keepdim=True))
        average = style(adapter, embeddings=several)
        assert torch.allclose(denoised(unet, [average], noisy), denoised(unet, [mean], noisy))
        one, twice = several[:1], several[:1].expand(2, *several.shape[1:])
        concat = style(adapter, embeddings=twice, arrangement="concat")
        expected = denoised(unet, [style(adapter, embeddings=one)], noisy, scale=2.0)
        assert torch.allclose(denoised(unet, [concat], noisy, scale=2.0), expected, atol=1e-4)
        track = style(adapter, 3, arrangement="concat").track(9)
        assert track.images.tokens == track.empty.tokens == 3 * mean.track(9).images.tokens


def test_each_window_looks_at_one_image(unet, adapters):
    frames = 12
    noisy, adapter = draw(frames, 4, HEIGHT, WIDTH), adapters["plus"]
    windows = ContextOptions(length=6, overlap=0, schedule="batched")
    together = denoised(
        unet, [style(adapter, frames, arrangement="per_window")], noisy, context=windows
    )
    each = images("plus", frames)
    for start, middle in ((0, 3), (6, 9)):
        expected = denoised(
            unet,
            [style(adapter, embeddings=each[middle : middle + 1])],
            noisy[start : start + 6],
        )
        assert torch.allclose(together[start : start + 6], expected, atol=1e-4)


def test_outside_of_its_span_it_does_nothing(unet, adapters):
    noisy = draw(2, 4, HEIGHT, WIDTH)
    used = style(adapters["base"], span=Span(0.0, 0.5))
    for index, acts in ((900, True), (100, False)):
        sigma = SCHEDULE.sigmas[index]
        plain = denoised(unet, [], noisy, sigma=sigma)
        assert torch.equal(denoised(unet, [used], noisy, sigma=sigma), plain) is not acts


def test_memory_is_that_of_the_images(adapters):
    used = style(adapters["plus"], 2, arrangement="travel")
    tracks = [used.track(frames) for frames in (16, 100_000)]
    assert {track.images.encodings.numel() for track in tracks} == {2 * 5 * mini.CROSS}


def test_sampling_with_a_style(unet, adapters):
    def run(*styles):
        return sample(
            unet,
            draw(FRAMES, 4, HEIGHT, WIDTH),
            Conditioning.of(draw(1, 7, mini.CROSS), draw(1, 7, mini.CROSS, seed=2)),
            seed=1,
            steps=3,
            styles=styles,
        )

    used = style(adapters["plus"])
    assert torch.equal(run(used), run(used))
    assert (run(used) - run()).norm() / run().norm() > 1e-3


REFUSED = [
    ("base", {"weight": 7}, "weight is 7; it must be from -5 to 5."),
    ("base", {"weight": math.nan}, "weight is nan; it must be from -5 to 5."),
    ("base", {"weights": {4: 9.0}}, "the weight at frame 4 is 9; it must be from -5 to 5."),
    ("base", {"arrangement": "mean"}, "arrangement is 'mean'; it can be average, concat, travel,"),
    (
        "base",
        {"embeddings": draw(1, 1280)},
        "base.safetensors needs a CLIP vision model whose output has 24 channels, and this one's "
        "has 1280: use the one that it was trained with.",
    ),
    ("plus", {"embeddings": draw(1, 7, 1024)}, "and this one's has 1024"),
]


@pytest.mark.parametrize(("family", "values", "sentence"), REFUSED)
def test_refused(adapters, family, values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        style(adapters[family], **values)
    assert sentence in str(caught.value)


def test_an_adapter_for_another_unet_is_refused(models, adapters):
    with pytest.raises(AnimateDiffV2VError, match="use one for the same base model"):
        style(adapters["base"]).check_fits(models.unet)


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [(1, 9, (0,)), (2, 9, (0, 8)), (3, 9, (0, 4, 8)), (4, 2, (0, 1)), (9, 9, tuple(range(9)))],
)
def test_images_are_spread_over_the_clip(count, frames, expected):
    assert spread(count, frames) == expected


def test_weights_as_text():
    assert parse_weights("") is None
    assert parse_weights("0: 1\n 24 : 0.3,\n\n") == {0: 1.0, 24: 0.3}
    assert parse_weights("0:(1), 24:(0.3)") == {0: 1.0, 24: 0.3}
    assert weight_at(12, {0: 1.0, 24: 0.5}) == 0.75
    assert [weight_at(frame, {4: 0.2}) for frame in (0, 4, 9)] == [0.2] * 3
    with pytest.raises(AnimateDiffV2VError, match="The weight at frame 3 is 'much'; it must be a"):
        parse_weights("3: much")
    with pytest.raises(
        AnimateDiffV2VError, match="Line 1 of the weight schedule, 'much', names no frame"
    ):
        parse_weights("much")
