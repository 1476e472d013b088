"""`animatediff-v2v`, with workers from quick_worker.py."""

from __future__ import annotations

import sys
from pathlib import Path

from animatediff_v2v.api import serve
from animatediff_v2v.api.command import main
from animatediff_v2v.api.process_worker import ProcessWorker


class QuickWorker(ProcessWorker):
    """Starts another module."""

    def _command(self):
        python, _m, _module, *options = super()._command()
        return [python, str(Path(__file__).with_name("quick_worker.py")), *options]


if __name__ == "__main__":
    serve.ProcessWorker = QuickWorker
    sys.exit(main())
