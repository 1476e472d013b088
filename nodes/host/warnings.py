"""Warnings shown on the running node; they are logged as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from comfy_execution.utils import get_executing_context
from server import PromptServer

PACKAGE = __name__.split(".nodes.", maxsplit=1)[0]


class _Shown(logging.Handler):
    """Collects warnings and shows them below the widgets of the node."""

    def __init__(self, node_id: str) -> None:
        super().__init__(logging.WARNING)
        self._node_id = node_id
        self._heading = ""
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())
        self._show()

    def head(self, heading: str) -> None:
        """Show a line above the warnings, in place of the one before."""
        if heading != self._heading:
            self._heading = heading
            self._show()

    def _show(self) -> None:
        lines = [self._heading] if self._heading else []
        text = "\n\n".join([*lines, *dict.fromkeys(self._messages)])
        server = PromptServer.instance
        server.send_progress_text(text, self._node_id, server.client_id)


@contextmanager
def warnings_on_node() -> Iterator[Callable[[str], None]]:
    """Show this pack's warnings on the running node while the block runs.

    Yields:
        A function that shows a line above them.
    """
    context, logger = get_executing_context(), logging.getLogger(PACKAGE)
    within = next((each for each in logger.handlers if isinstance(each, _Shown)), None)
    if context is None or within is not None:
        yield within.head if within is not None else _unseen
        return
    handler = _Shown(context.node_id)
    logger.addHandler(handler)
    try:
        yield handler.head
    finally:
        logger.removeHandler(handler)


def _unseen(_heading: str) -> None:
    """Show nothing: no node is running."""
