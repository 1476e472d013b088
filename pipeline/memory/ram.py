"""The main memory of this machine."""

from __future__ import annotations

import os

# What a machine is taken to have if it does not say.
_USUAL_MACHINE_BYTES = 8 * 10**9


def default_ram_bytes() -> int:
    """Return a quarter of this machine's memory."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    return _USUAL_MACHINE_BYTES // 4
