"""Suffixes of files that are read, for lists of files."""

from __future__ import annotations

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
# Other suffixes are read as well; these are in common use for what the containers hold.
VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "webm", "mov", "mkv", "avi", "m4v", "gif", "mpg", "mpeg", "ts", "mts", "m2ts"),
        *("wmv", "asf", "flv", "ogv", "3gp", "mxf", "nut", "dv", "y4m", "ivf", "vob", "apng"),
    )
)
