"""Whether a job may write where it is told to: before anything else, so that no file is lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import AnimateDiffV2VError
from .part_folder import check_name


def check_output(output: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuse an output that is one of the inputs, or that is there and may not be replaced.

    inputs: files that the job reads. A file is the same under every spelling of its path, through
    links, and where capital and small letters are one.
    Raises AnimateDiffV2VError.
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
    """Refuse an output that is there already, unless it may be replaced.

    Folders are left to the writer, which takes an empty one.
    Raises AnimateDiffV2VError.
    """
    if not overwrite and is_there(output) and not output.is_dir():
        raise AnimateDiffV2VError(
            f"{output} exists already: choose another name, or set overwrite to replace it."
        )


def is_same_file(first: Path, second: Path) -> bool:
    """Tell whether two paths lead to one file or folder that is there."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one of them is not there, or may not be looked at
        return False


def is_there(path: Path) -> bool:
    """Tell whether there is something of this name, a link that leads nowhere included.

    Raises AnimateDiffV2VError when its folder may not be looked into.
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
