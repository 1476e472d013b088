"""A training loop that can be stopped and resumed at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

SECONDS_BETWEEN_CHECKPOINTS = 120
WARMUP_STEPS = 100


@dataclass(frozen=True)
class Plan:
    """Number of steps and learning rate of a stage."""

    steps: int
    learning_rate: float
    average_decay: float = 0.0
    """Decay of the moving average of the weights, the stage's result; 0 uses the last weights."""
    refines: bool = False
    """True to train more on the noise levels that video-to-video uses."""
    faster: Mapping[str, float] = field(default_factory=dict)
    """Factors of the learning rate of parameters whose names contain the key."""


def train(
    stage: str,
    plan: Plan,
    network: nn.Module,
    loss_of: Callable[[np.random.Generator, torch.Generator, int], Tensor],
    folder: Path,
) -> None:
    """Train the parameters of `network` that require gradients, in place.

    loss_of: returns the loss of one step, given that step's own random generators, so that an
        interrupted run continues with the same numbers.
    folder: the folder of `<stage>.pt`; a stage that is finished is not run again.
    """
    learned = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(_groups(learned, plan), lr=plan.learning_rate, weight_decay=0.0)
    average = {name: p.detach().clone() for name, p in learned.items()}
    path, first = folder / f"{stage}.pt", 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        first = kept["step"]
        average = kept["average"]
        _put(learned, kept["weights"])
        optimizer.load_state_dict(kept["optimizer"])
    saved, shown = time.monotonic(), 0.0
    bar = tqdm(range(first, plan.steps), stage, initial=first, total=plan.steps, mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * plan.learning_rate * _share(step, plan.steps)
        loss = loss_of(
            np.random.default_rng((step, *stage.encode())), _generator(stage, step), step
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(learned.values()), 1.0)
        optimizer.step()
        decay = min(plan.average_decay, (step + 1) / (step + 10)) if plan.average_decay else 0.0
        for name, parameter in learned.items():
            average[name].lerp_(parameter.detach(), 1.0 - decay)
        shown = 0.99 * shown + 0.01 * loss.item() if step > first else loss.item()
        bar.set_postfix(loss=f"{shown:.4f}", refresh=False)
        if step + 1 == plan.steps or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            _save(path, step + 1, learned, average, optimizer)
            saved = time.monotonic()
    _put(learned, average)


def _groups(learned: dict[str, nn.Parameter], plan: Plan) -> list[dict[str, Any]]:
    """Return the parameters in groups of the same learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in learned.items():
        factor = next((each for part, each in plan.faster.items() if part in name), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def _share(step: int, steps: int) -> float:
    """Return the learning rate's factor: a short warm-up, then a cosine decay to 0.01."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _generator(stage: str, step: int) -> torch.Generator:
    seed = np.random.SeedSequence((step, *stage.encode())).generate_state(1)[0]
    return torch.Generator().manual_seed(int(seed))


def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def _save(
    path: Path,
    step: int,
    learned: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    weights = {name: p.detach() for name, p in learned.items()}
    state = {"step": step, "weights": weights, "average": average}
    partial = path.with_suffix(".partial")
    torch.save(state | {"optimizer": optimizer.state_dict()}, partial)
    partial.replace(path)


def frozen(network: nn.Module) -> nn.Module:
    """Freeze all parameters of a network."""
    return network.eval().requires_grad_(False)


def stacked(pictures: Iterable[np.ndarray]) -> Tensor:
    """Stack pictures [height, width, 3], 0 to 1, into a batch [n, 3, height, width], -1 to 1."""
    batch = torch.from_numpy(np.stack(list(pictures)))
    return batch.permute(0, 3, 1, 2).contiguous() * 2 - 1
