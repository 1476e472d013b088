"""Storage formats of weights with scales, detected without reading the weights.

A layer's format is stated in ``LAYER.comfy_quant`` (JSON as bytes), in the header of the file
(``_quantization_metadata``), or implied by ``scaled_fp8`` and ``LAYER.scale_weight``, which are
older. The formats are those of ComfyUI 0.33.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AnimateDiffV2VError

FORMAT_ENDING = ".comfy_quant"
SCALE_ENDINGS = (".weight_scale", ".scale_weight")
_METADATA_KEY = "_quantization_metadata"
_OTHER_SCALES = (".weight_scale_2", ".weight_scale_inv", ".weight_s_rel", ".pre_quant_scale")
_LARGEST_TEXT_BYTES = 10_000
_FP8 = ("float8_e4m3fn", "float8_e5m2")
# Supported formats -> the dtypes that their weights are stored in.
_DTYPES: dict[str, tuple[str, ...]] = {
    "float8_e4m3fn": _FP8,  # also used by older scaled_fp8 files, for every layer
    "float8_e5m2": ("float8_e5m2",),
    "int8_tensorwise": ("int8",),
    "mxfp8": ("float8_e4m3fn",),
}


def known_formats(
    dtypes: Mapping[str, str],
    texts: Mapping[str, bytes],
    *,
    path: Path,
    metadata: Mapping[str, str],
) -> dict[str, str]:
    """Return the layers of a file whose weights have a scale, with the format of each.

    Args:
        dtypes: PyTorch's names of the dtypes, by tensor name.
        texts: the bytes of the tensors whose names end in `FORMAT_ENDING`.
        path: the file, for error messages.
        metadata: the metadata in the file's header.

    Raises:
        AnimateDiffV2VError: a layer's format cannot be parsed, or is not supported; names it.
    """
    formats = _stated_formats(texts, path=path, metadata=metadata)
    for name in dtypes:
        for ending in (*SCALE_ENDINGS, *_OTHER_SCALES):
            layer = name.removesuffix(ending)
            if layer != name and layer not in formats and f"{layer}.weight" in dtypes:
                dtype = dtypes[f"{layer}.weight"]
                known = dtype in _FP8 and ending in SCALE_ENDINGS
                formats[layer] = dtype if known else ending[1:]
    for layer, name in formats.items():
        stored = dtypes.get(f"{layer}.weight", "missing")
        if stored not in _DTYPES.get(name, ()):
            raise AnimateDiffV2VError(
                f"{path} cannot be used: the weight of its layer {layer} has a format that is not "
                f"supported ({name}, {stored}). Use a version in float16, bfloat16 or scaled fp8."
            )
    return formats


def _stated_formats(
    texts: Mapping[str, bytes], *, path: Path, metadata: Mapping[str, str]
) -> dict[str, str]:
    try:
        stated: dict[str, Any] = json.loads(metadata.get(_METADATA_KEY, "{}")).get("layers", {})
        for name, text in texts.items():
            if len(text) > _LARGEST_TEXT_BYTES:
                raise ValueError(f"{name} is not text")
            stated[name.removesuffix(FORMAT_ENDING)] = json.loads(text)
        return {layer: _format_name(config) for layer, config in stated.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise AnimateDiffV2VError(
            f"{path} states how its weights are stored in a way that cannot be read: {error}."
        ) from error


def _format_name(config: Mapping[str, Any]) -> str:
    name = str(config.get("format"))
    inner = config.get("params")
    turned = config.get("convrot") or (isinstance(inner, dict) and inner.get("convrot"))
    return f"{name} with ConvRot" if turned else name
