"""`animatediff-v2v serve`, with workers from quick_worker.py and without the other commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from animatediff_v2v.api import serve
from animatediff_v2v.api.queue.process_worker import ProcessWorker


class QuickWorker(ProcessWorker):
    """A worker that starts quick_worker.py."""

    def _command(self):
        python, _m, _module, *options = super()._command()
        return [python, str(Path(__file__).with_name("quick_worker.py")), *options]


def parsed():
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--device", action="append")
    parser.set_defaults(host="127.0.0.1", dtype="auto", max_memory=None, engine="local", workers=0)
    parser.add_argument("--log-level", default="warning")
    parser.add_argument("--log-format", default="text")
    return parser.parse_args()


if __name__ == "__main__":
    serve.ProcessWorker = QuickWorker
    sys.exit(serve.serve(parsed()))
