"""ComfyUI's folders: models, input, output, temporary files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape, has_magic
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comfy.cli_args
import folder_paths

from ...api.storage.data_folder import OWN, DataFolder
from ...pipeline import AnimateDiffV2VError
from ...pipeline.video.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES

MOTION_MODULES = "animatediff_models"
MOTION_LORAS = "animatediff_motion_lora"
IP_ADAPTERS = "ipadapter"
# The bytes of a WebP file up to its flags, and the flag of an animation.
_WEBP_HEADER = 21
_ANIMATED = 0x02
_TINY_VAES = "vae_approx"
# How far below the input folder videos are listed.
_LEVELS = 3


def register_model_folders() -> None:
    """Register the model folders that packs share, and create missing ones."""
    for name in (MOTION_MODULES, MOTION_LORAS, IP_ADAPTERS):
        folder = Path(folder_paths.models_dir) / name
        folder_paths.add_model_folder_path(name, str(folder))
        folders, extensions = folder_paths.folder_names_and_paths[name]
        # A new folder has no extensions yet; ComfyUI would list every file in it.
        extensions = set(extensions) | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[name] = (folders, extensions)
        with suppress(OSError):  # read-only: files may still come from other folders
            folder.mkdir(parents=True, exist_ok=True)


def data_folder() -> Path:
    """Return the folder for this pack's own data, in ComfyUI's user folder."""
    return Path(folder_paths.get_user_directory()) / "animatediff_v2v"


def model_names(folder: str) -> list[str]:
    """List the model files of a ComfyUI folder, by the names that combos show."""
    return list(folder_paths.get_filename_list(folder))


def vae_names() -> list[str]:
    """List the files of VAEs, and of TAESD's decoder, which ComfyUI keeps elsewhere."""
    tiny = [name for name in model_names(_TINY_VAES) if name.startswith("taesd_decoder.")]
    return [*model_names("vae"), *tiny]


def model_path(folder: str, name: str) -> Path:
    """Return the path of a model file; raise AnimateDiffV2VError when it is not installed."""
    path = folder_paths.get_full_path(folder, name)
    if path is None and folder == "vae":
        path = folder_paths.get_full_path(_TINY_VAES, name)
    if path is None:
        raise AnimateDiffV2VError(
            f"{name!r} is not installed: put it into models/{folder}, or choose another file."
        )
    return Path(path)


def model_folders(name: str) -> list[Path]:
    """List the folders on disk behind one of ComfyUI's model folders."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(name)]


def lora_folders() -> list[Path]:
    """List the folders of LoRAs, and the one where the hosted API keeps downloaded LoRAs.

    The files in the latter are in none of ComfyUI's lists.
    """
    return [*model_folders("loras"), DataFolder(data_folder() / OWN).loras]


def embedding_folders() -> list[Path]:
    """List the folders of textual inversions that exist."""
    return [folder for folder in model_folders("embeddings") if folder.is_dir()]


def models_folder() -> Path:
    """Return ComfyUI's own folder of models, in which each kind has a folder."""
    return Path(folder_paths.models_dir)


def input_folder() -> Path:
    """Return ComfyUI's input folder."""
    return Path(folder_paths.get_input_directory())


def input_videos() -> list[str]:
    """List videos and folders of pictures in ComfyUI's input folder, by their names below it."""
    root = Path(folder_paths.get_input_directory())
    return sorted(path.relative_to(root).as_posix() for path in _videos_below(root, _LEVELS))


def _videos_below(folder: Path, levels: int) -> Iterator[Path]:
    holds_pictures = False
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir():
                if levels > 1:
                    yield from _videos_below(path, levels - 1)
            elif path.suffix.lower() in VIDEO_SUFFIXES or _is_animated_webp(path):
                yield path
            else:
                holds_pictures = holds_pictures or path.suffix.lower() in PICTURE_SUFFIXES
    if holds_pictures and levels < _LEVELS:
        yield folder


def _is_animated_webp(path: Path) -> bool:
    """Return whether the header of a WebP file says that it is animated."""
    if path.suffix.lower() != ".webp":
        return False
    with suppress(OSError), path.open("rb") as file:
        head = file.read(_WEBP_HEADER)
        return len(head) == _WEBP_HEADER and head[12:16] == b"VP8X" and bool(head[20] & _ANIMATED)
    return False


def input_path(name: str) -> Path:
    """Return the path of a file or folder in ComfyUI's input folder.

    Names that end in "[output]" or "[temp]" are in those folders, as ComfyUI writes them.

    Raises:
        AnimateDiffV2VError: there is nothing of that name, or it is outside of the folder.
    """
    try:
        path = Path(os.path.abspath(folder_paths.get_annotated_filepath(name)))  # noqa: PTH100
        if name and path.exists() and any(path.is_relative_to(each) for each in _folders()):
            return path
    except (OSError, ValueError):
        pass
    raise _no_video(name)


