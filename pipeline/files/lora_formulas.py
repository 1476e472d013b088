"""The weight change of each family of LoRA.

Every formula is that of LyCORIS (KohakuBlueleaf/LyCORIS 4.1, lycoris/functional and
lycoris/modules), under its parameter names; the tests check each against that package. A weight
is ``(out, in)`` or ``(out, in, height, width)``, all arithmetic float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .lora_families import family_of

Parameters = Mapping[str, torch.Tensor]
_Delta = Callable[[torch.Tensor, Parameters], torch.Tensor]


def add_change(weight: torch.Tensor, parameters: Parameters, *, strength: float) -> torch.Tensor:
    """Apply one layer of a LoRA file to a weight.

    Args:
        weight: the layer's weight, float32; it may be overwritten.
        parameters: the layer's parameters, named as in `lora_families`.
        strength: 0 leaves the weight unchanged, 1 is the trained change.

    Returns:
        ``weight + strength * delta``. With DoRA, delta is the whole change of direction and
        magnitude (``apply_dora_scale`` in lycoris/functional/general.py). BOFT's stages are
        blended with the identity one by one, as LyCORIS does.

    Raises:
        ValueError, RuntimeError: the parameters do not fit the weight.
    """
    family = family_of(parameters)
    if family is None:
        raise ValueError(f"no known family has the parameters {', '.join(sorted(parameters))}")
    if family == "LoRA" and not {"lora_mid", "dora_scale"} & parameters.keys():
        return _add_low_rank(weight, parameters, strength=strength)
    if family == "OFT" and parameters["oft_blocks"].ndim == 4:
        return weight.add_(_boft_delta(weight, parameters, strength=strength))
    delta = _fitted(_DELTAS[family](weight, parameters), weight)
    if "dora_scale" in parameters:
        delta = _dora_delta(weight, delta, parameters["dora_scale"].float())
    return weight.add_(delta, alpha=strength)


def low_rank(
    weight: torch.Tensor, parameters: Parameters
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return one layer of a LoRA file as two factors of its change, down and up.

    Args:
        weight: the layer's weight, for changes that depend on it and for its shape.
        parameters: the layer's parameters, named as in `lora_families`.

    Returns:
        ``down`` ``(rank, in, ...)`` and ``up`` ``(out, rank)``, float32, whose product is the
        change at strength 1; for families without such factors None and the change itself.

    Raises:
        ValueError, RuntimeError: the parameters do not fit the weight, or the change at another
            strength is not a multiple of it (BOFT).
    """
    family = family_of(parameters)
    if family == "OFT" and parameters["oft_blocks"].ndim == 4:
        raise ValueError("the change by BOFT does not grow in proportion to its strength")
    if family != "LoRA" or {"lora_mid", "dora_scale"} & parameters.keys():
        changed = add_change(weight.float().clone(), parameters, strength=1.0)
        return None, changed - weight.float()
    down, up = parameters["lora_down"].float(), parameters["lora_up"].float().flatten(1)
    if down.shape[1:] != weight.shape[1:]:
        down = down.reshape(down.shape[0], *weight.shape[1:])
    if up.shape != (weight.shape[0], down.shape[0]):
        raise ValueError(f"its change has the shape {[up.shape[0], down.shape[1]]}")
    return down, up * _alpha_over_rank(parameters, rank=down.shape[0])


