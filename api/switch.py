"""The switch of the hosted API, which can be read without loading the API."""

from __future__ import annotations

import os
from pathlib import Path

SWITCH = "ANIMATEDIFF_V2V_API"
FILE_NAME = "api.json"


def is_configured(folder: Path) -> bool:
    """Return whether the environment or `folder`/api.json says anything about the hosted API.

    If neither does, it is off.
    """
    return bool(os.environ.get(SWITCH)) or (folder / FILE_NAME).is_file()
