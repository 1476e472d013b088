"""The job's networks in the care of ComfyUI's memory manager."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...pipeline import Models
from ...pipeline.models import ReadyNetworks
from ...pipeline.models.fp8_weights import copy_in_fp8, has_fp8_weights
from ...pipeline.models.last_result import LastResult
from ...pipeline.models.ops.select import lay_out_weights
from ...pipeline.models.text_encoder import ClipTextEncoder
from ...pipeline.models.vae import VaeCodec, default_frames_per_pass
from .devices import Places
from .progress import raise_if_interrupted

# What a network was made of: fingerprints of files, and settings.
Origin = tuple[object, ...]


@dataclass(frozen=True)
class Origins:
    """What each of a job's networks is made of; equal origins make equal networks."""

    unet: Origin
    text_encoder: Origin
    vae: Origin

    def with_fp8_weights(self) -> Origins:
        """The same with the UNet's weights in 8 bits."""
        return replace(self, unet=(*self.unet, "fp8"))


class _Resident(nn.Module):
    """Hides a network's read-only `device`: the patcher keeps an attribute of that name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def of(network: nn.Module) -> _Resident:
        """Wrap a network under its own name, which ComfyUI's log mentions."""
        named: type[_Resident] = type(type(network).__name__, (_Resident,), {})
        return named(network)


class WholeModelPatcher(ModelPatcher):
    """Makes a network known to ComfyUI's memory manager: on the device as a whole, or not at all.

    The networks are not built from ComfyUI's layers, which alone can compute with half their
    weights elsewhere.
    """

    origin: Origin | None = None

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> Any:
        """Load everything, whatever the budget says."""
        del extra_memory
        taken = super().partially_load(device_to, 1e32, force_patch_weights=force_patch_weights)
        lay_out_weights(self.model, device_to)
        return taken

    def partially_unload(
        self, device_to: Any, memory_to_free: float = 0, force_patch_weights: bool = False
    ) -> int:
        """Free nothing, so that the manager unloads the whole network instead."""
        del device_to, memory_to_free, force_patch_weights
        return 0


