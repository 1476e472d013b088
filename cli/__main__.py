"""Run the command as `python -m animatediff_v2v.cli`, in custom_nodes as `animatediff-v2v.cli`."""

from __future__ import annotations

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
