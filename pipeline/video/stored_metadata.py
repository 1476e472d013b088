"""Texts stored in a finished video, read again."""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image

from ..errors import AnimateDiffV2VError
from .container import open_container
from .pictures import is_pictures, picture_files


def stored_text(path: Path, key: str) -> str | None:
    """Return the text that a video's metadata has for a key; None if it has none.

    Matroska writes keys in capitals, so their case is ignored. Files that cannot be read have no
    texts.
    """
    try:
        return _texts(path).get(key.lower())
    except (AnimateDiffV2VError, OSError, SyntaxError, ValueError, av.error.FFmpegError):
        return None


def _texts(path: Path) -> dict[str, str]:
    if is_pictures(path):
        with Image.open(picture_files(path)[0] if path.is_dir() else path) as picture:
            # WebP holds "key:text" in tags of EXIF; see picture_metadata.
            tags = [each for each in picture.getexif().values() if isinstance(each, str)]
            pairs = dict(each.partition(":")[::2] for each in tags)
            pairs |= {name: text for name, text in picture.info.items() if isinstance(text, str)}
    else:
        with open_container(path) as container:
            pairs = dict(container.metadata)
    return {name.lower(): text.rstrip("\0") for name, text in pairs.items()}
