"""`animatediff-v2v keys`: adds, lists and removes keys for the hosted API."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from .console import say
from .parsing import Help

_PACK = Path(__file__).parents[1]


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    keys = commands.add_parser(
        "keys",
        help="add, list and remove keys for the hosted API",
        formatter_class=Help,
        description="Add, list and remove the keys with which programs call the hosted API. A key "
        "is shown once, when it is added.",
    )
    keys.set_defaults(command=_keys)
    _add_folder(keys)
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, meaning, name in (
        (
            "add",
            "Create a key and show it. It is not shown again.",
            "a name for it, such as laptop",
        ),
        (
            "remove",
            "Remove a key: programs that use it can no longer call.",
            "its name, as `list` shows it",
        ),
        ("list", "List the names of the keys.", None),
    ):
        parser = actions.add_parser(action, help=meaning, description=meaning, formatter_class=Help)
        if name is not None:
            parser.add_argument("name", metavar="NAME", help=name)
        _add_folder(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    """Add --folder, which may be given before or after the action."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=argparse.SUPPRESS,  # otherwise the second default would replace a given value
        help="the server's data folder: FOLDER of `serve`, or user/animatediff_v2v in ComfyUI's "
        "base folder, which is the default when this pack is in custom_nodes",
    )


def _keys(parsed: argparse.Namespace) -> int:
    from ..api.keys import KeyRing  # noqa: PLC0415 - the other commands need no keys
    from ..api.storage.data_folder import DataFolder  # noqa: PLC0415 - see above

    try:
        folder = getattr(parsed, "folder", None) or data_folder()
        if parsed.action != "add" and not folder.is_dir():
            raise AnimateDiffV2VError(f"There is no folder {folder}; check --folder.")
        ring = KeyRing(DataFolder.open(folder).path)
        if parsed.action == "add":
            say(f"FAL_KEY={ring.add(parsed.name)}")
        elif parsed.action == "remove":
            ring.remove(parsed.name)
            say(f"removed {parsed.name}")
        else:
            say("\n".join(ring.names()) or f"There are no keys in {folder}.")
    except (ValueError, OSError) as error:
        raise AnimateDiffV2VError(str(error)) from error
    return 0


def data_folder() -> Path:
    """Return ComfyUI's data folder for this pack; raises ValueError outside of custom_nodes."""
    if _PACK.parent.name != "custom_nodes":
        raise ValueError(
            f"{_PACK} is not in a folder custom_nodes: give the server's folder with --folder, "
            "for example ComfyUI/user/animatediff_v2v."
        )
    return _PACK.parents[1] / "user" / "animatediff_v2v"
