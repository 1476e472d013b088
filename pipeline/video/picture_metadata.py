"""Metadata in WebP and PNG files, which ffmpeg leaves out, where ComfyUI stores its graphs.

Sources: https://developers.google.com/speed/webp/docs/riff_container, the TIFF 6.0 specification,
and https://www.w3.org/TR/png-3/#11textinfo.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

# TIFF tags Model and Make, where ComfyUI stores its texts as "key:text"; the next ones count down.
_FIRST_TAG = 0x0110
_ASCII = 2
_WEBP_ALPHA, _WEBP_EXIF = 0x10, 0x08
_RIFF_BYTES, _PNG_BYTES = 12, 8


def add_webp_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Append texts to a WebP file as EXIF data; the pictures stay as they are."""
    data = path.read_bytes()
    chunks = bytearray(data[_RIFF_BYTES:])
    if chunks[:4] != b"VP8X":
        chunks[:0] = _extended_header(path)
    chunks[8] |= _WEBP_EXIF
    chunks += _riff_chunk(b"EXIF", _exif(metadata))
    size = struct.pack("<I", len(b"WEBP") + len(chunks))
    path.write_bytes(b"RIFF" + size + b"WEBP" + chunks)


def add_png_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add texts to a PNG file, before its picture, which stays as it is."""
    data = path.read_bytes()
    # The header chunk comes first: length, name, 13 bytes, checksum.
    start = _PNG_BYTES + 25
    texts = b"".join(_png_text(key, text) for key, text in metadata.items())
    path.write_bytes(data[:start] + texts + data[start:])


def _extended_header(path: Path) -> bytes:
    """Return the chunk that a WebP file of a single picture lacks; only files with it have EXIF."""
    with Image.open(path) as picture:
        alpha = _WEBP_ALPHA if picture.mode == "RGBA" else 0
        sides = [(side - 1).to_bytes(3, "little") for side in picture.size]
    return _riff_chunk(b"VP8X", bytes([alpha, 0, 0, 0]) + b"".join(sides))


def _riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _exif(metadata: Mapping[str, str]) -> bytes:
    """Return TIFF data with one directory of texts, whose tags must be in ascending order."""
    # Four bytes or less would have to be in the directory.
    pairs = reversed([*metadata.items()])
    texts = [f"{key}:{text}".encode().ljust(4, b"\0") + b"\0" for key, text in pairs]
    first = _FIRST_TAG + 1 - len(texts)
    # The header has 8 bytes, the directory a count, 12 for each text, and the next one's offset.
    offset = 8 + 2 + 12 * len(texts) + 4
    entries = bytearray(struct.pack("<H", len(texts)))
    for number, text in enumerate(texts):
        entries += struct.pack("<HHII", first + number, _ASCII, len(text), offset)
        offset += len(text)
    return b"II*\0" + struct.pack("<I", 8) + entries + b"\0\0\0\0" + b"".join(texts)


def _png_text(key: str, text: str) -> bytes:
    if text.isascii():
        name, data = b"tEXt", key.encode("latin-1") + b"\0" + text.encode("ascii")
    else:
        # Not compressed, in no language, without a translated key.
        name, data = b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