class ManagedModels:
    """A job's networks, each known to ComfyUI's memory manager."""

    def __init__(self, models: Models, places: Places, *, origins: Origins | None = None) -> None:
        """Take over `models`, which are on `places.waiting` if they are new.

        origins: makes the networks findable for `ready_networks`.

        The text encoder computes in float32, as ComfyUI's does. ComfyUI's own CLIP and VAE among
        them stay in its care.
        """
        self.models = models
        self._places, self._origins = places, origins
        self._text: WholeModelPatcher | None = None
        self._vae: WholeModelPatcher | None = None
        wait = places.waiting
        origin = origins.unet if origins else None
        self._unet = patcher_of(models.unet, places.unet, wait, origin)
        if isinstance(models.text_encoder, ClipTextEncoder):
            origin = origins.text_encoder if origins else None
            network = models.text_encoder.network
            self._text = patcher_of(network, places.text_encoder, wait, origin)
            self._text.model.to(torch.float32)
        if isinstance(models.codec, VaeCodec):
            origin = origins.vae if origins else None
            self._vae = patcher_of(models.codec.vae, places.vae, wait, origin)
            self._vae.model.to(places.vae_dtype)

    def with_fp8_weights(self) -> ManagedModels:
        """The same with the UNet's weights in 8 bits: a copy, or the one that ComfyUI still has.

        The original waits where it is, which for files is no memory: it is a view of theirs.
        """
        unet = self.models.unet
        if has_fp8_weights(unet):
            return self
        origins = self._origins and self._origins.with_fp8_weights()
        stored: Any = ready_network(origins.unet) if origins else None
        if stored is None:
            stored = _unmanaged(copy_in_fp8(unet)).to(self._places.waiting)
        # What the exact network has unsampled is not what this one would.
        models = replace(self.models, unet=stored, unsampled_clips=LastResult())
        return ManagedModels(models, self._places, origins=origins)

    @property
    def text_channels(self) -> int:
        """Width of the tokens that the UNet attends to; 768 for Stable Diffusion 1.5."""
        return int(self.models.unet.unet.config.cross_attention_dim)

    @property
    def patcher(self) -> ModelPatcher:
        """By this ComfyUI's cache knows that the value holds networks."""
        return self._unet

    def get_models(self) -> list[ModelPatcher]:
        """All patchers, for ComfyUI's accounting."""
        patchers = (self._unet, self._text, self._vae)
        return [patcher for patcher in patchers if patcher is not None]

    def get_ram_usage(self) -> int:
        """Bytes that the networks take, for ComfyUI's cache."""
        return sum(patcher.model_size() for patcher in self.get_models())

    def load_encoders(
        self, *, text: bool = True, vae: bool = True, frames: int, width: int, height: int
    ) -> None:
        """Bring what encodes prompts and frames to its device, with room for its work.

        text, vae: off where another one takes its place.
        frames: that are handed to the VAE together, of this size; it takes fewer at a time.
        """
        wanted = (self._text if text else None, self._vae if vae else None)
        patchers = [patcher for patcher in wanted if patcher is not None]
        # The text encoder's work takes next to no memory.
        one_frame = _vae_bytes(self._vae, width, height) if self._vae in patchers else 0
        _load(patchers, one_frame, min(frames, default_frames_per_pass(height, width)))

    def load_vae(self, *, frames: int, width: int, height: int) -> None:
        """Bring the VAE to its device, with room for its work on `frames` of this size."""
        self.load_encoders(text=False, frames=frames, width=width, height=height)

    def load_unet(
        self,
        *,
        frames: int,
        width: int,
        height: int,
        beside: Sequence[WholeModelPatcher] = (),
    ) -> None:
        """Bring the UNet to its device, with room for windows of `frames` of this size.

        beside: networks that work together with it, ControlNets for instance.
        """
        # Of a pass: 0.01 MiB for each latent pixel and byte of precision, ComfyUI's figure for
        # Stable Diffusion 1.5 with fused attention; our tensors take 0.6 of it, by counting. Two
        # passes go through together if they can.
        itemsize = self.models.unet.dtype.itemsize
        one_pass = frames * (width // 8) * (height // 8) * itemsize * 0.01 * 1024**2
        _load([self._unet, *dict.fromkeys(beside)], one_pass, 2)


def ready_networks(origins: Origins) -> ReadyNetworks:
    """Find the networks of these origins among those that ComfyUI still has on the device.

    The ones of other origins are let go: whoever asks is about to load their successors.
    """
    found: dict[Origin, Any] = {}
    for entry in _ours():
        origin = entry.model.origin
        if origin in (origins.unet, origins.text_encoder, origins.vae):
            found[origin] = entry.model.model.network
        else:
            entry.kept = None
    return ReadyNetworks(
        unet=found.get(origins.unet),
        text_model=found.get(origins.text_encoder),
        vae=found.get(origins.vae),
    )


def ready_network(origin: Origin) -> nn.Module | None:
    """Find the network of this origin among those that ComfyUI still has on the device."""
    found = (entry.model.model.network for entry in _ours() if entry.model.origin == origin)
    return next(found, None)


def _unmanaged(network: nn.Module) -> nn.Module:
    """A copied network without the notes that ComfyUI's memory manager has left on its original."""
    for module in network.modules():
        for name in [name for name in vars(module) if name.startswith("comfy_")]:
            delattr(module, name)
    return network


def as_result(tensor: Tensor) -> Tensor:
    """Images or latents where ComfyUI wants them between nodes, and in its precision."""
    dtype = getattr(memory, "intermediate_dtype", lambda: torch.float32)()  # from 0.18 on
    return tensor.to(memory.intermediate_device(), dtype)


def _vae_bytes(vae: WholeModelPatcher, width: int, height: int) -> float:
    """For a frame: ComfyUI's figure for decoding, for each pixel and byte of precision.

    By counting, tensors take 768; the rest is room for the workspaces of convolutions.
    """
    itemsize: int = vae.model.network.dtype.itemsize
    return 2178 * width * height * itemsize


def patcher_of(
    network: nn.Module, compute: torch.device, wait: torch.device, origin: Origin | None
) -> WholeModelPatcher:
    """The patcher of a network, which is a new one if ComfyUI does not have it yet."""
    for entry in _ours():
        if entry.model.model.network is network:
            known: WholeModelPatcher = entry.model
            return known
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # The heavy work is spread evenly between them: a cancel need not wait for a pass.
            layer.register_forward_pre_hook(_stop_if_interrupted)
    patcher = WholeModelPatcher(_Resident.of(network), compute, wait)
    patcher.origin = origin
    return patcher


def _stop_if_interrupted(_layer: nn.Module, _inputs: Any) -> None:
    # Compiled code has no place for it; the convolutions between compiled layers do.
    if not torch.compiler.is_compiling():
        raise_if_interrupted()


def _load(patchers: list[WholeModelPatcher], bytes_for_one: float, at_once: int) -> None:
    """Bring networks to their devices, with room for as much work at once, for one if need be."""
    if not patchers:
        return
    memory.load_models_gpu(
        patchers,
        memory_required=at_once * bytes_for_one,
        minimum_memory_required=bytes_for_one,
    )
    _keep_while_loaded(patchers)


def _keep_while_loaded(patchers: list[WholeModelPatcher]) -> None:
    """Let ComfyUI's own list of loaded models hold these, which by itself it does not.

    So a node that runs again finds them, and they go when ComfyUI unloads them: for other models,
    and for "Unload models", which looks at the main device alone.
    """
    for entry in _ours():
        patcher = entry.model
        on_main_device = patcher.load_device == memory.get_torch_device()
        if patcher in patchers and patcher.origin is not None and on_main_device:
            entry.kept = patcher


def _ours() -> Iterator[Any]:
    """Entries of ComfyUI's list of loaded models that are this pack's networks."""
    # A copy: the list shortens by itself when a network is let go.
    for entry in list(memory.current_loaded_models):
        if isinstance(entry.model, WholeModelPatcher):
            yield entry
