"""A job within a bound of the device's memory.

Its networks wait in main memory while other ones work, and as much goes through them at a time as
fits. What fits is counted before, not guessed: see models.counted_memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

from .errors import AnimateDiffV2VError
from .models import Models
from .models.controlnet import ControlNetwork
from .models.counted_memory import LiveBytes, live_bytes, twin, weight_bytes
from .models.feature_cache import FeatureCache
from .models.latent_codec import VaeCodec, usual_frames_per_pass
from .models.layers import lay_out_weights
from .models.memory import MemoryBound, Portions
from .models.text_encoder import ClipTextEncoder
from .progress import Phase
from .request import SamplingSettings
from .sampling import Conditioning, ContextOptions, Control, Guidance
from .sampling.guided_model import GuidedModel
from .sampling.noise_schedule import NoiseSchedule
from .sampling.sample import BATCHED_FRAMES, window_for

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

# Of a transformer's tokens at a time: below, next to nothing is won.
FEWEST_TOKENS = 512
MOST_TOKENS = 32_768
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


class BoundedJob:
    """Keeps a job's networks, and what goes through them at a time, within `models.bound`.

    A context manager: when it ends, all networks wait again.
    """

    def __init__(self, models: Models, controls: Sequence[ControlNetwork], work: Work) -> None:
        """Find out how much can go through the networks at a time.

        models: with a bound, as load_files gives them.
        Raises AnimateDiffV2VError with the smallest bound that would do, when this one does not.
        """
        assert models.bound is not None
        assert isinstance(models.text_encoder, ClipTextEncoder)
        assert isinstance(models.codec, VaeCodec)
        self._bound = models.bound
        text, vae = models.text_encoder.network, models.codec.vae
        self._waiting = {network: _Waiting(network) for network in (text, vae, models.unet)}
        self._waiting |= {network: _Waiting(network) for network in controls}
        self._of_phase: dict[Phase, list[nn.Module]] = {
            "encode": [text, vae],
            "sample": [models.unet, *controls],
            "decode_latents": [vae],
        }
        frames, portions = self._choices(models, controls, work)
        self.frames_per_pass = frames
        """That go through the VAE at a time."""
        codec = VaeCodec(vae, frames_per_pass=frames)
        self.models = replace(models, codec=codec, portions=portions)
        """The same networks, with as much at a time as fits."""

    def __enter__(self) -> BoundedJob:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let all networks wait."""
        self._move([])

    def begin(self, phase: Phase) -> None:
        """Bring the networks of a phase to the device, and no others."""
        self._move(self._of_phase[phase])

    def _move(self, wanted: Sequence[nn.Module]) -> None:
        for network, waiting in self._waiting.items():
            if network not in wanted:
                waiting.leave()
        if self._bound.device.type == "cuda":
            torch.cuda.empty_cache()  # what is alike in size only would be taken anew
        for network in wanted:
            self._waiting[network].go(self._bound.device)

    def _choices(
        self, models: Models, controls: Sequence[ControlNetwork], work: Work
    ) -> tuple[int, Portions]:
        """Frames for the VAE at a time, and portions for the UNet."""

        def coding(frames: int) -> int:
            encoding, decoding = coding_memory(models, work, frames)
            return max(
                self._held("encode") + encoding.peak, self._held("decode_latents") + decoding.peak
            )

        def sampling(portions: Portions) -> int:
            return self._held("sample") + sampling_memory(models, controls, work, portions).peak

        device = self._bound.device
        most = 1 if device.type == "cpu" else usual_frames_per_pass(work.height, work.width)
        max_bytes = self._bound.max_bytes
        frames, needed_by_vae = _largest(_halved(most, 1), coding, max_bytes)
        portions, needed_by_unet = _largest(_portions(device, work), sampling, max_bytes)
        needed = max(needed_by_vae, needed_by_unet)
        if needed > max_bytes:
            raise AnimateDiffV2VError(_refusal(self._bound, needed, work))
        logger.info(
            "Within %.3f GB: %d frames of the VAE, %d passes of the UNet and %s tokens at a time.",
            self._bound.max_bytes / 1e9, frames, portions.passes, portions.tokens or "all",
        )  # fmt: skip
        return frames, portions

    def _held(self, phase: Phase) -> int:
        """Bytes of the weights on the device in a phase; on a CPU those of all networks."""
        on_cpu = self._bound.device.type == "cpu"
        return weight_bytes(*(self._waiting if on_cpu else self._of_phase[phase]))


