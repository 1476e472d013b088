"""The only place that talks to ComfyUI's internals.

Model folders, files for input and output, memory manager, precision, progress, cancel, previews,
and ComfyUI's own CLIP and VAE as the pipeline's text encoder and latent codec.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comfy.cli_args
import comfy.latent_formats
import comfy.lora
import comfy.model_management as memory
import comfy.model_sampling
import comfy.utils
import folder_paths
import latent_preview
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import InputImpl
from server import PromptServer
from torch import Tensor, nn

from ..pipeline import AnimateDiffV2VError, Models, Progress
from ..pipeline.models import LatentCodec, TextEncoder
from ..pipeline.models.latent_codec import VaeCodec
from ..pipeline.models.text_encoder import ClipTextEncoder

logger = logging.getLogger(__name__)

MOTION_MODULES = "animatediff_models"
MOTION_LORAS = "animatediff_motion_lora"
VIDEO_EXTENSIONS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")

# --- files -------------------------------------------------------------------------------------


def register_model_folders() -> None:
    """Add the model folders that AnimateDiff packs share, and make them where they are missing."""
    for name in (MOTION_MODULES, MOTION_LORAS):
        folder = Path(folder_paths.models_dir) / name
        folder_paths.add_model_folder_path(name, str(folder))
        folders, extensions = folder_paths.folder_names_and_paths[name]
        # A folder of its own has no extensions yet, which would list every file in it.
        extensions = set(extensions) | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[name] = (folders, extensions)
        with suppress(OSError):  # a read-only place can still be filled from elsewhere
            folder.mkdir(parents=True, exist_ok=True)


def model_names(folder: str) -> list[str]:
    """List the model files of a ComfyUI folder, by the names that combos show."""
    return list(folder_paths.get_filename_list(folder))


def model_path(folder: str, name: str) -> Path:
    """Find a model file; raises AnimateDiffV2VError when it is not installed."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise AnimateDiffV2VError(
            f"{name!r} is not installed: put it into models/{folder}, or choose another file."
        )
    return Path(path)


def model_folders(name: str) -> list[Path]:
    """List the folders on disk behind one of ComfyUI's model folders."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(name)]


def embedding_folders() -> list[Path]:
    """List the folders of textual inversions that exist."""
    return [folder for folder in model_folders("embeddings") if folder.is_dir()]


def input_videos() -> list[str]:
    """List the videos in ComfyUI's input folder."""
    folder = Path(folder_paths.get_input_directory())
    return sorted(each.name for each in folder.iterdir() if each.suffix.lower() in VIDEO_EXTENSIONS)


def input_path(name: str) -> Path:
    """Find an uploaded file; raises AnimateDiffV2VError when it is not there."""
    if not name or not folder_paths.exists_annotated_filepath(name):
        raise _no_video(name)
    return Path(folder_paths.get_annotated_filepath(name))


def uploaded_path(name: str) -> Path:
    """Find a file for somebody at the other end of the network: in the input folder alone.

    Raises AnimateDiffV2VError when it is not there, in the same words when it is elsewhere.
    """
    path = input_path(name).resolve()
    if not path.is_relative_to(Path(folder_paths.get_input_directory()).resolve()):
        raise _no_video(name)
    return path


def _no_video(name: str) -> AnimateDiffV2VError:
    return AnimateDiffV2VError(
        f"There is no video {name!r} in ComfyUI's input folder: upload one, or choose another."
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in ComfyUI's temporary one, and remove it with what is in it."""
    parent = Path(folder_paths.get_temp_directory())
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="animatediff_v2v_") as folder:
        yield Path(folder)


def trim_window(video: Any) -> tuple[float, float]:
    """Start and duration, in seconds of its file, of a VIDEO; a duration of 0 is the rest."""
    if hasattr(video, "get_active_trim_window"):
        start, duration = video.get_active_trim_window()
        return float(start), float(duration)
    # Before 0.23 ComfyUI trims, and keeps to itself where.
    start = getattr(video, "_VideoFromFile__start_time", 0.0)
    duration = getattr(video, "_VideoFromFile__duration", 0.0)
    if start < 0:  # counted from the end
        whole = InputImpl.VideoFromFile(video.get_stream_source())
        start = max(0.0, whole.get_duration() + start)
    return float(start), float(duration)


@dataclass(frozen=True)
class OutputFile:
    """Where a result goes, and how the frontend finds it."""

    path: Path
    subfolder: str
    is_temporary: bool


def output_file(
    prefix: str, extension: str, *, width: int, height: int, save: bool = True
) -> OutputFile:
    """Choose the next free numbered name for `prefix` in the output (or temporary) folder."""
    root = folder_paths.get_output_directory() if save else folder_paths.get_temp_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, root, width, height
    )
    path = Path(folder) / f"{name}_{counter:05}_{extension}"
    return OutputFile(path=path, subfolder=subfolder, is_temporary=not save)


