"""Reads graphs as ComfyUI saves them, and writes them back in the same format.

Two formats: the one that the frontend saves, with positions (versions 0.4 and 1 of the JSON, and
older files without a version), and the one that is sent to `/prompt`, called the API format.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from . import api_format, workflow_format, workflow_writing
from .graph import Graph

DEEPEST = 200


@dataclass
class Document:
    """A saved graph.

    Attributes:
        json: a copy of the JSON that it was read from.
        graphs: the graph itself, and then those of its subgraphs.
        is_api: True for the API format.
    """

    json: dict[str, Any]
    graphs: list[Graph]
    is_api: bool


def read(data: Any) -> Document:
    """Read a graph in either format.

    Raises:
        AnimateDiffV2VError: the value is not a graph.
    """
    _check_depth(data)
    if isinstance(data, dict):
        if isinstance(data.get("nodes"), list):
            data = copy.deepcopy(data)
            return Document(data, workflow_format.read(data), is_api=False)
        prompt = data.get("prompt")
        nodes = prompt if isinstance(prompt, dict) else data
        if api_format.is_prompt(nodes):
            data = copy.deepcopy(data)
            nodes = data["prompt"] if isinstance(prompt, dict) else data
            return Document(data, [api_format.read(nodes)], is_api=True)
    raise AnimateDiffV2VError(
        "The file holds no graph of ComfyUI: save the graph with Save or Export (API) in ComfyUI's "
        "menu, and give that file."
    )


def written(document: Document) -> dict[str, Any]:
    """Return the JSON of a graph, in the format that it was read in."""
    if not document.is_api:
        workflow_writing.write(document.json, document.graphs)
        return document.json
    nodes = api_format.written(document.graphs[0])
    if isinstance(document.json.get("prompt"), dict):
        return document.json | {"prompt": nodes}
    return nodes


def _check_depth(data: Any) -> None:
    """Refuse JSON that is nested so deeply that copying it would exhaust Python's stack."""
    level, depth = [data], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise AnimateDiffV2VError(
            f"The graph's JSON is nested more than {DEEPEST} levels deep, which no graph of "
            "ComfyUI is; give a file that ComfyUI saved."
        )
