"""Reads graphs out of files that ComfyUI and its packs write, and writes graphs as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.video.container import check_file, open_container

LARGEST_BYTES = 100_000_000
# Texts that hold a graph: the one with positions comes first.
_KEYS = ("workflow", "prompt")
# VideoHelperSuite's text in older videos, JSON with both graphs in it.
_COMMENT = "comment"
_EXIF_MAKE, _EXIF_MODEL = 0x010F, 0x0110


def read_graph(path: Path) -> Any:
    """Return the JSON of a graph, from a .json file or out of a picture or video.

    Pictures are PNG and WebP; videos are what PyAV opens, such as mp4, webm, mov and mkv.

    Raises:
        AnimateDiffV2VError: the file cannot be read or holds no graph.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be read: {error.strerror}; give another file."
        ) from error
    if head.startswith(b"\x89PNG") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return _first_graph(path, _picture_texts(path))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"[") or path.suffix.lower() == ".json":
        return _parsed(_text(path), path)
    with open_container(path) as container:
        return _first_graph(path, dict(container.metadata))


def _text(path: Path) -> str:
    if path.stat().st_size > LARGEST_BYTES:
        raise AnimateDiffV2VError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; graphs have at most "
            f"{LARGEST_BYTES / 1e6:.0f} MB. Give a file that ComfyUI saved."
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be read as text ({error}); give a graph that ComfyUI saved."
        ) from error


def _parsed(text: str, path: Path) -> Any:
    try:
        # Other packs write NaN, which is not JSON.
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise AnimateDiffV2VError(
            f"{path} is not JSON ({reason}); give a graph that ComfyUI saved."
        ) from error


def _picture_texts(path: Path) -> dict[str, str]:
    try:
        with Image.open(path) as image:
            image.load()
            texts = {key: _utf8(text) for key, text in image.info.items() if isinstance(text, str)}
            exif = image.getexif()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be read as a picture ({error}); give another file."
        ) from error
    for tag in (_EXIF_MAKE, _EXIF_MODEL):
        key, _, text = str(exif.get(tag, "")).partition(":")
        texts.setdefault(key.lower(), text)
    return texts


def _utf8(text: str) -> str:
    """Return a text that was read as Latin-1, as PNG says, but written as UTF-8, as packs do."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _first_graph(path: Path, texts: Mapping[str, str]) -> Any:
    """Return the first graph among a file's texts, whose names may have any case."""
    named = {key.lower(): text for key, text in texts.items()}
    for key in _KEYS:
        # Scripts that queue a prompt may leave the workflow empty.
        if named.get(key) and (graph := _parsed(named[key], path)):
            return graph
    comment = named.get(_COMMENT, "")
    if comment.lstrip().startswith("{"):
        inner = _parsed(comment, path)
        for key in _KEYS:
            graph = inner.get(key) if isinstance(inner, dict) else None
            if graph:
                return _parsed(graph, path) if isinstance(graph, str) else graph
    raise AnimateDiffV2VError(
        f"{path} holds no graph: ComfyUI puts one into what it saves, unless that was switched off "
        "or another program saved the file again. Give the graph's own .json."
    )


def write_graph(graph: Mapping[str, Any], path: Path) -> None:
    """Write a graph as JSON; the file appears only when it is complete.

    Raises:
        AnimateDiffV2VError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            text = json.dumps(graph, indent=1, ensure_ascii=False)
            part.write_bytes(text.encode("utf-8", "surrogatepass"))
            os.replace(part, path)  # noqa: PTH105 - replaces on Windows too
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be written: {error.strerror}; choose another folder or name."
        ) from error
