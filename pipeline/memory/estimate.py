"""Estimates of the memory that a job's passes take, made before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..curve import Curve
from ..models import Models
from ..models.batching import ChunkSizes
from ..models.feature_cache import FeatureCache
from ..models.sparsectrl import AnyControlNetwork, SparseControlNetwork
from ..models.text_encoder import ClipTextEncoder
from ..models.unet import MotionUNet
from ..models.vae import VaeCodec
from ..sampling import (
    AnyControl,
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Keyframes,
)
from ..sampling.guided_model import GuidedModel
from ..sampling.noise_schedule import NoiseSchedule
from ..sampling.settings import SamplingSettings
from ..sampling.windows import BATCHED_FRAMES, window_for
from .tracer import LiveBytes, live_bytes, to_meta_copy

# A prompt of 300 words is assumed; each further chunk takes 20 MB in two passes.
PROMPT_TOKENS = 4 * 77


@dataclass(frozen=True)
class Work:
    """The size of a job's passes."""

    frames: int
    """Frames in the longest context window."""
    width: int
    """Pixels; `height` too."""
    height: int
    settings: SamplingSettings
    tile: tuple[int, int] | None = None
    """Height and width in latent pixels of the tiles that go through the UNet; None takes whole
    frames."""

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width in latent pixels of what goes through the UNet."""
        return self.tile or (self.height // 8, self.width // 8)

    @property
    def pixels(self) -> int:
        """Latent pixels of a window, over all its frames."""
        height, width = self.latent_size
        return self.frames * height * width


def coding_memory(models: Models, work: Work, frames: int) -> tuple[LiveBytes, LiveBytes]:
    """Count the memory for encoding prompt and frames, and for decoding, without weights.

    Args:
        models: The networks; copies of them run on the meta device.
        work: The size of the frames.
        frames: Frames that go through the VAE at a time.
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
    models: Models, controls: Sequence[AnyControlNetwork], work: Work, chunks: ChunkSizes
) -> LiveBytes:
    """Count the memory that passes of the UNet take together, without weights.

    Args:
        models: The networks; copies of them run on the meta device.
        controls: ControlNets and SparseCtrl networks that run with the UNet.
        work: The size of the passes.
        chunks: The numbers of passes and tokens that are processed together.
    """
    unet = _with_level_curves(to_meta_copy(models.unet))
    schedule = NoiseSchedule(unet.beta_schedule)
    channels = int(unet.unet.config.cross_attention_dim)
    prompt = torch.zeros(1, PROMPT_TOKENS, channels)
    height, width = work.latent_size
    memory = work.settings.context.memory if work.settings.context else "none"
    model = GuidedModel(
        unet,
        schedule=schedule,
        conditioning=Conditioning.of(prompt, prompt),
        guidance=Guidance(),
        context=ContextOptions(length=work.frames, overlap=0, memory=memory),
        on_passes=lambda _share: None,
        controls=[_counted(to_meta_copy(network), height, width) for network in controls],
        cache=FeatureCache(interval=work.settings.speed.deep_cache_interval),
        chunks=chunks,
    )
    # With a memory, it is the second window that takes the most.
    windows = 1 if memory == "none" else 2
    noisy = torch.zeros(windows * work.frames, 4, height, width)
    with torch.inference_mode(), live_bytes() as counted:
        model(noisy, schedule.sigmas[500], 0)
    return counted


def _with_level_curves(unet: MotionUNet) -> MotionUNet:
    """Return a network whose curves fit any number of frames, and act at any noise level."""
    level, motion = Curve("0: 1"), unet.motion
    unet.lora_curves = (level,) * len(unet.lora_curves)
    if motion is not None:
        motion.scale = level if isinstance(motion.scale, Curve) else motion.scale
        motion.effect = level if isinstance(motion.effect, Curve) else motion.effect
        motion.set_masks(motion.masks.of_one_frame())
    return unet


def _counted(network: AnyControlNetwork, height: int, width: int) -> AnyControl:
    """Return a network with one picture, of the height and width in latent pixels."""
    picture = torch.zeros(1, 8 * height, 8 * width, 3, dtype=torch.uint8)
    if not isinstance(network, SparseControlNetwork):
        return Control(network=network, frames=picture)
    latents = torch.zeros(1, 4, height, width) if network.takes_latents else None
    return Keyframes(network=network, pictures=picture, latents=latents)


def longest_window(models: Models, settings: SamplingSettings, frames: int | None) -> int:
    """Return the frames in the longest context window of a video.

    Args:
        models: The networks, for the longest window that the motion module supports.
        settings: The context options.
        frames: Frames of the video; None if not known.
    """
    limit = models.unet.max_frames or BATCHED_FRAMES
    context = settings.context
    if frames is None:
        frames = limit if context is None else context.length
    return min(frames, window_for(models.unet.max_frames, frames, context).length)
