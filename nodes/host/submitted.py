"""The prompt that ComfyUI is validating, for checks that need more than one node's values."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from comfy_execution.utils import get_executing_context
from server import PromptServer

# Node id -> {"class_type": ..., "inputs": {name: value, or [node id, output] where linked}}
Prompt = Mapping[str, Mapping[str, Any]]

# Set for the request that submits the prompt: ComfyUI validates it in the same task.
_submitted: ContextVar[Prompt | None] = ContextVar("submitted", default=None)


def remember_submitted_prompts() -> None:
    """Register a handler that stores each submitted prompt for `submitted_prompt`."""
    PromptServer.instance.add_on_prompt_handler(_remember)


def submitted_prompt() -> Prompt:
    """Return the prompt that is being validated, in API format; empty outside a validation."""
    return _submitted.get() or {}


def current_node_id() -> str | None:
    """Return the id of the node that is being validated or executed, if any."""
    context = get_executing_context()
    return None if context is None else context.node_id


def _remember(body: dict[str, Any]) -> dict[str, Any]:
    _submitted.set(body.get("prompt"))
    return body