class _Waiting:
    """A network that waits where it is, goes to the device, and leaves it without a copy back."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._weights = network.state_dict()
        self._is_away = False

    def go(self, device: torch.device) -> None:
        if not self._is_away:
            self._network.load_state_dict(
                {name: weight.to(device) for name, weight in self._weights.items()}, assign=True
            )
            lay_out_weights(self._network, device)
            self._is_away = True

    def leave(self) -> None:
        if self._is_away:
            self._network.load_state_dict(self._weights, assign=True)
            self._is_away = False


def coding_memory(models: Models, work: Work, frames: int) -> tuple[LiveBytes, LiveBytes]:
    """What encoding takes beside the weights, the prompt too, and what decoding takes.

    frames: that go through the VAE at a time.
    """
    assert isinstance(models.text_encoder, ClipTextEncoder)
    assert isinstance(models.codec, VaeCodec)
    text = ClipTextEncoder(twin(models.text_encoder.network))
    codec = VaeCodec(twin(models.codec.vae), frames_per_pass=frames)
    pictures = torch.zeros(frames, work.height, work.width, 3, dtype=torch.uint8)
    latents = torch.zeros(frames, 4, work.height // 8, work.width // 8)
    with live_bytes() as encoding:
        text.encode("")
        codec.encode(pictures)
    with live_bytes() as decoding:
        list(codec.decode(latents))
    return encoding, decoding


def sampling_memory(
    models: Models, controls: Sequence[ControlNetwork], work: Work, portions: Portions
) -> LiveBytes:
    """What as many passes as `portions` says take together beside the weights."""
    unet = twin(models.unet)
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
        controls=[Control(network=twin(network), frames=picture) for network in controls],
        cache=FeatureCache(interval=work.settings.speed.deep_cache_interval),
        portions=portions,
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


def _largest(
    choices: Sequence[Choice], needed: Callable[[Choice], int], max_bytes: int
) -> tuple[Choice, int]:
    """The first choice that needs no more than `max_bytes`, or the last; and what it needs.

    choices: the largest first.
    """
    for choice in choices:
        size = needed(choice)
        if size <= max_bytes:
            break
    return choice, size


def _portions(device: torch.device, work: Work) -> list[Portions]:
    """What may go through the UNet at a time, from what is usual to the least."""
    usual = Portions.usual(device, pixels=work.pixels)
    most = min(usual.tokens or MOST_TOKENS, MOST_TOKENS)
    tokens = _halved(most, FEWEST_TOKENS)[::2]  # each is counted, which takes a second or two
    # On a CPU as many passes go together as without a bound: the bits stay the same. Elsewhere that
    # saves nothing but starts of kernels: it is given up before small parts.
    fewest = usual.passes if device.type == "cpu" else 1
    together = [usual, Portions(usual.passes, tokens[0])]
    return list(dict.fromkeys([*together, *(Portions(fewest, count) for count in tokens)]))


def _halved(most: int, least: int) -> list[int]:
    """`most`, its half, and so on, but nothing below `least`."""
    return [most >> halvings for halvings in range(most.bit_length()) if most >> halvings >= least]


def _refusal(bound: MemoryBound, needed: int, work: Work) -> str:
    smallest = math.ceil(needed / 1e6) / 1e3
    return (
        f"max_memory_gb is {bound.max_bytes / 1e9:g}; windows of {work.frames} frames of "
        f"{work.width}x{work.height} with these networks need at least {smallest:g}: use that or "
        "more, a smaller width and height, a shorter context window, or fp8_weights."
    )
