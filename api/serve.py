"""The API without ComfyUI: a server of its own that runs the pipeline itself."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from aiohttp import web

from .local_executor import LocalExecutor, ModelFolders
from .service import Service
from .settings import Settings, load_settings

# Clients that wait for a result would otherwise hold the server up for a minute.
SECONDS_FOR_LAST_WORDS = 2.0


def application(folder: Path, *, models: Path, settings: Settings) -> web.Application:
    """Make the application that answers from `folder`, with the model files in `models`.

    Raises AnimateDiffV2VError when another process has the folder.
    """
    executor = LocalExecutor(
        input_folder=folder / "inputs", output_folder=folder / "outputs", models=models
    )
    library = ModelFolders(models)
    service = Service.of(folder, settings=settings, executor=executor, library=library)
    app = web.Application(client_max_size=settings.max_body_bytes)
    service.mount(app, lambda route: app.router.add_routes([route]))
    return app


def serve(parsed: argparse.Namespace) -> int:
    """Answer until the process is stopped."""
    logging.getLogger(__package__).setLevel(logging.INFO)
    settings = load_settings(parsed.folder)
    app = application(parsed.folder, models=parsed.models, settings=settings)
    print(f"http://{parsed.host}:{parsed.port}/animatediff-v2v", flush=True)
    web.run_app(
        app,
        host=parsed.host,
        port=parsed.port,
        shutdown_timeout=SECONDS_FOR_LAST_WORDS,
        print=None,
        access_log=None,
    )
    return 0
