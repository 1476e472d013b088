"""The command `animatediff-v2v` under the address that the templates' notes name."""

from __future__ import annotations

import sys

from ..cli.main import main

if __name__ == "__main__":
    sys.exit(main())
