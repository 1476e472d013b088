"""Checks of the path of an output."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import AnimateDiffV2VError, DiskFull
from ..part_folder import check_name
from .formats import FORMATS, OutputFormat


def check_target(path: Path, form: OutputFormat) -> None:
    """Raise AnimateDiffV2VError unless the folder exists and the name suits the format."""
    check_name(path)
    try:
        _check(path, form)
    except OSError as error:
        raise disk_error(error, path=path) from error


def _check(path: Path, form: OutputFormat) -> None:
    if form.extension and path.suffix.lower() != form.extension:
        raise AnimateDiffV2VError(
            f"{path.name} does not fit the format {form.name}, whose files end in"
            f" {form.extension}; change the name or the format{_fitting(path)}."
        )
    if form.extension and path.is_dir():
        raise AnimateDiffV2VError(f"{path} is a folder; give the name of a file in it.")
    if not form.extension and path.exists() and (path.is_file() or any(path.iterdir())):
        raise AnimateDiffV2VError(
            f"{path} exists already; {form.name} needs the name of a new or empty folder."
        )
    if not path.parent.is_dir():
        raise AnimateDiffV2VError(f"There is no folder {path.parent}; create it first.")


def _fitting(path: Path) -> str:
    """Return advice on the format that fits a file's suffix, or an empty string."""
    names = [form.name for form in FORMATS.values() if form.extension == path.suffix.lower()]
    return f": {' or '.join(names)} fits {path.suffix}" if path.suffix and names else ""


def disk_error(error: OSError, *, path: Path) -> AnimateDiffV2VError:
    """Return an error that says why a video could not be written."""
    if error.errno == errno.ENOSPC:
        return DiskFull(
            f"{path} was not written: the disk is full; free some space or choose another folder."
        )
    return AnimateDiffV2VError(
        f"{path} was not written: its folder {path.parent} may not be written to"
        f" ({error.strerror}); choose another one."
    )
