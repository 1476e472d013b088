"""Warnings shown on the running node; they are logged as well."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from comfy_execution.utils import get_executing_context
from server import PromptServer

PACKAGE = __name__.split(".nodes.", maxsplit=1)[0]


class _Shown(logging.Handler):
    """Collects warnings and shows them below the widgets of the node."""

    def __init__(self, node_id: str) -> None:
        super().__init__(logging.WARNING)
        self._node_id = node_id
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())
        text = "\n\n".join(dict.fromkeys(self._messages))
        server = PromptServer.instance
        server.send_progress_text(text, self._node_id, server.client_id)


@contextmanager
def warnings_on_node() -> Iterator[None]:
    """Show this pack's warnings on the running node while the block runs."""
    context = get_executing_context()
    if context is None:
        yield
        return
    handler, logger = _Shown(context.node_id), logging.getLogger(PACKAGE)
    if any(isinstance(each, _Shown) for each in logger.handlers):
        yield  # within another such block
        return
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
