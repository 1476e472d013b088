"""The prediction type of a checkpoint's UNet: noise, v, or latents."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..errors import AnimateDiffV2VError

Prediction = Literal["epsilon", "v_prediction", "sample"]


def predicted_by(names: Iterable[str], path: Path) -> tuple[Prediction, bool]:
    """Return what a UNet predicts, and whether its schedule has zero terminal SNR.

    Args:
        names: the names of the file's tensors. ComfyUI and training tools mark such checkpoints
            by tensors called `v_pred` and `ztsnr`.
        path: the file. In diffusers' folder layout, the prediction is in
            scheduler/scheduler_config.json next to the UNet's folder.

    Raises:
        AnimateDiffV2VError: for a prediction type that is not supported.
    """
    kept = set(names)
    if "v_pred" in kept:
        return "v_prediction", "ztsnr" in kept
    config = _scheduler_config(path)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in get_args(Prediction):
        raise AnimateDiffV2VError(
            f"{path} predicts {prediction!r}, according to its scheduler_config.json; this pack "
            f"supports {', '.join(get_args(Prediction))}."
        )
    return cast(Prediction, prediction), bool(config.get("rescale_betas_zero_snr", False))


def _scheduler_config(path: Path) -> dict[str, Any]:
    file = path.absolute().parent.parent / "scheduler" / "scheduler_config.json"
    if path.absolute().parent.name != "unet" or not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AnimateDiffV2VError(f"{file} cannot be read: {error}.") from error
    return config if isinstance(config, dict) else {}
