"""The standalone server: the API without ComfyUI."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from ..pipeline import AnimateDiffV2VError
from . import logs
from .http.guard import needs_no_key
from .http.listening import bind, run
from .queue.executor import Worker, WorkerOptions
from .queue.local_executor import LocalExecutor, ModelFolders
from .queue.process_worker import ProcessWorker
from .service import Service, open_folder
from .settings import Settings, load_settings
from .storage.data_folder import KEYS, OWN

PAGE = "/animatediff-v2v"


def application(
    folder: Path, *, models: Path, settings: Settings, workers: Sequence[Worker]
) -> web.Application:
    """Build the application that serves `folder`, with the model files in `models`.

    Raises AnimateDiffV2VError when another process uses the folder, or it is not the service's.
    """
    data = open_folder(folder)
    executor = LocalExecutor(
        input_folder=data.inputs, output_folder=data.outputs, models=models, workers=workers
    )
    library = ModelFolders(models)
    service = Service.of(
        data, settings=settings, executor=executor, library=library, is_own_server=True
    )
    app = web.Application(client_max_size=settings.max_body_bytes)

    def add_route(route: web.RouteDef) -> None:
        for prefix in ("", "/api"):  # as in ComfyUI; fal's default proxy path is below /api
            path = f"{prefix}{route.path}"
            app.router.add_routes([web.RouteDef(route.method, path, route.handler, route.kwargs)])

    service.mount(app, add_route)
    add_route(web.get("/", _to_the_page))
    return app


@needs_no_key
async def _to_the_page(_request: web.Request) -> web.Response:
    """Redirect from / to the page."""
    raise web.HTTPFound(PAGE)


def serve(parsed: argparse.Namespace) -> int:
    """Serve until the process is stopped; print the URL on stdout once the server answers."""
    with _unmade_on_failure(parsed.folder):
        _serve(parsed)
    return 0


def _serve(parsed: argparse.Namespace) -> None:
    check_folder(parsed.folder)
    settings = load_settings(parsed.folder)
    sockets = bind(parsed.host, parsed.port)
    os.umask(0o077)  # only this user may read the files, including those that workers write
    logs.configure(level=parsed.log_level, form=parsed.log_format)
    with _workers(parsed) as workers:
        app = application(parsed.folder, models=parsed.models, settings=settings, workers=workers)
        port = sockets[0].getsockname()[1]
        url = f"http://{parsed.host}:{port}{PAGE}"
        run(app, sockets, when_ready=lambda: print(url, flush=True))


@contextmanager
def _unmade_on_failure(folder: Path) -> Iterator[None]:
    """If the start fails, remove what it has created, except keys that were added meanwhile."""
    own = folder / OWN
    is_new, is_new_inside = not folder.exists(), not own.exists()
    try:
        yield
    except AnimateDiffV2VError:
        if is_new_inside and not (own / KEYS).exists():
            shutil.rmtree(own, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # missing or not empty
                folder.rmdir()
        raise


def check_folder(folder: Path) -> None:
    """Create the data folder if needed; raises AnimateDiffV2VError if it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise AnimateDiffV2VError(
            f"{folder} is a file, or below one: FOLDER must be a folder; a missing one is created."
        ) from error
    except OSError as error:
        raise AnimateDiffV2VError(f"{folder} cannot be created: {error.strerror}.") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise AnimateDiffV2VError(f"{folder} is not writable for this user.")


@contextmanager
def _workers(parsed: argparse.Namespace) -> Iterator[Sequence[Worker]]:
    """Return one worker for each device, or those on Ray, and leave its cluster at the end."""
    options = [
        WorkerOptions(
            models=parsed.models,
            device=device,
            dtype=parsed.dtype,
            max_memory_gb=parsed.max_memory,
        )
        for device in parsed.device or ["auto"]
    ]
    if parsed.engine == "local":
        yield [ProcessWorker(each) for each in options]
        return
    from ..batch.ray_cluster import ray_package, start_ray  # noqa: PLC0415 - an extra
    from .queue.ray_worker import ray_workers  # noqa: PLC0415 - as above

    ray = ray_package()
    start_ray(ray, parsed.workers)
    try:
        yield ray_workers(ray, options[0], parsed.workers)
    finally:
        ray.shutdown()
