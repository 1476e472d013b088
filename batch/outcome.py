"""The outcome of a unit, as workers report it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..pipeline.errors import AnimateDiffV2VError, Cancelled, DiskFull
from .run import Result
from .unit import FilesChanged

logger = logging.getLogger(__name__)

LONGEST_TRACEBACK = 4000


@dataclass(frozen=True)
class Outcome:
    """The outcome of a unit. "failed" concerns it alone, "fatal" all units."""

    kind: Literal["done", "failed", "fatal", "stopped"]
    sentence: str = ""
    result: Result | None = None


def outcome_of(name: str, render: Callable[[], Result]) -> Outcome:
    """Render a unit, and return what became of it; nothing is raised."""
    try:
        return Outcome("done", result=render())
    except Cancelled:
        return Outcome("stopped")
    except (FilesChanged, DiskFull) as error:
        return Outcome("fatal", str(error))
    except AnimateDiffV2VError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        logger.error("%s: %s", name, traceback.format_exc()[-LONGEST_TRACEBACK:])
        return Outcome("failed", f"{type(error).__name__}: {error}")
