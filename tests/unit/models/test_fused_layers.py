"""Fused layers against the plain ones: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.models import autoencoder
from animatediff_v2v.pipeline.models.batching import ChunkSizes
from animatediff_v2v.pipeline.models.frame_masks import MotionMasks
from animatediff_v2v.pipeline.models.motion_module import MotionModule
from animatediff_v2v.pipeline.models.ops import select as module
from animatediff_v2v.pipeline.models.ops.eager import cross_attention_kv
from animatediff_v2v.pipeline.models.ops.frame_norm import span_frames
from animatediff_v2v.pipeline.models.ops.select import EAGER_OPS, default_ops, lay_out_weights
from animatediff_v2v.pipeline.models.pass_strengths import PassStrengths, RowStrength
from animatediff_v2v.pipeline.models.vae import VaeCodec
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

pytest.importorskip("triton", reason="Triton is not installed")
from animatediff_v2v.pipeline.models.ops.fused import FUSED_OPS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# In float32 both sum in another order alone; a GPU's products there are of 19 bits.
TOLERANCE = 2e-6 if DEVICE.type == "cpu" else 2e-3
FRAMES = 3
LAYERS = {
    "resnet": lambda: ResnetBlock2D(
        in_channels=96, out_channels=96, temb_channels=32, groups=32, eps=1e-5
    ),
    "resnet to fewer channels": lambda: ResnetBlock2D(
        in_channels=96, out_channels=64, temb_channels=32, groups=32, eps=1e-5
    ),
    "transformer": lambda: Transformer2DModel(
        8, 12, in_channels=96, num_layers=2, cross_attention_dim=48, norm_num_groups=32
    ),
    "motion": lambda: MotionModule(96, 24),
}


def relative(one, other):
    return float((one - other).norm() / other.norm())


def with_few_groups(network):
    """Give all norms four groups. The interpreter takes as long for one as for a frame's pixels."""
    for layer in network.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups = 4
    return network


def drawn(layer):
    generator = torch.Generator().manual_seed(7)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.detach().normal_(0, 0.2, generator=generator)
    return layer.to(DEVICE)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def run(layers, kind, layer, features, tokens_at_once):
    if kind.startswith("resnet"):
        return layers.resnet(layer, features, draw(1, 32, seed=2), FRAMES)
    if kind == "motion":
        return layers.motion(layer, features, FRAMES, tokens_at_once)
    prompts = cross_attention_kv(layer, draw(2, 7, 48, seed=3), (), rows=len(features))
    return layers.transformer(layer, features, prompts, FRAMES, tokens_at_once)


@pytest.mark.parametrize("tokens_at_once", [None, 50], ids=["whole", "in parts"])
@pytest.mark.parametrize("over_frames", [False, True], ids=["by frame", "by video"])
@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_each_layer_gives_the_same(kind, over_frames, tokens_at_once):
    layer = with_few_groups(drawn(LAYERS[kind]()))
    if over_frames:
        span_frames(nn.ModuleList([layer]))
    # Far from zero, as squares of what is not centred would lose their digits.
    features = 3 * draw(2 * FRAMES, 96, 2, 6) + 40
    plain = run(EAGER_OPS, kind, layer, features, tokens_at_once)
    fused = run(FUSED_OPS, kind, layer, features, tokens_at_once)
    assert fused.is_contiguous(memory_format=torch.channels_last)
    # What the layer adds, without what it only passes on.
    passed = features.mean() if plain.shape == features.shape else 0
    assert relative(fused - passed, plain - passed) < TOLERANCE


@pytest.mark.parametrize("frames", [20, 40], ids=["than a tile", "than a program holds"])
@torch.inference_mode()
def test_more_frames_and_sharper_attention(frames):
    layer = with_few_groups(drawn(MotionModule(64, 48)))
    for attention in layer.temporal_transformer.transformer_blocks[0].attention_blocks:
        attention.key_scale = 1.5
    features = draw(frames, 64, 2, 3)
    plain = EAGER_OPS.motion(layer, features, frames, None)
    assert relative(FUSED_OPS.motion(layer, features, frames, None), plain) < TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (40, 52), (96, 120)])
@torch.inference_mode()
def test_norms_of_frames_of_any_size(height, width):
    """One pixel; parts of a tile; several parts; several tiles of parts."""
    norm = drawn(nn.GroupNorm(32, 64))
    features = 2 * draw(2, 64, height, width) - 30
    plain = EAGER_OPS.activated_norm(norm, features, 1)
    assert relative(FUSED_OPS.activated_norm(norm, features, 1), plain) < 10 * TOLERANCE


@torch.inference_mode()
def test_the_unet_gives_the_same(models):
    # Weights in the dtype it computes in, as on a GPU.
    unet = with_few_groups(copy.deepcopy(models.unet).float())
    unet.to(DEVICE, memory_format=FUSED_OPS.memory_format)
    context = draw(1, 77, unet.unet.config.cross_attention_dim, seed=1)
    given = (draw(2, 4, 4, 4), torch.tensor([481.0], device=DEVICE), context, 2)
    fused = unet(*given, ops=FUSED_OPS, chunks=ChunkSizes(passes=2, tokens=16))
    assert relative(fused, unet(*given)) < 10 * TOLERANCE


