"""The version of this package, which stands in pyproject.toml and nowhere else."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

_PROJECT = Path(__file__).with_name("pyproject.toml")


def package_version() -> str:
    """Return the version: of the repository that this is in, else of the installed package.

    ComfyUI loads the repository as a folder, without metadata; and those of an editable install
    are as old as the install.
    """
    if _PROJECT.is_file():
        found = re.search(r'^version = "(.+)"', _PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    try:
        return metadata.version("animatediff-v2v")
    except metadata.PackageNotFoundError:
        return "unknown"
