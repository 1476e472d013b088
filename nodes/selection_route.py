"""A route that tells the frontend what a selection will load, while its settings change."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from aiohttp import web
from PIL import Image

from ..pipeline import AnimateDiffV2VError
from ..pipeline import video as videos
from . import host
from .forecast import describe_forecast
from .selection import open_reader

ROUTE = "/animatediff_v2v/selection"
# Names and types of the inputs; their schemas allow no number above LARGEST_NUMBER.
NUMBERS = {
    "select_every_nth_frame": int,
    "skip_first_frames": int,
    "frame_load_cap": int,
    "force_rate": float,
    "width": int,
    "height": int,
    "start_time": float,
    "duration": float,
}
LARGEST_NUMBER = 1_000_000
# Videos with few key frames are slow to seek; an incomplete strip is better than a late one.
SECONDS_FOR_THUMBNAILS = 3
THUMBNAIL_HEIGHT = 160
MOST_THUMBNAILS = 6


def add_selection_route() -> None:
    """Add the route `GET /animatediff_v2v/selection?video=...&select_every_nth_frame=...`."""
    host.add_get_route(ROUTE, _answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        described = await asyncio.to_thread(describe_selection, dict(request.query))
    except AnimateDiffV2VError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response(described)


def describe_selection(query: Mapping[str, str]) -> dict[str, Any]:
    """Describe what Load Video would load for `video` in the input folder and the other values.

    Returns:
        A dict in which frame_count, source_frame_count (of the whole video) and duration_seconds
        are None if only decoding can tell, start_seconds is the time of the first kept frame, and
        thumbnails has some of the kept frames: their time in seconds, and a picture as a data URI;
        with thumbnails=0 there are none. With the settings of a run there is a forecast; see
        describe_forecast.

    Raises:
        AnimateDiffV2VError: for a wrong value, an unreadable file, or one outside the input folder.
    """
    path = host.uploaded_path(query.get("video", ""))
    settings: dict[str, Any] = {
        name: _number(name, query[name]) for name in NUMBERS if name in query
    }
    settings["fit"] = query.get("fit", "crop")
    try:
        with open_reader(path, **settings) as reader:
            return _described(reader, query)
    except AnimateDiffV2VError as error:
        # Do not disclose the server's folders to the frontend.
        raise AnimateDiffV2VError(str(error).replace(str(path), path.name)) from error


def _described(reader: videos.VideoReader, query: Mapping[str, str]) -> dict[str, Any]:
    count, width, height = reader.expected_frame_count, reader.width, reader.height
    described: dict[str, Any] = {
        "frame_count": count,
        "source_frame_count": reader.info.frame_count,
        "frame_rate": float(reader.frame_rate),
        "duration_seconds": float(count / reader.frame_rate) if count else None,
        "start_seconds": float(reader.selection.first_seconds(reader.info.frame_rate)),
        "width": width,
        "height": height,
        "thumbnails": [] if query.get("thumbnails") == "0" else list(_thumbnails(reader)),
    }
    if count and "steps" in query:
        forecast = describe_forecast(query, frame_count=count, width=width, height=height)
        described["forecast"] = forecast
    return described


def _number(name: str, text: str) -> float:
    try:
        number: float = NUMBERS[name](text)
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_NUMBER:
        raise AnimateDiffV2VError(f"{name} is {text[:40]!r}; give 0 to {LARGEST_NUMBER}.")
    return number


def _thumbnails(reader: videos.VideoReader) -> Iterator[dict[str, Any]]:
    until = time.monotonic() + SECONDS_FOR_THUMBNAILS
    for seconds, picture in videos.thumbnails(
        reader, height=THUMBNAIL_HEIGHT, most=MOST_THUMBNAILS
    ):
        data = BytesIO()
        Image.fromarray(picture).save(data, "JPEG", quality=80)
        source = f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"
        yield {"seconds": float(seconds), "src": source}
        if time.monotonic() > until:
            return
