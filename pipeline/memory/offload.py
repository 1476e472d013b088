"""A limit on device memory: networks stay in main memory while other ones compute.

What fits is counted before the job begins, by running the networks on the meta device; see
memory.estimate and memory.tracer.
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
from ..models.ops.select import lay_out_weights
from ..models.sparsectrl import AnyControlNetwork
from ..models.text_encoder import ClipTextEncoder
from ..models.vae import VaeCodec, default_frames_per_pass
from ..progress import Phase
from .estimate import Work, coding_memory, sampling_memory
from .tracer import weight_bytes

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

# Tokens of a transformer at a time. Fewer than 512 save next to no memory.
FEWEST_TOKENS = 512
MOST_TOKENS = 32_768


class OffloadedModels:
    """The networks of a job, each on the device only in the phases that use it.

    A context manager: when it ends, all networks are back in main memory.
    """

    def __init__(self, models: Models, controls: Sequence[AnyControlNetwork], work: Work) -> None:
        """Find the largest chunks that fit into the limit.

        Args:
            models: Networks with a memory limit, as load_files returns them.
            controls: ControlNets and SparseCtrl networks, which are needed together with the UNet.
            work: The size of the job's passes.

        Raises:
            AnimateDiffV2VError: the limit is too small; the sentence names the smallest that
                would work.
        """
        assert models.bound is not None
        assert isinstance(models.text_encoder, ClipTextEncoder)
        assert isinstance(models.codec, VaeCodec)
        self._bound = models.bound
        text, vae = models.text_encoder.network, models.codec.vae
        networks: list[nn.Module] = [text, vae, models.unet, *controls]
        self._networks = {network: _OffloadedNetwork(network) for network in networks}
        self._of_phase: dict[Phase, list[nn.Module]] = {
            "encode": [text, vae],
            "sample": [models.unet, *controls],
            "decode_latents": [vae],
        }
        frames, chunks = self._choices(models, controls, work)
        self.frames_per_pass = frames
        """Frames that go through the VAE at a time."""
        codec = VaeCodec(vae, frames_per_pass=frames)
        self.models = replace(models, codec=codec, chunks=chunks)
        """The same networks, set to the sizes that fit."""

    def __enter__(self) -> OffloadedModels:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Move all networks back to main memory."""
        self.release()

    def release(self) -> None:
        """Move all networks back to main memory."""
        self._onload([])

    def begin(self, phase: Phase) -> None:
        """Move the networks of a phase to the device, and all others off it."""
        self._onload(self._of_phase[phase])

    def _onload(self, wanted: Sequence[nn.Module]) -> None:
        for network, offloaded in self._networks.items():
            if network not in wanted:
                offloaded.offload()
        if self._bound.device.type == "cuda":
            torch.cuda.empty_cache()  # cached blocks of other sizes are not reused
        for network in wanted:
            self._networks[network].onload(self._bound.device)

    def _choices(
        self, models: Models, controls: Sequence[AnyControlNetwork], work: Work
    ) -> tuple[int, ChunkSizes]:
        """Return the largest frames per pass of the VAE and chunks of the UNet that fit."""

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
        """Return the bytes of the weights on the device in a phase.

        On a CPU these are the weights of all networks: offloaded ones take the same memory.
        """
        on_cpu = self._bound.device.type == "cpu"
        return weight_bytes(*(self._networks if on_cpu else self._of_phase[phase]))


class _OffloadedNetwork:
    """A network whose weights stay where they are, and are copied to the device for a phase.

    Weights do not change, so offloading drops the copies and copies nothing back.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._offloaded_weights = network.state_dict()
        self._is_onloaded = False

    def onload(self, device: torch.device) -> None:
        if not self._is_onloaded:
            weights = {name: each.to(device) for name, each in self._offloaded_weights.items()}
            self._network.load_state_dict(weights, assign=True)
            lay_out_weights(self._network, device)
            self._is_onloaded = True

    def offload(self) -> None:
        if self._is_onloaded:
            self._network.load_state_dict(self._offloaded_weights, assign=True)
            self._is_onloaded = False


def _largest(
    choices: Sequence[Choice], needed: Callable[[Choice], int], max_bytes: int
) -> tuple[Choice, int]:
    """Return the first choice that needs at most `max_bytes`, or the last, and its bytes.

    Args:
        choices: The largest first.
        needed: Counts the bytes that a choice needs.
        max_bytes: The limit.
    """
    for choice in choices:
        size = needed(choice)
        if size <= max_bytes:
            break
    return choice, size


def _chunk_sizes(device: torch.device, work: Work) -> list[ChunkSizes]:
    """Return the sizes to try, from the device's default to the smallest."""
    default = ChunkSizes.default(device, pixels=work.pixels)
    most = min(default.tokens or MOST_TOKENS, MOST_TOKENS)
    tokens = _halved(most, FEWEST_TOKENS)[::2]  # counting for each takes a second or two
    # On a CPU as many passes run together as without a limit, which keeps the bits the same. On
    # other devices that only saves kernel launches, so it is given up before chunks get smaller.
    fewest = default.passes if device.type == "cpu" else 1
    together = [default, ChunkSizes(default.passes, tokens[0])]
    return list(dict.fromkeys([*together, *(ChunkSizes(fewest, count) for count in tokens)]))


def _halved(most: int, least: int) -> list[int]:
    """Return `most`, its half, its quarter, and so on, as long as it is `least` or more."""
    return [most >> halvings for halvings in range(most.bit_length()) if most >> halvings >= least]


def _refusal(bound: MemoryBound, needed: int, work: Work) -> str:
    smallest = math.ceil(needed / 1e6) / 1e3
    return (
        f"max_memory_gb is {bound.max_bytes / 1e9:g}; windows of {work.frames} frames of "
        f"{work.width}x{work.height} with these networks need at least {smallest:g}: use that or "
        "more, a smaller width and height, a shorter context window, or fp8_weights."
    )
