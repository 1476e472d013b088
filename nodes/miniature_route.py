"""A route that copies the miniature from this pack into ComfyUI's folders."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ..demo.install import copy_miniature
from ..pipeline import AnimateDiffV2VError
from . import host

ROUTE = "/animatediff_v2v/miniature"


def add_miniature_route() -> None:
    """Add the route `POST /animatediff_v2v/miniature`, which takes `?native=1`."""
    host.add_route(web.post(ROUTE, _answer))


async def _answer(request: web.Request) -> web.Response:
    native = request.query.get("native") == "1"
    try:
        files = await asyncio.to_thread(install_miniature, native=native)
    except AnimateDiffV2VError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({"files": files})


def install_miniature(*, native: bool = False) -> list[str]:
    """Copy the miniature's models and its clip; return them as "checkpoints/miniature.safetensors".

    Files that are there already with the same content stay untouched.

    Args:
        native: also write the models at the sizes that ComfyUI's own loaders support (2.0 GB).

    Raises:
        AnimateDiffV2VError: when a file cannot be written, or one of its name has other content.
            Paths in the sentence are those below ComfyUI's folder, which the frontend may see.
    """
    models, inputs = host.models_folder(), host.input_folder()
    try:
        written = copy_miniature(models, inputs, native=native)
    except AnimateDiffV2VError as error:
        raise AnimateDiffV2VError(_as_seen_by_users(str(error), models, inputs)) from error
    return [f"{path.parent.name}/{path.name}" for path in written]


def _as_seen_by_users(sentence: str, *folders: Any) -> str:
    for folder in folders:
        sentence = sentence.replace(str(folder), folder.name)
    # The words of the command, which the page has no option for.
    return sentence.replace(
        "choose another name, or set overwrite to replace it",
        "it has other content. Rename it or move it away, and press the button again",
    )
