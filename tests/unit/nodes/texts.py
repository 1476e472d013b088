"""The texts that users read on the nodes, in the form of ComfyUI's `locales/*/nodeDefs.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .declared import Input, Output, Schema

LOCALES = Path(__file__).parents[3] / "locales"

Texts = dict[str, dict[str, Any]]


def texts_of(schemas: dict[str, Schema]) -> Texts:
    """Return the English texts, which are in the schemas."""
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {each.name: _input(each) for each in schema.ordered_inputs},
            "outputs": {str(number): _output(each) for number, each in enumerate(schema.outputs)},
        }
        for node_id, schema in schemas.items()
    }


def _input(each: Input) -> dict[str, str]:
    return {"name": each.name, "tooltip": each.options["tooltip"]}


def _output(each: Output) -> dict[str, str]:
    return {"name": each.display_name, "tooltip": each.tooltip}


def locale_path(language: str) -> Path:
    return LOCALES / language / "nodeDefs.json"


def read_locale(language: str) -> Texts:
    texts: Texts = json.loads(locale_path(language).read_text(encoding="utf-8"))
    return texts


def flat(texts: Any, path: str = "") -> dict[str, str]:
    """Return each text by its path, such as ADV2V_Sampler.inputs.steps.tooltip."""
    if isinstance(texts, str):
        return {path: texts}
    parts = [flat(value, f"{path}.{key}".lstrip(".")) for key, value in texts.items()]
    return {key: text for part in parts for key, text in part.items()}
