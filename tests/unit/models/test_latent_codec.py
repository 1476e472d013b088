"""The VAE: frames in, latents out, the same however they are cut up."""

import logging

import pytest
import torch
from animatediff_v2v.pipeline.models import vae as latent_codec
from animatediff_v2v.pipeline.models.vae import VaeCodec


def clip(frames, *, height=16, width=24):
    generator = torch.Generator().manual_seed(frames)
    shape = (frames, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def decoded(codec, latents):
    return torch.cat(list(codec.decode(latents)))


@pytest.mark.parametrize(("height", "width"), [(16, 24), (8, 8), (40, 16)])
def test_shapes_and_ranges(models, height, width):
    latents = models.codec.encode(clip(3, height=height, width=width))
    assert latents.shape == (3, 4, height // 8, width // 8)
    assert latents.dtype == torch.float32
    frames = decoded(models.codec, latents)
    assert frames.shape == (3, height, width, 3)
    assert frames.dtype == torch.float32 and frames.min() >= 0 and frames.max() <= 1


def test_8_bit_and_float_frames_give_the_same_latents(models):
    frames = clip(2)
    ours, expected = models.codec.encode(frames), models.codec.encode(frames.float() / 255)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_it_equals_the_network_on_the_whole_clip(models):
    frames = clip(3)
    pixels = (frames.float() / 255 * 2 - 1).permute(0, 3, 1, 2)
    latents = models.codec.encode(frames)
    with torch.inference_mode():
        expected = models.codec.vae.encode(pixels)
        assert torch.allclose(latents, expected, rtol=1e-4, atol=1e-5)
        images = models.codec.vae.decode(latents).permute(0, 2, 3, 1)
    expected = (images / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(decoded(models.codec, latents), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_call", [1, 2, 3, 5])
@pytest.mark.parametrize("per_pass", [1, 4, 64])
def test_chunks_leave_every_bit_as_it_was(models, monkeypatch, per_call, per_pass):
    frames = clip(5)
    latents = models.codec.encode(frames)
    pictures = decoded(models.codec, latents)
    monkeypatch.setattr(latent_codec, "FRAMES_PER_PASS", per_pass)
    pieces = [models.codec.encode(part) for part in frames.split(per_call)]
    assert torch.equal(torch.cat(pieces), latents)
    pieces = [decoded(models.codec, part) for part in latents.split(per_call)]
    assert torch.equal(torch.cat(pieces), pictures)


def test_encoding_draws_no_random_numbers(models):
    before = torch.get_rng_state()
    first = models.codec.encode(clip(2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(models.codec.encode(clip(2)), first)


def test_decoding_gives_frames_before_it_has_done_them_all(models):
    chunks = models.codec.decode(models.codec.encode(clip(4)))
    assert next(chunks).shape == (1, 16, 24, 3)
    assert len(list(chunks)) == 3


class Accelerator(str):
    """A device that torch treats as the CPU and the pack as an accelerator."""

    type = "accelerator"


class PretendedVae:
    """Averages blocks of pixels, in passes of at most `room` frames."""

    dtype = torch.float32
    device = Accelerator("cpu")

    def __init__(self, room):
        self.room = room
        self.passes = []

    def encode(self, pixels):
        self.passes.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([small, small[:, :1]], dim=1)


@pytest.mark.parametrize("room", [1, 2, 3, 8])
def test_running_out_of_memory_changes_passes_and_not_latents(room):
    roomy, tight = PretendedVae(8), PretendedVae(room)
    frames = clip(13)
    assert torch.equal(VaeCodec(tight).encode(frames), VaeCodec(roomy).encode(frames))
    assert roomy.passes == [8, 5]
    assert max(tight.passes[-4:]) <= room


@pytest.mark.parametrize(
    ("height", "width", "asked", "passes"),
    [
        (16, 24, None, [8, 5]),
        (256, 512, None, [4, 4, 4, 1]),
        (512, 512, None, [2, 2, 2, 2, 2, 2, 1]),
        (1024, 1024, None, [1] * 13),
        (16, 24, 3, [3, 3, 3, 3, 1]),
    ],
)
def test_larger_frames_go_through_fewer_at_a_time(height, width, asked, passes):
    vae = PretendedVae(8)
    VaeCodec(vae, frames_per_pass=asked).encode(torch.zeros(13, height, width, 3))
    assert vae.passes == passes


def test_a_clip_that_comes_in_chunks_runs_out_of_memory_once(caplog):
    vae = PretendedVae(4)
    codec = VaeCodec(vae)
    with caplog.at_level(logging.WARNING):
        for chunk in clip(32).split(8):
            codec.encode(chunk)
    assert vae.passes == [8, *[4] * 8]
    assert len(caplog.records) == 1
