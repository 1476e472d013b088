"""The prompt that ComfyUI is validating: a node's own check is shown that node's values alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from server import PromptServer

# Node id -> {"class_type": ..., "inputs": {name: value, or [node id, output] where linked}}
Prompt = Mapping[str, Mapping[str, Any]]

# Of the request that hands the prompt in: ComfyUI validates it in the same task.
_submitted: ContextVar[Prompt | None] = ContextVar("submitted", default=None)


def remember_submitted_prompts() -> None:
    """Let `submitted_prompt` know each prompt that comes in, which goes on as it came."""
    PromptServer.instance.add_on_prompt_handler(_remember)


def submitted_prompt() -> Prompt:
    """The prompt that is being validated, in API format; empty outside of a validation."""
    return _submitted.get() or {}


def _remember(body: dict[str, Any]) -> dict[str, Any]:
    _submitted.set(body.get("prompt"))
    return body
