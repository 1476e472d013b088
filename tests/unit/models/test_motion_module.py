"""The temporal transformer against plain loops in float64, and its parts against each other."""

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline.models import motion_module
from animatediff_v2v.pipeline.models.motion_module import (
    MotionModules,
    TemporalTransformer,
    attend_over_frames,
    positional_tables,
    sinusoidal_encoding,
)
from animatediff_v2v.pipeline.models.ops.frame_norm import FrameSpanningGroupNorm, group_norm

from . import plain_loops


def drawn(network, *, seed):
    """Fill a network with random numbers, so that every part has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not name.endswith(".pe"):
                fan_in = tensor.shape[-1] if tensor.ndim > 1 else 4
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * fan_in**-0.5 * 1.5)
                if "norm" in name and name.endswith("weight"):
                    tensor.add_(1.0)
    return network.eval().requires_grad_(False)


def transformer(channels, *, max_frames=32, seed=0, motion_scale=1.0):
    network = drawn(TemporalTransformer(channels, max_frames), seed=seed)
    for attention in network.transformer_blocks[0].attention_blocks:
        attention.pos_encoder.pe.copy_(sinusoidal_encoding(max_frames, channels))
        attention.key_scale = motion_scale
    return network


def relative_error(ours, expected):
    expected = torch.as_tensor(expected)
    return float(torch.linalg.norm(ours - expected) / torch.linalg.norm(expected))


@pytest.mark.parametrize(
    ("channels", "frames", "height", "width", "motion_scale"),
    [(32, 1, 2, 2, 1.0), (64, 7, 2, 3, 1.0), (64, 5, 3, 1, 1.4), (96, 16, 1, 2, 0.5)],
)
def test_temporal_transformer_equals_plain_loops(channels, frames, height, width, motion_scale):
    network = transformer(channels, seed=channels, motion_scale=motion_scale).double()
    video = torch.randn(frames, channels, height, width, dtype=torch.float64) * 2 + 0.3
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    expected = plain_loops.temporal_transformer(weights, video.numpy(), key_scale=motion_scale)

    change = network(video, frames) - video
    assert relative_error(change, expected - video.numpy()) < 1e-6


def test_clips_of_a_batch_do_not_see_each_other():
    network = transformer(64).double()
    first, second = torch.randn(2, 6, 64, 2, 2, dtype=torch.float64)
    together = network(torch.cat([first, second]), 6)
    assert relative_error(together[:6], network(first, 6)) < 1e-12
    assert relative_error(together[6:], network(second, 6)) < 1e-12


def test_frames_are_normalised_one_by_one():
    """Scaling a frame leaves its neighbours alone, as in the original; in diffusers it does not."""
    network = transformer(64).double()
    video = torch.randn(4, 64, 3, 3, dtype=torch.float64)
    louder = video.clone()
    louder[2] *= 50
    with_louder, without = network(louder, 4) - louder, network(video, 4) - video
    assert relative_error(with_louder, without) < 1e-4


@pytest.mark.parametrize(("length", "channels"), [(1, 2), (24, 32), (32, 320), (64, 64)])
def test_positional_table_is_the_paper_s(length, channels):
    expected = np.stack([plain_loops.position_vector(p, channels) for p in range(length)])
    table = sinusoidal_encoding(length, channels)
    assert table.shape == (1, length, channels)
    assert np.abs(table[0].numpy() - expected).max() < 5e-6


def test_positional_tables_fit_every_attention_of_a_file_without_them():
    with torch.device("meta"):
        modules = MotionModules(block_channels=(32, 64), layers_per_block=1, max_frames=9, mid=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in modules.state_dict().items()}
    without = {n: t for n, t in modules.state_dict().items() if not n.endswith(".pe")}
    tables = positional_tables(without, 9)
    assert {name: tuple(table.shape) for name, table in tables.items()} == {
        name: shape for name, shape in shapes.items() if name.endswith(".pe")
    }


@pytest.mark.parametrize("limit", [1, 4, 5, 1000])
def test_attention_in_parts_of_the_batch_is_the_same(limit, monkeypatch):
    query, key, value = torch.randn(3, 2, 5, 9, 64, dtype=torch.float64)
    whole = attend_over_frames(query, key, value)
    monkeypatch.setattr(motion_module, "MAX_ATTENTION_BATCH", limit)
    assert torch.allclose(attend_over_frames(query, key, value), whole, rtol=0, atol=1e-14)


def test_no_batch_is_beyond_the_limit_of_the_kernels(monkeypatch):
    sizes = []

    def watched(query, key, value):
        sizes.append(len(query))
        return attend(query, key, value)

    attend = motion_module.functional.scaled_dot_product_attention
    monkeypatch.setattr(motion_module.functional, "scaled_dot_product_attention", watched)
    query, key, value = torch.randn(3, 1, 65_536, 2, 8)
    attend_over_frames(query, key, value)
    assert sizes == [65_535, 1]


@pytest.mark.parametrize("shape", [(6, 64, 3, 2), (6, 64, 5), (4, 32, 1, 1)])
def test_norm_over_a_clip_equals_plain_loops(shape):
    """v1: one mean and variance for a group of channels in all frames of a clip."""
    rows, channels = shape[:2]
    frames = rows // 2
    norm = drawn(torch.nn.GroupNorm(32, channels, eps=1e-5), seed=3).double()
    features = torch.randn(*shape, dtype=torch.float64) * 3 - 1

    result = group_norm(FrameSpanningGroupNorm(norm), features, frames)

    for start in (0, frames):
        clip = features[start : start + frames].numpy().swapaxes(0, 1)
        expected = plain_loops.group_norm(
            clip, norm.weight.numpy(), norm.bias.numpy(), groups=32, epsilon=1e-5
        )
        ours = result[start : start + frames].numpy().swapaxes(0, 1)
        assert np.abs(ours - expected).max() < 1e-12
