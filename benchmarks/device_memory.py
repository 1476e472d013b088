"""Count the peak of GPU memory in a whole job with Stable Diffusion 1.5 and a v2 motion module.

Usage: python benchmarks/device_memory.py [--frames 16] [--size 512] [--max-memory GB] [--alive 8]

The job is `video_to_video`, file to file, in 16 bits, with guidance and two steps; the device is
PyTorch's meta device, whose tensors have shapes but no content. Only weights and tensors are
counted: workspaces of kernels, fragmentation and the driver's context come on top. For each phase
it prints the weights on the device, the peak, and the other tensors that were alive at the peak.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    FrameSelection,
    Models,
    Request,
    SamplingSettings,
    video_to_video,
)
from animatediff_v2v.pipeline.memory.estimate import (
    Work,
    coding_memory,
    longest_window,
    sampling_memory,
)
from animatediff_v2v.pipeline.memory.offload import OffloadedModels
from animatediff_v2v.pipeline.memory.tracer import META, LiveBytes, live_bytes, weight_bytes
from animatediff_v2v.pipeline.models.autoencoder import Autoencoder, VaeSizes
from animatediff_v2v.pipeline.models.batching import ChunkSizes, MemoryBound
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextEncoder, ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.models.vae import VaeCodec, default_frames_per_pass
from animatediff_v2v.pipeline.progress import Phase
from animatediff_v2v.pipeline.video import VideoWriter
from torch import nn
from traffic import CHANNELS, LAYERS, TEXT_CHANNELS, plain_unet

MOTION_FRAMES = 32


@dataclass(frozen=True)
class PhaseMemory:
    """The networks and tensors on the device in one phase."""

    name: str
    networks: tuple[nn.Module, ...]
    beside: LiveBytes

    @property
    def peak(self) -> int:
        """The peak in bytes."""
        return weight_bytes(*self.networks) + self.beside.peak

    def show(self, alive: int) -> None:
        weights = weight_bytes(*self.networks)
        print(
            f"{self.name}: weights {weights / 1e9:.3f} GB, beside them "
            f"{self.beside.peak / 1e9:.3f} GB, together {self.peak / 1e9:.3f} GB"
        )
        largest = sorted(self.beside.at_peak, key=lambda each: each.size, reverse=True)
        for each in largest[:alive]:
            shape = "x".join(map(str, each.shape))
            print(f"  {each.size / 1e6:>7.1f} MB {shape:<20} {each.dtype} {each.operator}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--max-memory", type=float, metavar="GB", help="as the command's")
    parser.add_argument("--alive", type=int, default=8, help="how many of the largest to list")
    arguments = parser.parse_args()
    models, bound = full_size(), None
    if arguments.max_memory is not None:
        bound = MemoryBound(META, int(arguments.max_memory * 1e9))
    settings = SamplingSettings(seed=1, steps=2, denoise=1.0)
    size = arguments.size
    window = longest_window(models, settings, arguments.frames)
    work = Work(frames=window, width=size, height=size, settings=settings)
    try:
        phases = count_phases(replace(models, bound=bound), work)
    except AnimateDiffV2VError as error:
        print(error)
        return 1
    for phase in phases:
        phase.show(arguments.alive)
    peak = count_job(replace(models, bound=bound), work, arguments.frames)
    print(f"the whole job, from file to file: {peak / 1e9:.3f} GB")
    return 0


def count_phases(models: Models, work: Work) -> list[PhaseMemory]:
    """Count phase by phase, with the chunk sizes of the job."""
    text, vae, unet = models.text_encoder.network, models.codec.vae, models.unet
    frames = default_frames_per_pass(work.height, work.width)
    chunks = ChunkSizes.default(META, pixels=work.pixels)
    encoding, sampling, decoding = ((text, vae, unet),) * 3
    if models.bound is not None:
        bounded = OffloadedModels(models, (), work)
        frames, chunks = bounded.frames_per_pass, bounded.models.chunks
        encoding, sampling, decoding = (text, vae), (unet,), (vae,)
    encoded, decoded = coding_memory(models, work, frames)
    sampled = sampling_memory(models, (), work, chunks)
    print(
        f"at a time {frames} frames of the VAE, {chunks.passes} passes of the UNet, "
        f"{chunks.tokens or 'all'} tokens"
    )
    return [
        PhaseMemory("encode", encoding, encoded),
        PhaseMemory("sample", sampling, sampled),
        PhaseMemory("decode", decoding, decoded),
    ]


def begin(counted: LiveBytes, phase: Phase) -> None:
    """Count from the first phase on: before it, the copies that find the chunk sizes are there."""
    if phase == "encode":
        counted.restart()


def count_job(models: Models, work: Work, frames: int) -> int:
    """Run the job on a number of frames and count its peak in bytes; this moves the networks."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mp4"
        with VideoWriter(
            source, width=work.width, height=work.height, frame_rate=Fraction(8)
        ) as writer:
            writer.write(np.zeros((frames, work.height, work.width, 3), np.uint8))
        request = Request(
            input=source,
            output=Path(folder) / "restyled.mp4",
            prompt="a cat",
            sampling=work.settings,
            selection=FrameSelection(),
        )
        with live_bytes() as counted:
            if models.bound is None:
                for network in (models.text_encoder.network, models.codec.vae, models.unet):
                    network.to(META)
            video_to_video(request, models, before_phase=partial(begin, counted))
    return counted.peak


def full_size() -> Models:
    """Return networks of full size that take no memory: each weight is one zero, expanded."""
    with torch.device(META):
        motion = MotionModules(
            block_channels=CHANNELS, layers_per_block=LAYERS, max_frames=MOTION_FRAMES, mid=True
        )
        unet = MotionUNet(plain_unet(), motion.half().requires_grad_(False), family="v2")
        vae = Autoencoder(VaeSizes())
        text = ClipTextModel(
            vocab_size=49_408,
            hidden_size=TEXT_CHANNELS,
            intermediate_size=4 * TEXT_CHANNELS,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
        )
    for network in (unet, vae, text):
        zero = torch.zeros((), dtype=torch.half)
        zeros = {name: zero.expand(each.shape) for name, each in network.state_dict().items()}
        network.eval().requires_grad_(False).load_state_dict(zeros, assign=True)
    return Models(unet=unet, text_encoder=ClipTextEncoder(text), codec=VaeCodec(vae))


if __name__ == "__main__":
    sys.exit(main())
