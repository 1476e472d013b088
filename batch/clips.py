"""The clips of a batch: from folders, files, patterns and tables."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.video.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from .remote import RemoteInputs, is_url

TABLE_SUFFIXES = {".csv", ".jsonl"}


def switch(name: str, value: str) -> bool:
    """Return what a cell of a table says of an option that is on or off.

    Raises:
        AnimateDiffV2VError: it says something else; the sentence has the option's name.
    """
    if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise AnimateDiffV2VError(f"{name} is {value!r}; it can be true or false.")
    return value.lower() in ("true", "1", "yes")


@dataclass(frozen=True)
class Clip:
    """A clip to restyle."""

    path: Path
    name: Path
    """The name of its result in the output folder, without a suffix."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of its own, from a table."""
    origin: str = ""
    """The line of the table, for error sentences."""


def find_clips(
    inputs: Iterable[str | Path], *, out: Path, remote: RemoteInputs | None = None
) -> list[Clip]:
    """Return the clips that inputs name, in order, each with a name of its own.

    Args:
        inputs: Videos, folders with videos in them (at any depth; a folder with pictures alone is
            a clip), patterns such as `shots/*.mov`, and tables (.csv, .jsonl) with a column `input`
            whose paths are relative to the table.
        out: The output folder, in which no clips are looked for.
        remote: Copies what is given as a URL; None takes URLs for paths.

    Raises:
        AnimateDiffV2VError: there is no such file, no clip in a folder, or a table is malformed.
    """
    found = [clip for each in inputs for clip in _of_input(str(each), out.absolute(), remote)]
    return list(_with_own_names(found))


def _of_input(given: str, out: Path, remote: RemoteInputs | None) -> Iterator[Clip]:
    path = Path(given)
    if remote is not None and is_url(given):
        for each in remote.paths(given):
            yield from _of_path(each, out, remote)
    elif has_magic(given) and not path.exists():
        names = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
        matches = sorted(each for each in names if not each.name.startswith("."))
        if not matches:
            raise AnimateDiffV2VError(f"No file matches {given}; check the pattern.")
        for each in matches:
            yield from _of_path(Path(each), out, remote)
    else:
        yield from _of_path(path, out, remote)


def _of_path(path: Path, out: Path, remote: RemoteInputs | None) -> Iterator[Clip]:
    if path.suffix.lower() in TABLE_SUFFIXES:
        yield from _of_table(path, remote)
    elif path.is_dir():
        clips = list(_of_folder(path, out, Path()))
        if not clips:
            raise AnimateDiffV2VError(f"The folder {path} holds no video and no pictures.")
        yield from clips
    else:
        yield Clip(path, Path(path.stem))


def _of_folder(folder: Path, out: Path, name: Path) -> Iterator[Clip]:
    if folder.absolute() == out:
        return
    try:
        entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise AnimateDiffV2VError(f"{folder} cannot be read: {error.strerror}.") from error
    videos = [each for each in entries if each.is_file() and each.suffix.lower() in VIDEO_SUFFIXES]
    if not videos and any(each.suffix.lower() in PICTURE_SUFFIXES for each in entries):
        yield Clip(folder, name if name.name else Path(folder.absolute().name))
        return
    for each in entries:
        if each in videos:
            yield Clip(each, name / each.stem)
        elif each.is_dir():
            yield from _of_folder(each, out, name / each.name)


def _of_table(path: Path, remote: RemoteInputs | None) -> Iterator[Clip]:
    rows = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise AnimateDiffV2VError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    clips = list(_of_rows(path, rows(path, text), remote))
    if not clips:
        raise AnimateDiffV2VError(f"{path} has no rows: give it a line for each clip.")
    yield from clips


def _of_rows(
    path: Path, rows: Iterable[tuple[int, dict[str, Any]]], remote: RemoteInputs | None
) -> Iterator[Clip]:
    for number, given_row in rows:
        # People write "Guidance Scale", and options --guidance-scale.
        row = {re.sub(r"[\s_-]+", "_", name.lower()): each for name, each in given_row.items()}
        origin = f"{path}, line {number}"
        given = row.pop("input", None)
        if not isinstance(given, str) or not given:
            raise AnimateDiffV2VError(f"{origin}: it names no clip; give one as input.")
        output = row.pop("output", None)
        source = path.parent / given if remote is None else remote.beside(path, given)
        name = Path(str(output)) if output else Path(source.stem)
        if name.is_absolute() or ".." in name.parts:
            raise AnimateDiffV2VError(
                f"{origin}: output is {output}; give a name within the output folder."
            )
        yield Clip(source, name.with_suffix("") if output else name, row, origin)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), restkey="")
    for row in reader:
        if "" in row:
            raise AnimateDiffV2VError(
                f"{path}, line {reader.line_num}: it has more values than the first line has "
                "names; put values with commas in double quotes."
            )
        # Empty cells leave the setting of the command.
        given = {(name or "").strip(): value.strip() for name, value in row.items() if value}
        yield reader.line_num, given


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AnimateDiffV2VError(f"{path}, line {number} is not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise AnimateDiffV2VError(
                f"{path}, line {number} is not an object; give one such as "
                '{"input": "a.mp4", "prompt": "a fox"}.'
            )
        yield number, row


def _with_own_names(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield the clips, with their suffix or a number in names that are taken."""
    taken: set[str] = set()
    for clip in clips:
        names = [
            clip.name,
            clip.name.with_name(clip.name.name + clip.path.suffix.replace(".", "-")),
        ]
        number = 2
        while str(names[0]).lower() in taken:
            names.pop(0)
            if not names:
                names = [clip.name.with_name(f"{clip.name.name}-{number}")]
                number += 1
        taken.add(str(names[0]).lower())
        yield Clip(clip.path, names[0], clip.settings, clip.origin)
