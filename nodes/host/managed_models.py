"""Networks under ComfyUI's memory manager."""

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
from .devices import Devices
from .progress import raise_if_interrupted

# Identifies how a network was made: fingerprints of files, and settings.
Origin = tuple[object, ...]


@dataclass(frozen=True)
class Origins:
    """The origin of each of a job's networks; equal origins make equal networks."""

    unet: Origin
    text_encoder: Origin
    vae: Origin

    def with_fp8_weights(self) -> Origins:
        """Return the origins with the UNet's weights in 8 bits."""
        return replace(self, unet=(*self.unet, "fp8"))


class _Resident(nn.Module):
    """Hides a network's read-only `device`: the patcher sets an attribute of that name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def of(network: nn.Module) -> _Resident:
        """Wrap a network in a class of the same name, which ComfyUI's log shows."""
        named: type[_Resident] = type(type(network).__name__, (_Resident,), {})
        return named(network)


class WholeModelPatcher(ModelPatcher):
    """A patcher that loads a network onto the device as a whole, or not at all.

    Only networks made of ComfyUI's own layers can compute while part of their weights is
    offloaded; these are not.
    """

    origin: Origin | None = None

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> Any:
        """Load everything, whatever the memory budget."""
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
    """A job's networks, each under ComfyUI's memory manager."""

    def __init__(
        self,
        models: Models,
        devices: Devices,
        *,
        origins: Origins | None = None,
        checkpoint: str = "",
        native: Any = None,
        is_patched: bool = False,
    ) -> None:
        """Wrap the networks of `models`, which are on `devices.offload` if they are new.

        The text encoder computes in float32, as ComfyUI's does. ComfyUI's own CLIP and VAE are not
        wrapped: ComfyUI manages them already.

        Args:
            models: the networks.
            devices: the devices and dtypes to use.
            origins: lets `ready_networks` find the networks again.
            checkpoint: the name of its file; empty for ComfyUI's own models.
            native: the MODEL that the UNet's weights are from, or None.
            is_patched: True if it has patches that act only if ComfyUI runs it.
        """
        self.models, self.checkpoint = models, checkpoint
        self.native, self.is_patched = native, is_patched
        self._devices, self._origins = devices, origins
        self._text: WholeModelPatcher | None = None
        self._vae: WholeModelPatcher | None = None
        offload = devices.offload
        origin = origins.unet if origins else None
        self._unet = patcher_of(models.unet, devices.unet, offload, origin)
        if isinstance(models.text_encoder, ClipTextEncoder):
            origin = origins.text_encoder if origins else None
            network = models.text_encoder.network
            self._text = patcher_of(network, devices.text_encoder, offload, origin)
            self._text.model.to(torch.float32)
        if isinstance(models.codec, VaeCodec):
            origin = origins.vae if origins else None
            self._vae = patcher_of(models.codec.vae, devices.vae, offload, origin)
            self._vae.model.to(devices.vae_dtype)

    def with_fp8_weights(self) -> ManagedModels:
        """Return the models with the UNet in 8 bits: a copy, or one that ComfyUI still holds.

        The original stays where it is; if it is a view of a file, it takes no memory. If ComfyUI
        runs a patched MODEL, nothing changes.
        """
        unet = self.models.unet
        if has_fp8_weights(unet) or self.is_patched:
            return self
        origins = self._origins and self._origins.with_fp8_weights()
        stored: Any = ready_network(origins.unet) if origins else None
        if stored is None:
            stored = _unmanaged(copy_in_fp8(unet)).to(self._devices.offload)
        # Not the original's unsampled latents: these weights would give slightly different ones.
        models = replace(self.models, unet=stored, unsampled_latents=LastResult())
        return ManagedModels(
            models,
            self._devices,
            origins=origins,
            checkpoint=self.checkpoint,
            native=self.native,
        )

    @property
    def text_channels(self) -> int:
        """Return the width of the tokens that the UNet attends to; 768 for Stable Diffusion 1.5."""
        return int(self.models.unet.unet.config.cross_attention_dim)

    @property
    def patcher(self) -> ModelPatcher:
        """The UNet's patcher, by which ComfyUI's cache knows that the value holds networks."""
        return self._unet

    def get_models(self) -> list[ModelPatcher]:
        """Return all patchers; ComfyUI counts their memory."""
        patchers = (self._unet, self._text, self._vae)
        return [patcher for patcher in patchers if patcher is not None]

    def get_ram_usage(self) -> int:
        """Return the size of the networks in bytes; ComfyUI's cache asks for it."""
        return sum(patcher.model_size() for patcher in self.get_models())

    def load_encoders(
        self, *, text: bool = True, vae: bool = True, frames: int, width: int, height: int
    ) -> None:
        """Load the text encoder and the VAE onto their devices, with room for their work.

        Args:
            text: load the text encoder; off when another one is used.
            vae: load the VAE; off when another one is used.
            frames: number of frames that the VAE gets at once; it may process fewer at a time.
            width: of the frames, in pixels.
            height: of the frames, in pixels.
        """
        wanted = (self._text if text else None, self._vae if vae else None)
        patchers = [patcher for patcher in wanted if patcher is not None]
        # The text encoder needs almost no working memory.
        one_frame = _vae_bytes(self._vae, width, height) if self._vae in patchers else 0
        _load(patchers, one_frame, min(frames, default_frames_per_pass(height, width)))

    def load_vae(self, *, frames: int, width: int, height: int) -> None:
        """Load the VAE onto its device, with room for its work on `frames` of this size."""
        self.load_encoders(text=False, frames=frames, width=width, height=height)

    def load_unet(
        self,
        *,
        frames: int,
        width: int,
        height: int,
        beside: Sequence[WholeModelPatcher] = (),
    ) -> None:
        """Load the UNet onto its device, with room for windows of `frames` of this size.

        Args:
            frames: number of frames in a window.
            width: of the frames, in pixels.
            height: of the frames, in pixels.
            beside: networks that run together with the UNet, such as ControlNets.
        """
        # One pass takes 0.01 MiB per latent pixel and byte of precision: ComfyUI's figure for
        # Stable Diffusion 1.5 with fused attention. The tensors counted here take 0.6 of that. Two
        # passes run together if there is room.
        itemsize = self.models.unet.dtype.itemsize
        one_pass = frames * (width // 8) * (height // 8) * itemsize * 0.01 * 1024**2
        _load([self._unet, *dict.fromkeys(beside)], one_pass, 2)

    def unload_unet(self) -> None:
        """Move the UNet off its device, so that its motion modules can be loaded alone."""
        others = [entry for entry in memory.current_loaded_models if entry.model is not self._unet]
        memory.free_memory(1e30, self._unet.load_device, others)


def ready_networks(origins: Origins) -> ReadyNetworks:
    """Find the networks of these origins that ComfyUI still holds on the device.

    Networks of other origins are released, since the caller is about to load their replacements.
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
    """Find the network of this origin that ComfyUI still holds on the device."""
    found = (entry.model.model.network for entry in _ours() if entry.model.origin == origin)
    return next(found, None)


def _unmanaged(network: nn.Module) -> nn.Module:
    """Remove from a copied network the attributes that ComfyUI's memory manager has set."""
    for module in network.modules():
        for name in [name for name in vars(module) if name.startswith("comfy_")]:
            delattr(module, name)
    return network


def as_result(tensor: Tensor) -> Tensor:
    """Move images or latents to the device and dtype that ComfyUI uses between nodes."""
    dtype = getattr(memory, "intermediate_dtype", lambda: torch.float32)()  # from 0.18 on
    return tensor.to(memory.intermediate_device(), dtype)


def _vae_bytes(vae: WholeModelPatcher, width: int, height: int) -> float:
    """Return the bytes that decoding a frame takes: ComfyUI's figure per pixel and dtype byte.

    The tensors alone take 768 of the 2178; the rest is room for the workspaces of convolutions.
    """
    itemsize: int = vae.model.network.dtype.itemsize
    return 2178 * width * height * itemsize


def patcher_of(
    network: nn.Module, compute: torch.device, offload: torch.device, origin: Origin | None
) -> WholeModelPatcher:
    """Return the patcher of a network: the one that ComfyUI holds, or a new one."""
    for entry in _ours():
        if entry.model.model.network is network:
            known: WholeModelPatcher = entry.model
            return known
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # Convolutions are spread evenly over a pass, so a cancel takes effect within it.
            layer.register_forward_pre_hook(_stop_if_interrupted)
    patcher = WholeModelPatcher(_Resident.of(network), compute, offload)
    patcher.origin = origin
    return patcher


def _stop_if_interrupted(_layer: nn.Module, _inputs: Any) -> None:
    # Compiled code cannot call this; the convolutions between compiled layers can.
    if not torch.compiler.is_compiling():
        raise_if_interrupted()


def _load(patchers: list[WholeModelPatcher], bytes_for_one: float, at_once: int) -> None:
    """Load networks with room for `at_once` units of work, or at least for one."""
    if not patchers:
        return
    memory.load_models_gpu(
        patchers,
        memory_required=at_once * bytes_for_one,
        minimum_memory_required=bytes_for_one,
    )
    _keep_while_loaded(patchers)


def _keep_while_loaded(patchers: list[WholeModelPatcher]) -> None:
    """Let ComfyUI's list of loaded models keep these patchers alive; it holds weak references.

    A node that runs again then finds them. They are freed when ComfyUI unloads them, to make room
    or on "Unload models". As that only covers the main device, others are not kept.
    """
    for entry in _ours():
        patcher = entry.model
        on_main_device = patcher.load_device == memory.get_torch_device()
        if patcher in patchers and patcher.origin is not None and on_main_device:
            entry.kept = patcher


def _ours() -> Iterator[Any]:
    """Yield the entries of ComfyUI's list of loaded models that are this pack's networks."""
    # A copy: the list shrinks when a network is released.
    for entry in list(memory.current_loaded_models):
        if isinstance(entry.model, WholeModelPatcher):
            yield entry
