"""How much memory a job's passes take, counted before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..models import Models
from ..models.batching import ChunkSizes
from ..models.controlnet import ControlNetwork
from ..models.feature_cache import FeatureCache
from ..models.text_encoder import ClipTextEncoder
from ..models.vae import VaeCodec
from ..sampling import Conditioning, ContextOptions, Control, Guidance
from ..sampling.guided_model import GuidedModel
from ..sampling.noise_schedule import NoiseSchedule
from ..sampling.sample import BATCHED_FRAMES, window_for
from ..sampling.settings import SamplingSettings
from .tracer import LiveBytes, live_bytes, to_meta_copy

# Of the prompt that is counted with, 300 words; each further chunk takes 20 MB in two passes.
PROMPT_TOKENS = 4 * 77


@dataclass(frozen=True)
class Work:
    """How large a job's passes are."""

    frames: int
    """In the longest context window."""
    width: int
    """Pixels."""
    height: int
    settings: SamplingSettings

    @property
    def pixels(self) -> int:
        """Of a window's latents."""
        return self.frames * (self.height // 8) * (self.width // 8)


def coding_memory(models: Models, work: Work, frames: int) -> tuple[LiveBytes, LiveBytes]:
    """What encoding takes beside the weights, the prompt too, and what decoding takes.

    frames: that go through the VAE at a time.
    """
    assert isinstance(models.text_encoder, ClipTextEncoder)
    assert isinstance(models.codec, VaeCodec)
    text = ClipTextEncoder(to_meta_copy(models.text_encoder.network))
    codec = VaeCodec(to_meta_copy(models.codec.vae), frames_per_pass=frames)
    pictures = torch.zeros(frames, work.height, work.width, 3, dtype=torch.uint8)
    latents = torch.zeros(frames, 4, work.height // 8, work.width // 8)
    with live_bytes() as encoding:
        text.encode("")
        codec.encode(pictures)
    with live_bytes() as decoding:
        list(codec.decode(latents))
    return encoding, decoding


def sampling_memory(
    models: Models, controls: Sequence[ControlNetwork], work: Work, chunks: ChunkSizes
) -> LiveBytes:
    """What as many passes as `chunks` says take together beside the weights."""
    unet = to_meta_copy(models.unet)
    schedule = NoiseSchedule(unet.beta_schedule)
    channels = int(unet.unet.config.cross_attention_dim)
    prompt = torch.zeros(1, PROMPT_TOKENS, channels)
    picture = torch.zeros(1, work.height, work.width, 3, dtype=torch.uint8)
    model = GuidedModel(
        unet,
        schedule=schedule,
        conditioning=Conditioning.of(prompt, prompt),
        guidance=Guidance(),
        context=ContextOptions(length=work.frames, overlap=0),
        on_passes=lambda _share: None,
        controls=[Control(network=to_meta_copy(network), frames=picture) for network in controls],
        cache=FeatureCache(interval=work.settings.speed.deep_cache_interval),
        chunks=chunks,
    )
    noisy = torch.zeros(work.frames, 4, work.height // 8, work.width // 8)
    with torch.inference_mode(), live_bytes() as counted:
        model(noisy, schedule.sigmas[500], 0)
    return counted


def longest_window(models: Models, settings: SamplingSettings, frames: int | None) -> int:
    """Frames in the longest context window of a clip of so many frames; None is not known."""
    limit = models.unet.max_frames or BATCHED_FRAMES
    context = settings.context
    if frames is None:
        frames = limit if context is None else context.length
    return min(frames, window_for(models.unet, frames, context).length)