def workflow_metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> dict[str, str]:
    """What to store in a file so that dropping it on ComfyUI brings the graph back."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    parts = dict(extra_pnginfo or {})
    if prompt is not None:
        # ComfyUI leaves its fingerprints in the graph; queued again they would hide changed files.
        parts["prompt"] = {
            node_id: {key: value for key, value in node.items() if key != "is_changed"}
            for node_id, node in prompt.items()
        }
    return {key: json.dumps(value) for key, value in parts.items()}


def add_get_route(path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Answer GET requests for a path of ComfyUI's server."""
    PromptServer.instance.routes.get(path)(answer)


# --- memory ------------------------------------------------------------------------------------


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

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> Any:
        """Load everything, whatever the budget says."""
        del extra_memory
        return super().partially_load(device_to, 1e32, force_patch_weights=force_patch_weights)

    def partially_unload(self, device_to: Any, memory_to_free: float = 0, **_: Any) -> int:
        """Free nothing, so that the manager unloads the whole network instead."""
        del device_to, memory_to_free
        return 0


@dataclass(frozen=True)
class Places:
    """Where ComfyUI wants networks to compute and to wait, and in which precision."""

    unet: torch.device
    unet_dtype: torch.dtype
    text_encoder: torch.device
    vae: torch.device
    vae_dtype: torch.dtype
    waiting: torch.device

    @staticmethod
    def chosen() -> Places:
        """Ask ComfyUI, which knows the machine and the flags that it was started with."""
        unet = memory.get_torch_device()
        vae = memory.vae_device()
        return Places(
            unet=unet,
            unet_dtype=_unet_dtype(unet),
            text_encoder=memory.text_encoder_device(),
            vae=vae,
            # ComfyUI's own choice for this VAE: in float16 some of them give black pictures.
            vae_dtype=memory.vae_dtype(vae, [torch.bfloat16, torch.float32]),
            waiting=memory.unet_offload_device(),
        )


def _unet_dtype(device: torch.device) -> torch.dtype:
    supported = [torch.float16, torch.bfloat16, torch.float32]
    stored = memory.unet_dtype(device=device, supported_dtypes=supported)
    computed: torch.dtype = memory.unet_manual_cast(stored, device, supported) or stored
    if computed != stored:
        logger.info(
            "ComfyUI asks for weights in %s; AnimateDiff V2V keeps them as it computes, in %s.",
            stored, computed,
        )  # fmt: skip
    return computed


