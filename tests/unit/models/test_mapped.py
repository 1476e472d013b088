"""Tensors of long videos in mapped files: the same bits, and main memory that does not grow."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError, Conditioning, SamplingSettings
from animatediff_v2v.pipeline.memory.mapped import Scratch
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.sampling import ContextOptions, sample_latents
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.passes import Execution

FRAMES = 21
TINY_GB = 1e-6


def anonymous_bytes():
    """Main memory that cannot be written back to files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def sampled(models, tmp_path, *, max_ram_gb, **settings):
    latents = torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    encode = models.text_encoder.encode
    conditioning = Conditioning(PromptTrack(encode("a fox")), PromptTrack(encode("")))
    chosen = SamplingSettings(
        seed=3, steps=2, context=ContextOptions(length=16, overlap=4), **settings
    )
    with (
        Scratch(tmp_path / "a.mp4", max_ram_gb=max_ram_gb) as scratch,
        scratch.mapping(scratch.joined(latents.split(2))) as paused,
    ):
        return sample_latents(
            models.unet, latents, conditioning, chosen,
            make_guided=partial(GuidedModel, execution=Execution(paused=paused)),
        )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "euler_ancestral"},
        {"sampler": "dpmpp_2m_sde"},
        {"sampler": "uni_pc"},
        {"sampler": "lcm", "noise_type": "unsample"},
    ],
    ids=lambda settings: settings["sampler"],
)
def test_results_are_equal_to_the_bit(models, tmp_path, settings):
    usual = sampled(models, tmp_path, max_ram_gb=None, **settings)
    mapped = sampled(models, tmp_path, max_ram_gb=TINY_GB, **settings)
    assert torch.equal(usual, mapped)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_main_memory_does_not_grow_with_the_video(tmp_path):
    """20,000 frames of 64x64 are 20 MB of latents; eight such tensors live at once below."""
    parts = (torch.randn(1000, 4, 8, 8) for _ in range(20))
    with Scratch(tmp_path / "a.mp4", max_ram_gb=0.02) as scratch:
        before = anonymous_bytes()
        latents = scratch.joined(parts)
        with scratch.mapping(latents), torch.inference_mode():
            generator = torch.Generator().manual_seed(1)
            noise = torch.randn(latents.shape, generator=generator)
            kept = [latents * 0.18215, noise.clone(), torch.zeros_like(noise)]
            for step in range(5):
                kept[2] += torch.tanh(kept[0] + kept[1] * step)
                kept.append((kept[0] - kept[2]) / 3)
            grown = anonymous_bytes() - before
        assert len(kept) == 8 and all(len(each) == 20_000 for each in kept)
        assert grown < 2 * latents.nbytes
    expected = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(noise, expected)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), 1e9])
def test_limits_out_of_range_are_refused(tmp_path, limit):
    with pytest.raises(AnimateDiffV2VError, match="max_ram_gb is"):
        Scratch(tmp_path / "a.mp4", max_ram_gb=limit)
