"""Checks that a job may write its output, made first so that no file is lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import AnimateDiffV2VError
from .part_folder import check_name


def check_output(output: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuse an output that is one of the inputs, or that exists and may not be replaced.

    A file is recognised under every spelling of its path, through links, and on file systems that
    ignore case.

    Args:
        output: The file to write.
        inputs: Files that the job reads.
        overwrite: Whether a file that exists may be replaced.

    Raises:
        AnimateDiffV2VError: the output is refused.
    """
    check_name(output)
    for path in inputs:
        if is_same_file(output, path):
            raise AnimateDiffV2VError(
                f"{output} is the same file as the input {path}, which the result would replace: "
                "choose another name for the output."
            )
    check_can_replace(output, overwrite=overwrite)


def check_can_replace(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be replaced.

    Folders are left to the writer, which accepts an empty one.

    Raises:
        AnimateDiffV2VError: the output exists.
    """
    if not overwrite and is_there(output) and not output.is_dir():
        raise AnimateDiffV2VError(
            f"{output} exists already: choose another name, or set overwrite to replace it."
        )


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to the same existing file or folder."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them does not exist, or cannot be accessed
        return False


def is_there(path: Path) -> bool:
    """Return whether something of this name exists, broken links included.

    Raises:
        AnimateDiffV2VError: its folder cannot be accessed.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise AnimateDiffV2VError(
            f"{path} cannot be written: {error.strerror}; choose another folder or name."
        ) from error
    return True