class ManagedModels:
    """A job's networks, each known to ComfyUI's memory manager."""

    def __init__(self, models: Models, places: Places) -> None:
        """Take over freshly loaded `models`, which are on `places.waiting`.

        The text encoder computes in float32, as ComfyUI's does. ComfyUI's own CLIP and VAE among
        them stay in its care.
        """
        self.models = models
        self._unet = WholeModelPatcher(_Resident.of(models.unet), places.unet, places.waiting)
        self._text: WholeModelPatcher | None = None
        self._vae: WholeModelPatcher | None = None
        if isinstance(models.text_encoder, ClipTextEncoder):
            text = _Resident.of(models.text_encoder.network).to(torch.float32)
            self._text = WholeModelPatcher(text, places.text_encoder, places.waiting)
        if isinstance(models.codec, VaeCodec):
            vae = _Resident.of(models.codec.vae).to(places.vae_dtype)
            self._vae = WholeModelPatcher(vae, places.vae, places.waiting)

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

    def load_text_encoder(self) -> None:
        """Bring the text encoder to its device; its work takes next to no memory."""
        if self._text is not None:
            memory.load_models_gpu([self._text])

    def load_unet(self, *, frames: int, width: int, height: int) -> None:
        """Bring the UNet to its device, with room for windows of `frames` of this size."""
        # Of a pass: 0.01 MiB for each latent pixel and byte of precision, ComfyUI's figure for
        # Stable Diffusion 1.5 with fused attention. Two passes go through together if they can.
        itemsize = self.models.unet.dtype.itemsize
        one_pass = frames * (width // 8) * (height // 8) * itemsize * 0.01 * 1024**2
        memory.load_models_gpu(
            [self._unet], memory_required=2 * one_pass, minimum_memory_required=one_pass
        )

    def load_vae(self, *, frames: int, width: int, height: int) -> None:
        """Bring the VAE to its device, with room for `frames` of this size at a time."""
        if self._vae is None:
            return
        # Bytes for each pixel and byte of precision: ComfyUI's figure for decoding, the larger one.
        itemsize = self.models.codec.vae.dtype.itemsize
        one_frame = 2178 * width * height * itemsize
        memory.load_models_gpu(
            [self._vae], memory_required=frames * one_frame, minimum_memory_required=one_frame
        )


def unet_weights(model: Any) -> dict[str, Tensor]:
    """The UNet of a MODEL under the names of a checkpoint, with its LoRAs and merges in it.

    Raises AnimateDiffV2VError when the MODEL predicts something else than noise.
    """
    sampling = model.get_model_object("model_sampling")
    predicts_noise = isinstance(sampling, comfy.model_sampling.EPS)
    if not predicts_noise or isinstance(sampling, comfy.model_sampling.V_PREDICTION):
        raise AnimateDiffV2VError(
            "The connected MODEL does not predict noise, as Stable Diffusion 1.5 does: "
            "connect one of Stable Diffusion 1.5."
        )
    prefix = "diffusion_model."
    merged = {}
    for name, (stored, *patches) in model.get_key_patches(prefix).items():
        weight, convert = stored
        weight = convert(weight.cpu(), inplace=False)
        if patches:
            patched = weight.to(torch.float32, copy=True)
            weight = comfy.lora.calculate_weight(patches, patched, name).to(weight.dtype)
        merged[f"model.{name}"] = weight
    return merged


def has_weight_patches(model: Any) -> bool:
    """Whether a MODEL carries LoRAs or other patches of its weights."""
    return bool(model.patches)


def result_device() -> torch.device:
    """Where ComfyUI wants images and latents that go from node to node."""
    device: torch.device = memory.intermediate_device()
    return device


# --- progress, cancel, previews ----------------------------------------------------------------

PROGRESS_UNITS = 1000


def raise_if_interrupted() -> bool:
    """The pipeline's cancel callback: raises ComfyUI's own interrupt, which ends the prompt."""
    memory.throw_exception_if_processing_interrupted()
    return False


class NodeProgress:
    """The pipeline's progress callback: the bar of the running node, and a preview in it."""

    def __init__(self) -> None:
        """Begin at nothing done."""
        self._bar = comfy.utils.ProgressBar(PROGRESS_UNITS)
        self._previewer = latent_preview.get_previewer(
            memory.get_torch_device(), comfy.latent_formats.SD15()
        )

    def __call__(self, progress: Progress) -> None:
        """Show how far the job is."""
        done = round(progress.fraction * PROGRESS_UNITS)
        self._bar.update_absolute(done, PROGRESS_UNITS, self._preview(progress.preview))

    def share(self, fraction: float) -> None:
        """Show that this share, 0 to 1, of a node without phases is done."""
        self._bar.update_absolute(round(fraction * PROGRESS_UNITS), PROGRESS_UNITS)

    def _preview(self, latents: Tensor | None) -> tuple[str, Any, int] | None:
        if latents is None or self._previewer is None:
            return None
        first = latents[:1].to(memory.get_torch_device())
        preview: tuple[str, Any, int] = self._previewer.decode_latent_to_preview_image(
            "JPEG", first
        )
        return preview


# --- ComfyUI's own CLIP and VAE ----------------------------------------------------------------


class HostTextEncoder(TextEncoder):
    """ComfyUI's CLIP as the pipeline's text encoder; it manages its memory itself."""

    def __init__(self, clip: Any) -> None:
        """Use a value of ComfyUI's CLIP type."""
        self._clip = clip

    def encode(self, prompt: str) -> Tensor:
        """Give [1, 77 * chunks, channels], float32, on the CPU."""
        encoded: Tensor = self._clip.encode_from_tokens(self._clip.tokenize(prompt))
        return encoded.float().cpu()


class HostCodec(LatentCodec):
    """ComfyUI's VAE as the pipeline's latent codec; it manages its memory itself."""

    FRAMES_AT_ONCE = 8

    def __init__(self, vae: Any) -> None:
        """Use a value of ComfyUI's VAE type.

        Raises AnimateDiffV2VError when it is another model's.
        """
        channels = vae.latent_channels
        if channels != 4 or vae.latent_dim != 2:
            raise AnimateDiffV2VError(
                f"The connected VAE gives latents of {channels} channels; AnimateDiff needs one "
                "for Stable Diffusion 1.5, with 4, such as vae-ft-mse-840000-ema-pruned."
            )
        self._vae = vae

    def encode(self, frames: Tensor) -> Tensor:
        """Give the latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        frames: [n, height, width, 3], uint8 or float in 0..1.
        """
        return torch.cat([self._encoded(part) for part in self._parts(frames)])

    def _encoded(self, frames: Tensor) -> Tensor:
        pixels = frames.float() / 255 if frames.dtype == torch.uint8 else frames
        # ComfyUI's VAE draws from its posterior with the global generator.
        devices = [self._vae.device] if self._vae.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            latents: Tensor = self._vae.encode(pixels)
        return latents.float().cpu()

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Give the frames of `latents` in order, as chunks [n, height, width, 3], float32, 0..1."""
        for part in self._parts(latents):
            yield self._vae.decode(part).float().cpu()

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.split(self.FRAMES_AT_ONCE)
