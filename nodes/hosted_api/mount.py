"""The hosted API on ComfyUI's own server, off by default."""

from __future__ import annotations

import logging
from pathlib import Path

from ...api.switch import is_configured
from ...pipeline import AnimateDiffV2VError
from .. import host

logger = logging.getLogger(__name__)


class InstalledModels:
    """The model files that ComfyUI's combos list."""

    def names(self, folder: str) -> list[str]:
        """List the files of a folder such as checkpoints."""
        return host.model_names(folder)

    def folders(self, folder: str) -> list[Path]:
        """List the folders on disk that hold it."""
        return host.model_folders(folder)


def add_hosted_api() -> None:
    """Add the routes of the hosted API if api.json or the environment enables it.

    Errors in its settings are logged; the nodes work all the same.
    """
    folder = host.data_folder()
    if not is_configured(folder):
        return
    from ...api.settings import load_settings  # noqa: PLC0415 - slow, and for few users

    try:
        settings = load_settings(folder)
        if not settings.enabled:
            return
        from ...api.service import Service, open_folder  # noqa: PLC0415
        from .executor import ComfyExecutor  # noqa: PLC0415

        service = Service.of(
            open_folder(folder),
            settings=settings,
            executor=ComfyExecutor(host.PromptQueue()),
            library=InstalledModels(),
        )
    except AnimateDiffV2VError as error:
        logger.error("The hosted API of AnimateDiff V2V could not start. %s", error)
        return
    service.mount(host.application(), host.add_route)
