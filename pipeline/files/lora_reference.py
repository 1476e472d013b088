"""Finding the file that a LoRA's name, path or URL refers to. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ..errors import AnimateDiffV2VError

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_NAME_ON_THE_HUB = "pytorch_lora_weights.safetensors"  # what diffusers calls a LoRA


def find_lora(reference: str, *, folders: Sequence[Path]) -> Path:
    """Find a LoRA that is already on this machine.

    Args:
        reference: a path, a name in one of the folders (its suffix may be left out), the
            URL of a file, or a repository on Hugging Face, ``owner/name``, with or without
            a file in it.
        folders: the folders of LoRAs, the default one first.

    Raises:
        AnimateDiffV2VError: there is no such file; names the command that would download it.
    """
    for candidate in _candidates(reference, folders):
        if candidate.is_file():
            return candidate
    kept = folders[0] if folders else Path()
    command = _fetching(reference, kept)
    if command:
        raise AnimateDiffV2VError(
            f"The LoRA {reference} is not on this machine, and nothing is downloaded here. "
            f"Fetch it with: {command}"
        )
    listed = " or ".join(str(folder) for folder in folders)
    where = f"neither as a path nor in {listed}" if listed else "check the path"
    raise AnimateDiffV2VError(f"There is no LoRA {reference}: {where}.")


def _candidates(reference: str, folders: Sequence[Path]) -> Iterator[Path]:
    if _is_address(reference):
        name = unquote(PurePosixPath(urlsplit(reference).path).name)
        yield from (folder / name for folder in folders if name)
        return
    reference = reference.replace("\\", "/")  # stacks saved on Windows have backslashes
    yield Path(reference)
    for folder in folders:
        yield folder / reference
        yield from (folder / f"{reference}{suffix}" for suffix in _SUFFIXES)
        name = PurePosixPath(reference).name
        yield from (folder / name, folder / name / _NAME_ON_THE_HUB)
        yield from (folder / f"{name}{suffix}" for suffix in _SUFFIXES)


def _is_address(reference: str) -> bool:
    return reference.lower().startswith(("http://", "https://"))


def _fetching(reference: str, folder: Path) -> str | None:
    """Return the command that downloads it; None if the reference is neither URL nor repository."""
    if _is_address(reference):
        name = unquote(PurePosixPath(urlsplit(reference).path).name) or "lora.safetensors"
        return f'curl -L -o "{folder / name}" "{reference}"'
    owner, _, rest = reference.partition("/")
    name, _, file = rest.partition("/")
    if not owner or not name or owner.startswith(".") or PurePosixPath(rest).is_absolute():
        return None
    if file:
        return f'hf download {owner}/{name} {file} --local-dir "{folder}"'
    if PurePosixPath(name).suffix in _SUFFIXES:
        return None  # a file in a subfolder
    return f'hf download {owner}/{name} --local-dir "{folder / name}"'