def _fitted(delta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows = weight.shape[:1]
    if delta.shape[:1] != rows or delta.numel() != weight.numel():
        raise ValueError(f"its change has the shape {list(delta.shape)}")
    return delta.reshape(weight.shape)


def _add_low_rank(weight: torch.Tensor, parameters: Parameters, *, strength: float) -> torch.Tensor:
    """Apply LoRA and LoCon, which nearly every file has, in one pass over the weight."""
    up = parameters["lora_up"].float().flatten(1)
    down = parameters["lora_down"].float().flatten(1)
    rows = weight.view(weight.shape[0], -1)
    if (up.shape[0], down.shape[1]) != rows.shape or up.shape[1] != down.shape[0]:
        raise ValueError(f"its change has the shape {[up.shape[0], down.shape[1]]}")
    scale = _alpha_over_rank(parameters, rank=down.shape[0])
    if down.shape[0]:
        rows.addmm_(up, down, alpha=strength * scale)
    return weight


def _alpha_over_rank(parameters: Parameters, *, rank: int) -> float:
    """Return the scale of a low-rank change: 1 without an alpha; 0 if it is 0, as in ComfyUI."""
    if "alpha" not in parameters or not rank:
        return 1.0  # rank 0: nothing to scale
    return float(parameters["alpha"]) / rank


def _lora_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return LoRA's and LoCon's ``up @ down * alpha / rank``, with Tucker core ``mid`` if any."""
    up, down = parameters["lora_up"].float(), parameters["lora_down"].float()
    up = up.flatten(1) * _alpha_over_rank(parameters, rank=down.shape[0])
    if "lora_mid" in parameters:
        return _tucker(parameters["lora_mid"].float(), up.T, down.flatten(1))
    return (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _tucker(core: torch.Tensor, out: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Rebuild ``(p, q, ...)`` from core ``(i, j, ...)``, ``out (i, p)`` and ``into (j, q)``."""
    return torch.einsum("ij...,ip,jq->pq...", core, out, into)


def _loha_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return LoHa's Hadamard product of two low-rank matrices (arXiv:2108.06098)."""
    halves = [_loha_half(parameters, half) for half in ("1", "2")]
    scale = _alpha_over_rank(parameters, rank=parameters["hada_w1_b"].shape[0])
    return halves[0].mul_(halves[1]).mul_(scale)


def _loha_half(parameters: Parameters, half: str) -> torch.Tensor:
    a, b = parameters[f"hada_w{half}_a"].float(), parameters[f"hada_w{half}_b"].float()
    if "hada_t1" in parameters:
        return _tucker(parameters[f"hada_t{half}"].float(), a, b)
    return a @ b.flatten(1)


def _lokr_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return LoKr's Kronecker product of two matrices, each full or low-rank."""
    first, second = _lokr_factor(parameters, "1"), _lokr_factor(parameters, "2")
    ranked = [parameters[n] for n in ("lokr_w2_b", "lokr_w1_b") if n in parameters]
    scale = _alpha_over_rank(parameters, rank=ranked[0].shape[0]) if ranked else 1.0
    kernel = weight.shape[2:]
    if second.ndim == 2 and kernel:
        second = second.reshape(second.shape[0], -1, *kernel)
    first = first.reshape(*first.shape, *([1] * (second.ndim - first.ndim)))
    return torch.kron(first * scale, second.contiguous())


def _lokr_factor(parameters: Parameters, factor: str) -> torch.Tensor:
    whole = parameters.get(f"lokr_w{factor}")
    if whole is not None:
        return whole.float()
    a, b = parameters[f"lokr_w{factor}_a"].float(), parameters[f"lokr_w{factor}_b"].float()
    core = parameters.get(f"lokr_t{factor}")
    return a @ b.flatten(1) if core is None else _tucker(core.float(), a, b)


def _glora_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return GLoRA's ``W @ a1 @ a2 + b1 @ b2`` (arXiv:2306.07967)."""
    a1, a2, b1, b2 = (parameters[name].float().flatten(1) for name in ("a1", "a2", "b1", "b2"))
    scale = _alpha_over_rank(parameters, rank=a2.shape[0])
    if "bm" in parameters:
        own = _tucker(parameters["bm"].float(), b1.T, b2)
    else:
        own = (b1 @ b2).reshape(weight.shape)
    from_weight = torch.einsum("oi...,ij,jk->ok...", weight, a1, a2)
    return (own + from_weight) * scale


def _ia3_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return the change by (IA)^3's factor of each input or output channel (arXiv:2205.05638)."""
    factors = parameters["weight"].float().flatten()
    axis = 1 if bool(parameters["on_input"]) else 0
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * factors.reshape(shape)


def _diff_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return a full difference (LyCORIS "full"), also for norms and biases."""
    names = ("diff", "w_norm", "diff_b", "b_norm")
    return next(parameters[name] for name in names if name in parameters).float()


def _oft_delta(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return OFT's change: blocks of output channels, rotated (arXiv:2306.07280)."""
    blocks = parameters["oft_blocks"].float()
    turns = _rotations(blocks, parameters, channels=weight.shape[0])
    rows = weight.reshape(blocks.shape[0], blocks.shape[1], *weight.shape[1:])
    turned = torch.einsum("knm,kn...->km...", turns, rows).reshape(weight.shape)
    return _rescaled(turned, parameters) - weight


def _boft_delta(weight: torch.Tensor, parameters: Parameters, *, strength: float) -> torch.Tensor:
    """Return BOFT's change: butterfly stages of blended rotations (arXiv:2311.06243)."""
    blocks = parameters["oft_blocks"].float()
    size = blocks.shape[-1]
    turns = _rotations(blocks, parameters, channels=weight.shape[0])
    turns = turns * strength + (1 - strength) * torch.eye(size)
    turned = weight
    rest = weight.shape[1:]
    for stage, turn in enumerate(turns):
        stride = 2**stage * (size // 2)
        paired = turned.reshape(-1, 2, stride, *rest).transpose(1, 2).reshape(-1, size, *rest)
        paired = torch.einsum("bij,bj...->bi...", turn, paired)
        turned = paired.reshape(-1, stride, 2, *rest).transpose(1, 2).reshape(weight.shape)
    return _rescaled(turned, parameters) - weight


def _rotations(blocks: torch.Tensor, parameters: Parameters, *, channels: int) -> torch.Tensor:
    """Return Cayley transforms of skew matrices, with norms limited to ``alpha * channels``."""
    skew = blocks - blocks.transpose(-1, -2)
    limit = float(parameters["alpha"]) * channels if "alpha" in parameters else 0.0
    norm = skew.norm() + 1e-8
    if 0 < limit < norm:
        skew = skew * (limit / norm)
    one = torch.eye(skew.shape[-1])
    inverse: torch.Tensor = torch.linalg.inv(one - skew)
    return (one + skew) @ inverse


def _rescaled(weight: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    if "rescale" not in parameters:
        return weight
    return weight * parameters["rescale"].float().reshape(-1, *([1] * (weight.ndim - 1)))


def _dora_delta(weight: torch.Tensor, delta: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Return DoRA's change: the changed weight, scaled to the trained norms (arXiv:2402.09353).

    A magnitude of shape ``(1, in, ...)`` belongs to the input channels, as in LyCORIS' files
    from before 3.0; one of ``(out,)`` or ``(out, 1, ...)`` to the output channels.
    """
    changed = weight + delta
    axis = 1 if magnitude.ndim > 1 and magnitude.shape[0] == 1 and weight.shape[0] > 1 else 0
    others = [a for a in range(weight.ndim) if a != axis]
    norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    norms = norms + torch.finfo(torch.float32).eps
    return changed.mul_(magnitude.reshape(norms.shape) / norms).sub_(weight)


_DELTAS: dict[str, _Delta] = {
    "LoRA": _lora_delta,
    "LoHa": _loha_delta,
    "LoKr": _lokr_delta,
    "GLoRA": _glora_delta,
    "OFT": _oft_delta,
    "(IA)^3": _ia3_delta,
    "full difference": _diff_delta,
}
