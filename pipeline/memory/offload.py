"""A job within a bound of the device's memory.

Its networks wait in main memory while other ones work, and as much goes through them at a time as
fits. What fits is counted before, not guessed: see models.counted_memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

from ..errors import AnimateDiffV2VError
from ..models import Models
from ..models.batching import ChunkSizes, MemoryBound
from ..models.controlnet import ControlNetwork
from ..models.ops.select import lay_out_weights
from ..models.text_encoder import ClipTextEncoder
from ..models.vae import VaeCodec, default_frames_per_pass
from ..progress import Phase
from .estimate import Work, coding_memory, sampling_memory
from .tracer import weight_bytes

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

# Of a transformer's tokens at a time: below, next to nothing is won.
FEWEST_TOKENS = 512
MOST_TOKENS = 32_768


class OffloadedModels:
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
        frames, chunks = self._choices(models, controls, work)
        self.frames_per_pass = frames
        """That go through the VAE at a time."""
        codec = VaeCodec(vae, frames_per_pass=frames)
        self.models = replace(models, codec=codec, chunks=chunks)
        """The same networks, with as much at a time as fits."""

    def __enter__(self) -> OffloadedModels:
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
    ) -> tuple[int, ChunkSizes]:
        """Frames for the VAE at a time, and chunks for the UNet."""

        def coding(frames: int) -> int:
            encoding, decoding = coding_memory(models, work, frames)
            return max(
                self._held("encode") + encoding.peak, self._held("decode_latents") + decoding.peak
            )

        def sampling(chunks: ChunkSizes) -> int:
            return self._held("sample") + sampling_memory(models, controls, work, chunks).peak

        device = self._bound.device
        most = 1 if device.type == "cpu" else default_frames_per_pass(work.height, work.width)
        max_bytes = self._bound.max_bytes
        frames, needed_by_vae = _largest(_halved(most, 1), coding, max_bytes)
        chunks, needed_by_unet = _largest(_chunk_sizes(device, work), sampling, max_bytes)
        needed = max(needed_by_vae, needed_by_unet)
        if needed > max_bytes:
            raise AnimateDiffV2VError(_refusal(self._bound, needed, work))
        logger.info(
            "Within %.3f GB: %d frames of the VAE, %d passes of the UNet and %s tokens at a time.",
            self._bound.max_bytes / 1e9, frames, chunks.passes, chunks.tokens or "all",
        )  # fmt: skip
        return frames, chunks

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


def _chunk_sizes(device: torch.device, work: Work) -> list[ChunkSizes]:
    """What may go through the UNet at a time, from what is usual to the least."""
    usual = ChunkSizes.usual(device, pixels=work.pixels)
    most = min(usual.tokens or MOST_TOKENS, MOST_TOKENS)
    tokens = _halved(most, FEWEST_TOKENS)[::2]  # each is counted, which takes a second or two
    # On a CPU as many passes go together as without a bound: the bits stay the same. Elsewhere that
    # saves nothing but starts of kernels: it is given up before small parts.
    fewest = usual.passes if device.type == "cpu" else 1
    together = [usual, ChunkSizes(usual.passes, tokens[0])]
    return list(dict.fromkeys([*together, *(ChunkSizes(fewest, count) for count in tokens)]))


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
