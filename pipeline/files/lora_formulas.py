"""What each family of LoRA adds to a weight.

The formulas are those of LyCORIS (KohakuBlueleaf/LyCORIS, lycoris/functional), against which the
tests check every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Parameters = Mapping[str, torch.Tensor]


def lora_delta(parameters: Parameters) -> torch.Tensor:
    """LoRA and LoCon: ``up @ down * alpha / rank``, with the Tucker core ``mid`` between."""
    up, down = parameters["lora_up"].float(), parameters["lora_down"].float()
    scale = _alpha_over_rank(parameters, rank=down.shape[0])
    mid = parameters.get("lora_mid")
    if mid is None:
        delta = up.flatten(1) @ down.flatten(1)
        return (delta * scale).reshape(up.shape[0], *down.shape[1:])
    return scale * torch.einsum("mn...,im,nj->ij...", mid.float(), up.flatten(1), down.flatten(1))


def _alpha_over_rank(parameters: Parameters, *, rank: int) -> float:
    alpha = parameters.get("alpha")
    return 1.0 if alpha is None else float(alpha) / rank
