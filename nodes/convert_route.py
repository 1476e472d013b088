"""Routes by which the frontend converts the graph on the canvas, and knows the nodes concerned."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from ..migrate import convert
from ..migrate.known import known_nodes, packs
from ..migrate.suitability import ANIMATEDIFF_PACKS
from ..pipeline import AnimateDiffV2VError
from . import host

ROUTE = "/animatediff_v2v/convert"
LIST_ROUTE = "/animatediff_v2v/other_packs"


def add_convert_routes() -> None:
    """Add the routes `POST /animatediff_v2v/convert` and `GET /animatediff_v2v/other_packs`."""
    host.add_route(web.post(ROUTE, _answer))
    host.add_get_route(LIST_ROUTE, _list)


async def _answer(request: web.Request) -> web.Response:
    try:
        return web.json_response(await asyncio.to_thread(answer, await request.read()))
    except AnimateDiffV2VError as error:
        return web.json_response({"error": str(error)}, status=400)


def answer(body: bytes) -> dict[str, Any]:
    """Convert a graph, given as JSON; return `graph`, None if it is left as it is, and `report`.

    Raises:
        AnimateDiffV2VError: the body is not a graph.
    """
    try:
        data = json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise AnimateDiffV2VError(f"The graph is not JSON ({error}).") from error
    converted = convert(data)
    return {"graph": converted.graph, "report": converted.report.as_json}


async def _list(_request: web.Request) -> web.Response:
    return web.json_response(other_packs())


def other_packs() -> dict[str, dict[str, str]]:
    """Return the titles of other packs by the types of their nodes.

    `animatediff` has all nodes of the other AnimateDiff packs, `others` what is converted with
    them.
    """
    titles = {name: table["title"] for name, table in packs().items()}
    known = [each for each in known_nodes().values() if each.rule != "their_load_video"]
    theirs = {each.type: titles[each.pack] for each in known if each.pack in ANIMATEDIFF_PACKS}
    others = {
        each.type: titles[each.pack]
        for each in known
        if each.pack not in ANIMATEDIFF_PACKS and not each.stays
    }
    return {"animatediff": theirs, "others": others}
