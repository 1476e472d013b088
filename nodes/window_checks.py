"""Saying before anything runs that windows are longer than a motion module knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..pipeline import AnimateDiffV2VError
from ..pipeline.files import identify
from . import host

Nodes = Mapping[str, Mapping[str, Any]]


def check_window_length(length: int, *, node_id: str) -> bool | str:
    """Give True if all motion modules that node `node_id` cuts windows for know `length` frames.

    Else the sentence that says which does not. A module that is not known before the graph runs
    is left to the sampler.
    """
    for file in _motion_modules(host.submitted_prompt(), node_id):
        try:
            most = identify(host.model_path(host.MOTION_MODULES, file)).max_frames
        except AnimateDiffV2VError:
            continue  # It names none, or one that is missing, and says so itself.
        if most is not None and length > most:
            return (
                f"length: {length} frames are more than {file} knows at once: use {most} or less, "
                "16 is usual."
            )
    return True


def _motion_modules(nodes: Nodes, node_id: str) -> Iterator[str]:
    """Names of the motion modules in front of the samplers that take this node's windows."""
    for each in nodes.values():
        if _source(each, "context_options") == node_id:
            chosen = _motion_module(nodes, each)
            if chosen is not None:
                yield chosen


def _motion_module(nodes: Nodes, node: Mapping[str, Any]) -> str | None:
    """Follow `model` up to the node that names a motion module."""
    passed = set()
    source = _source(node, "model")
    while source is not None and source in nodes and source not in passed:
        passed.add(source)
        node = nodes[source]
        chosen = node["inputs"].get("motion_module")
        if isinstance(chosen, str):
            return chosen
        source = _source(node, "model")
    return None


def _source(node: Mapping[str, Any], name: str) -> str | None:
    """The id of the node that an input is linked to."""
    match node.get("inputs", {}).get(name):
        case [str(source), _]:
            return source
    return None