@torch.inference_mode()
def test_the_unet_gives_the_same_with_strengths_of_each_row(models):
    unet = with_few_groups(copy.deepcopy(models.unet).float())
    unet.to(DEVICE, memory_format=FUSED_OPS.memory_format)
    changes = {
        name: (
            draw(1, *layer.weight.shape[1:], seed=5) / layer.weight[0].numel() ** 0.5,
            draw(len(layer.weight), 1, seed=6),
        )
        for name, layer in unet.unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    unet.attach_loras([Curve("0: 1")], [changes])
    unet.motion.set_motion_scale(Curve("0: 1"))
    mask = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(7))
    unet.motion.set_masks(MotionMasks.of(mask, mask))
    context = draw(1, 77, unet.unet.config.cross_attention_dim, seed=1)
    given = (draw(2, 4, 4, 4), torch.tensor([481.0], device=DEVICE), context, 2)
    strengths = PassStrengths(
        loras=torch.tensor([[0.2, 0.6]]),
        motion_scale=RowStrength(torch.tensor([0.5, 2.0]), unet.motion.masks.scale, (0, 1)),
        motion_effect=RowStrength(torch.tensor([1.0, 0.5]), unet.motion.masks.effect, (0, 1)),
    )
    plain = unet(*given, strengths=strengths)
    assert relative(unet(*given), plain) > 0.01
    few = ChunkSizes(passes=2, tokens=16)
    fused = unet(*given, strengths=strengths, ops=FUSED_OPS, chunks=few)
    assert relative(fused, plain) < 10 * TOLERANCE


@pytest.mark.parametrize("size", [(8, 10), (7, 10)], ids=["doubled", "uneven"])
@torch.inference_mode()
def test_upsampling_gives_the_same(size):
    layer = drawn(Upsample2D(96, use_conv=True, out_channels=80))
    features = draw(3, 96, 4, 5)
    plain = EAGER_OPS.upsampler(layer, features, size)
    assert relative(FUSED_OPS.upsampler(layer, features, size), plain) < TOLERANCE


def test_the_vae_gives_the_same(models, monkeypatch):
    codec = VaeCodec(with_few_groups(copy.deepcopy(models.codec.vae)).to(DEVICE))
    frames = torch.rand(1, 16, 24, 3, generator=torch.Generator().manual_seed(4))
    latents = codec.encode(frames)
    decoded = torch.cat(list(codec.decode(latents)))
    monkeypatch.setattr(autoencoder, "default_ops", lambda *_: FUSED_OPS)
    assert relative(codec.encode(frames), latents) < 10 * TOLERANCE
    assert relative(torch.cat(list(codec.decode(latents))), decoded) < 10 * TOLERANCE


@pytest.fixture
def fresh():
    default_ops.cache_clear()
    yield
    default_ops.cache_clear()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.float32), ("cpu", torch.float16), ("mps", torch.float16)],
)
def test_plain_layers_are_usual_without_a_gpu(device, dtype, fresh):
    assert default_ops(torch.device(device), dtype) is EAGER_OPS


def test_in_32_bits_layers_are_plain(fresh):
    assert default_ops(torch.device("cuda"), torch.float32) is EAGER_OPS


def test_where_triton_fails_a_line_says_so_once(fresh, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr("animatediff_v2v.pipeline.models.ops.fused.try_out", fail)
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        for _ in range(2):
            assert default_ops(torch.device("cuda"), torch.float16) is EAGER_OPS
    (record,) = caplog.records
    assert "Failed to find C compiler" in record.message
    assert "triton-windows" in record.message


@pytest.mark.parametrize(("seconds", "lines"), [(0.05, 0), (2.0, 1)])
def test_where_triton_works_layers_are_fused(seconds, lines, fresh, monkeypatch, caplog):
    """Kernels that are not in Triton's cache take seconds to build, and a line says so."""
    monkeypatch.setattr("animatediff_v2v.pipeline.models.ops.fused.try_out", lambda *_: None)
    moments = iter([1.0, 1.0 + seconds])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    for _ in range(2):
        assert default_ops(torch.device("cuda"), torch.bfloat16) is FUSED_OPS
    assert caplog.text.count("Kernels are built for this graphics card") == lines


def test_weights_are_laid_out_as_the_layers_want_them(fresh, monkeypatch):
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(8, 8)).half()
    lay_out_weights(network, torch.device("cpu"))
    assert network[0].weight.is_contiguous()
    monkeypatch.setattr(module, "default_ops", lambda *_: FUSED_OPS)
    lay_out_weights(network, torch.device("cuda"))
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    lay_out_weights(network[1], torch.device("cuda"))  # no convolution, nothing to do
