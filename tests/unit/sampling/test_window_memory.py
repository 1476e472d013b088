"""The memory of the first window: what sees it, when, and how much it takes."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.batching import ChunkSizes
from animatediff_v2v.pipeline.models.feature_cache import FeatureCache
from animatediff_v2v.pipeline.models.ops.eager import cross_attention_kv, transformer
from animatediff_v2v.pipeline.models.ops.window_memory import RowMemory, WindowMemory
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Guidance
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.tiles import TiledModel
from animatediff_v2v.pipeline.sampling.windows import context_windows
from torch.nn import functional

SCHEDULE = NoiseSchedule("sqrt_linear")
FRAMES, SIDE = 9, 4
GUIDED = Guidance(scale=4.0)
SIGMA, STEP = SCHEDULE.sigmas[600], 1
# Memories that act within the UNet.
SEEN = ("ContextRef", "FeatureBank")
WINDOWS = {
    "static": {"overlap": 1},
    "no overlap": {"overlap": 0},
    "batched, of two lengths": {"overlap": 0, "schedule": "batched"},
    "uniform": {"overlap": 2, "schedule": "standard_uniform"},
    "strides": {"overlap": 1, "schedule": "looped_uniform", "stride": 2},
    "a closed loop": {"overlap": 1, "schedule": "looped_uniform", "closed_loop": True},
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def options_of(name, memory="ContextRef", length=4, **more):
    return ContextOptions(length=length, memory=memory, **WINDOWS[name], **more)


def model_of(models, context, make=GuidedModel, guidance=GUIDED, **given):
    encode = models.text_encoder.encode
    return make(
        models.unet,
        schedule=SCHEDULE,
        conditioning=Conditioning.of(encode("a fox"), encode("blurred")),
        guidance=guidance,
        context=context,
        on_passes=lambda _share: None,
        **given,
    )


@torch.inference_mode()
def denoised(models, context, frames=FRAMES, **given):
    return model_of(models, context, **given)(draw(frames, 4, SIDE, SIDE), SIGMA, STEP)


def assert_alike(result, expected):
    """Equal but for rounding; the noise is up to 40."""
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prompts", [(0,), (0, None), (None, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("tokens", [None, SIDE * SIDE, 2 * SIDE * SIDE])
@torch.inference_mode()
def test_rows_attend_to_their_pixels_and_to_the_kept_ones(models, prompts, tokens):
    """Against attention over the pixels of both frames, with those of one of them as queries."""
    block, frames = models.unet.unet.mid_block.attentions[0], 3
    channels, rows = block.proj_in.weight.shape[0], 3 * len(prompts)
    first, later = (draw(rows, channels, SIDE, SIDE, seed=seed) for seed in (1, 2))
    context = models.text_encoder.encode("a fox")
    text = cross_attention_kv(block, context, (), rows=rows)
    memory = WindowMemory()
    run = [
        transformer(
            block, each, text, frames, tokens, memory=RowMemory(memory, prompts, frames, is_kept)
        )
        for each, is_kept in ((first, True), (later, False))
    ]
    plain = [transformer(block, each, text, frames, tokens) for each in (first, later)]
    assert torch.equal(run[0], plain[0])
    for row in range(rows):
        here = slice(row, row + 1)
        if prompts[row // frames] is None:
            assert torch.equal(run[1][here], plain[1][here])
        else:
            expected = by_plain_attention(block, later[here], first[here], context)
            torch.testing.assert_close(run[1][here], expected, rtol=1e-4, atol=1e-5)


def by_plain_attention(block, features, seen, context):
    """Run the transformer on a frame that sees its own pixels and those of another."""
    layer = block.transformer_blocks[0]

    def tokens(frame):
        return block.proj_in(block.norm(frame)).flatten(2).transpose(1, 2)

    def attended(attention, query, seen):
        query, key, value = (
            each.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for each in (attention.to_q(query), attention.to_k(seen), attention.to_v(seen))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        return attention.to_out[0]((scores.softmax(-1) @ value).transpose(1, 2).flatten(-2))

    own = tokens(features)
    both = torch.cat([own, tokens(seen)], dim=1)
    own = own + attended(layer.attn1, layer.norm1(own), layer.norm1(both))
    own = own + attended(layer.attn2, layer.norm2(own), context)
    hidden, gating = layer.ff.net[0].proj(layer.norm3(own)).chunk(2, dim=-1)
    own = own + layer.ff.net[2](hidden * functional.gelu(gating))
    changes = own.transpose(1, 2).unflatten(2, features.shape[2:])
    return features + block.proj_out(changes)


@pytest.mark.parametrize("memory", SEEN)
@pytest.mark.parametrize("name", WINDOWS)
def test_frames_of_the_first_window_alone_are_as_without_a_memory(models, name, memory):
    plain, remembered = (denoised(models, options_of(name, each)) for each in ("none", memory))
    windows = context_windows(FRAMES, options_of(name), step=STEP)
    others = {frame for window in windows[1:] for frame in window}
    alike = [torch.equal(one, other) for one, other in zip(plain, remembered, strict=True)]
    assert alike == [frame not in others for frame in range(FRAMES)]


@pytest.mark.parametrize("memory", SEEN)
def test_a_video_of_one_window_has_no_memory(models, memory):
    plain, remembered = (
        denoised(models, options_of("static", each, length=FRAMES)) for each in ("none", memory)
    )
    assert torch.equal(plain, remembered)


@pytest.mark.parametrize("memory", SEEN)
@pytest.mark.parametrize("name", ["static", "strides"])
@pytest.mark.parametrize("passes", [1, 3])
def test_chunks_change_no_more_than_rounding(models, name, passes, memory):
    context = options_of(name, memory)
    expected = denoised(models, context, chunks=ChunkSizes(passes=4, tokens=None))
    chunks = ChunkSizes(passes=passes, tokens=SIDE * SIDE)
    assert_alike(denoised(models, context, chunks=chunks), expected)


@pytest.mark.parametrize("memory", SEEN)
def test_less_memory_for_passes_changes_no_more_than_rounding(models, monkeypatch, memory):
    """Both prompts of a window fit into one pass no more: each keeps and sees its own frame."""
    context = options_of("static", memory)
    expected = denoised(models, context)
    forward = type(models.unet).forward

    def one_video(self, sample, timestep, prompts, num_frames, **others):
        if len(sample) > num_frames:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, sample, timestep, prompts, num_frames, **others)

    monkeypatch.setattr(type(models.unet), "forward", one_video)
    chunks = ChunkSizes(passes=2, tokens=None)
    assert_alike(denoised(models, context, chunks=chunks), expected)


@pytest.mark.parametrize("memory", SEEN)
@torch.inference_mode()
def test_reused_deep_features_go_with_a_memory(models, memory):
    """In a call on deep features, the outermost layers alone keep and see the frame."""
    cached = model_of(models, options_of("static", memory), cache=FeatureCache(interval=2))
    whole = model_of(models, options_of("static", memory))
    noisy = draw(FRAMES, 4, SIDE, SIDE)
    first, second = (cached(noisy, SIGMA, STEP) for _ in range(2))
    assert torch.equal(first, whole(noisy, SIGMA, STEP))
    torch.testing.assert_close(second, first, rtol=0.01, atol=0.01)  # features are kept in float16


@pytest.mark.parametrize("memory", SEEN)
@torch.inference_mode()
def test_each_tile_remembers_what_it_shows(models, memory):
    context = options_of("static", memory)
    noisy = draw(FRAMES, 4, 8, 12)
    tiled = model_of(models, context, TiledModel, tile=(8, 8))
    tiled(noisy, SIGMA, STEP)
    for (rows, columns), each in tiled._models:
        tile = noisy[:, :, rows, columns].contiguous()
        expected = model_of(models, context)(tile, SIGMA, STEP)
        assert torch.equal(each(tile, SIGMA, STEP), expected)


def test_the_memory_does_not_grow_with_the_video(models, monkeypatch):
    kept = []
    init = WindowMemory.__init__
    monkeypatch.setattr(WindowMemory, "__init__", lambda self: (init(self), kept.append(self))[0])
    for frames in (9, 27):
        denoised(models, options_of("static"), frames=frames)
    first, second = ([tuple(each[0].shape) for each in one._kept.values()] for one in kept)
    assert first
    assert first == second


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("guidance", [GUIDED, Guidance(scale=4.0, rescale=0.7)])
@torch.inference_mode()
def test_naive_reuse_repeats_the_first_window(models, guidance, name):
    """Against loops over AnimateDiff-Evolved's indices, for each prompt's prediction alone."""
    noisy = draw(FRAMES, 4, SIDE, SIDE)
    windows = context_windows(FRAMES, options_of(name), step=STEP)
    alone = ContextOptions(length=4, overlap=0)
    each = []
    for scale in (1.0, 0.0):  # the positive prompt, the negative one
        plain, first = (
            model_of(models, context, guidance=Guidance(scale=scale))(frames, SIGMA, STEP)
            for context, frames in ((options_of(name, "none"), noisy), (alone, noisy[windows[0]]))
        )
        for begin in range(0, FRAMES, 4):
            for place, turn in enumerate(range(begin, min(begin + 4, FRAMES))):
                frame = (turn + windows[0][0]) % FRAMES
                plain[frame] = 0.95 * first[place] + 0.05 * plain[frame]
        each.append(plain)
    expected = guidance.guided(noisy, *each, sigma=SIGMA, scale=4.0)
    model = model_of(models, options_of(name, "NaiveReuse"), guidance=guidance)
    assert_alike(model(noisy, SIGMA, STEP), expected)


@pytest.mark.parametrize("memory", ["ContextRef", "NaiveReuse", "FeatureBank"])
@pytest.mark.parametrize(("share", "acts"), [(0.3, False), (0.5, True)])
def test_a_memory_ends_where_it_is_told(models, memory, share, acts):
    """The noise level is that of a share of 0.4."""
    plain, remembered = (
        denoised(models, options_of("static", name, memory_end=share)) for name in ("none", memory)
    )
    assert torch.equal(plain, remembered) != acts


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"memory": "last"},
            "context memory is 'last'; it can be none, ContextRef, NaiveReuse, FeatureBank",
        ),
        ({"memory_end": 1.5}, "memory_end is 1.5; it must be from 0 to 1"),
    ],
)
def test_an_unknown_memory_is_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        ContextOptions(**values)
