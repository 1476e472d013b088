"""The mapping of fal's hosts to paths of this server.

The clients talk to several hosts, and the same path means different things on two of them
(`https://fal.run/{id}` runs, `https://queue.fal.run/{id}` queues). So
`https://queue.fal.run/fal-ai/x?logs=1` is answered at `/fal/queue.fal.run/fal-ai/x?logs=1`.
"""

from __future__ import annotations

from aiohttp import web
from yarl import URL

FILES = "/animatediff-v2v/files"
MOUNT = "/fal"
HEALTH = "/animatediff-v2v/health"

RUN = "fal.run"
QUEUE = "queue.fal.run"
REST = "rest.fal.ai"
OLD_REST = "rest.alpha.fal.ai"
CDN = "v3.fal.media"

HOSTS = (RUN, QUEUE, REST, OLD_REST, CDN)


def local_path(target: str) -> str | None:
    """Return path and query on this server for a URL of fal's, or None for other URLs.

    >>> local_path("https://queue.fal.run/fal-ai/animatediff-v2v?fal_webhook=x")
    '/fal/queue.fal.run/fal-ai/animatediff-v2v?fal_webhook=x'
    >>> local_path("https://example.com/fal-ai/animatediff-v2v")
    """
    try:
        url = URL(target)
    except ValueError:
        return None
    if url.scheme != "https" or url.host not in HOSTS or url.port != 443 or url.user is not None:
        return None
    return f"{MOUNT}/{url.host}{url.raw_path_qs}"


def own_url(request: web.Request) -> str:
    """Return the URL at which the client reached this server, such as http://127.0.0.1:8188.

    Only for requests whose Host the guard has let through.
    """
    # Set by a TLS proxy in front of this server. Forging it only changes the caller's own URLs.
    is_tls = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
    return f"{'https' if is_tls else 'http'}://{request.host}"