def clips_path(name: str) -> str:
    """Return the path of a file, folder or pattern below ComfyUI's input folder.

    Names that end in "[output]" or "[temp]" are in those folders, as ComfyUI writes them.

    Raises:
        AnimateDiffV2VError: none is named, or it is outside of these folders.
    """
    if not name.strip():
        raise AnimateDiffV2VError(
            "clips is empty; give a folder in ComfyUI's input folder, a pattern such as "
            "shots/*.mp4, or a table (.csv, .jsonl)."
        )
    try:
        path = Path(os.path.abspath(folder_paths.get_annotated_filepath(name.strip())))  # noqa: PTH100
        root = next((each for each in _folders() if path.is_relative_to(each)), None)
        if root is not None and (path.exists() or not has_magic(name)):
            return str(path)
    except (OSError, ValueError):
        root = None
    if root is None:
        raise AnimateDiffV2VError(
            f"clips is {name!r}, which is not in ComfyUI's input folder: move the clips there, or "
            "link their folder into it."
        )
    return str(Path(escape(root), path.relative_to(root)))


def path_in_folders(path: Path) -> Path | None:
    """Return a path without `..`, or None if it is in no folder from which graphs read.

    Links in these folders are followed: they are the owner's own.
    """
    plain = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
    return plain if any(plain.is_relative_to(each) for each in _folders()) else None


def batch_folder(name: str) -> Path:
    """Return the path of a folder in ComfyUI's output folder, which need not be there.

    Raises:
        AnimateDiffV2VError: none is named, or it is outside of the output folder.
    """
    root = Path(os.path.abspath(folder_paths.get_output_directory()))  # noqa: PTH100 - links stay
    path = Path(os.path.abspath(root / name.strip()))  # noqa: PTH100
    if path == root or not path.is_relative_to(root):
        raise AnimateDiffV2VError(
            f"output_folder is {name!r}; give a folder in ComfyUI's output folder, such as "
            "video/batch."
        )
    return path


def batch_file(path: Path) -> OutputFile:
    """Return a file below the output folder with the fields by which the frontend finds it."""
    root = Path(os.path.abspath(folder_paths.get_output_directory()))  # noqa: PTH100
    return OutputFile(path, path.parent.relative_to(root).as_posix(), is_temporary=False)


def _folders() -> list[str]:
    """Return the folders that hold what graphs read, links in their paths kept."""
    folders = (
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_temp_directory(),
    )
    return [os.path.abspath(each) for each in folders]  # noqa: PTH100


def uploaded_path(name: str) -> Path:
    """Return the path of a file in the input folder, for a name that comes from the network.

    Raises:
        AnimateDiffV2VError: when it is missing; with the same words when it is in another folder,
            so that callers cannot probe for files.
    """
    path = input_path(name).resolve()
    if not path.is_relative_to(Path(folder_paths.get_input_directory()).resolve()):
        raise _no_video(name)
    return path


def _no_video(name: str) -> AnimateDiffV2VError:
    if not name:
        return AnimateDiffV2VError(
            "No video is chosen: choose a file to upload, or press Get the miniature in a template."
        )
    return AnimateDiffV2VError(
        f"There is no video {name!r} in ComfyUI's input folder: upload one, or choose another."
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder in ComfyUI's temporary folder, and remove it at the end."""
    parent = Path(folder_paths.get_temp_directory())
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix="animatediff_v2v_") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class OutputFile:
    """The path of a result, and the fields by which the frontend finds it."""

    path: Path
    subfolder: str
    is_temporary: bool


def output_file(
    prefix: str, extension: str, *, width: int, height: int, save: bool = True
) -> OutputFile:
    """Choose the next free numbered name for `prefix` in the output (or temporary) folder."""
    root = folder_paths.get_output_directory() if save else folder_paths.get_temp_directory()
    # With a slash at the end, ComfyUI counts from 1 each time.
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix.rstrip("/\\"), root, width, height
    )
    path = Path(folder) / f"{name}_{counter:05}_{extension}"
    return OutputFile(path=path, subfolder=subfolder, is_temporary=not save)


def workflow_metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the metadata that lets ComfyUI restore the graph from a file."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    parts = dict(extra_pnginfo or {})
    if prompt is not None:
        # ComfyUI adds fingerprints to the graph; if queued again, they would hide changed files.
        parts["prompt"] = {
            node_id: {key: value for key, value in node.items() if key != "is_changed"}
            for node_id, node in prompt.items()
        }
    return {key: json.dumps(value) for key, value in parts.items()}
