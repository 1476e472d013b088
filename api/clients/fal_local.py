"""Run a script with fal's Python client on your own server: `python fal_local.py script.py [args]`.

FAL_LOCAL_URL is the server's address, by default http://127.0.0.1:8188. The script needs no change;
`python fal_local.py -m package.module` runs a module.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import fal_client.client
import httpx  # which fal_client is built on

WITHOUT_KEY = (
    "fal_local: FAL_KEY is not set, which {server} takes only with keyless_loopback: make a key "
    "with `python -m animatediff_v2v.cli keys --folder FOLDER add NAME`, or in ComfyUI's "
    "custom_nodes with `python -m animatediff-v2v.cli keys add NAME`, and set FAL_KEY to it."
)
NOBODY = (
    "fal_local: nothing answers at {server}: start ComfyUI or `animatediff-v2v serve`, or set "
    "FAL_LOCAL_URL to the server's address."
)


def main() -> int:
    """Point the client at the server, then run the script as Python would."""
    arguments = sys.argv[1:]
    if not arguments or arguments == ["-m"] or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 2 if not arguments or arguments == ["-m"] else 0
    if arguments[0] != "-m" and not Path(arguments[0]).exists():
        print(f"fal_local: there is no script {arguments[0]}.", file=sys.stderr)
        return 2
    server = os.environ.get("FAL_LOCAL_URL", "http://127.0.0.1:8188")
    send_home(server)
    try:
        run(arguments)
    except httpx.ConnectError:
        print(NOBODY.format(server=server), file=sys.stderr)
        raise
    return 0


def run(arguments: list[str]) -> None:
    """Run a script or a module, with its arguments, as Python would."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


def send_home(server: str) -> None:
    """Replace the addresses in fal_client's module by those of `server`, for this process."""
    server = server.rstrip("/")
    addresses = {
        "RUN_URL_FORMAT": f"{server}/fal/fal.run/",
        "QUEUE_URL_FORMAT": f"{server}/fal/queue.fal.run/",
        "REALTIME_URL_FORMAT": f"{server}/fal/fal.run/".replace("http", "ws", 1),
        "REST_URL": f"{server}/fal/rest.fal.ai",
        "CDN_URL": f"{server}/fal/v3.fal.media",
    }
    for name, address in addresses.items():
        if not hasattr(fal_client.client, name):
            raise SystemExit(
                f"fal_local: this version of fal_client has no {name}, and might call the hosted "
                "service instead: install fal-client 1.0."
            )
        setattr(fal_client.client, name, address)
    # Without a key the client sends nothing, but a local server may not need one.
    if not (os.environ.get("FAL_KEY") or os.environ.get("FAL_KEY_ID")):
        os.environ["FAL_KEY"] = "local:local"
        print(WITHOUT_KEY.format(server=server), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
