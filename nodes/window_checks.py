"""A check, before the graph runs, that motion modules support the window length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..pipeline import AnimateDiffV2VError, files
from . import host
from .checks import Nodes, Problem


def window_problem(length: int, *, node_id: str) -> Problem | None:
    """Return the problem if a motion module that uses node `node_id`'s windows takes fewer frames.

    A module that is not known before the graph runs is checked by the sampler.
    """
    for file in _motion_modules(host.submitted_prompt(), node_id):
        try:
            most = files.identify(host.model_path(host.MOTION_MODULES, file)).max_frames
        except AnimateDiffV2VError:
            continue  # No motion module, or a missing file, which its own node reports.
        if most is not None and length > most:
            return Problem(
                "length",
                f"{length} frames are more than {file} supports at once: use {most} or "
                "less, 16 is usual.",
            )
    return None


def _motion_modules(nodes: Nodes, node_id: str) -> Iterator[str]:
    """Yield the motion modules of the samplers that use this node's windows."""
    for each in nodes.values():
        if _source(each, "context_options") == node_id:
            chosen = _motion_module(nodes, each)
            if chosen is not None:
                yield chosen


def _motion_module(nodes: Nodes, node: Mapping[str, Any]) -> str | None:
    """Return a node's own motion module, or follow its `model` links to a node that names one."""
    passed: set[str] = set()
    while not isinstance(node.get("inputs", {}).get("motion_module"), str):
        source = _source(node, "model")
        if source is None or source not in nodes or source in passed:
            return None
        passed.add(source)
        node = nodes[source]
    chosen: str = node["inputs"]["motion_module"]
    return chosen


def _source(node: Mapping[str, Any], name: str) -> str | None:
    """Return the id of the node that an input is linked to."""
    match node.get("inputs", {}).get(name):
        case [str(source), _]:
            return source
    return None
