"""Copies of networks on other devices."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..models.ops.select import lay_out_weights

Network = TypeVar("Network", bound=nn.Module)


def copy_with(network: Network, copied: Callable[[Tensor], Tensor]) -> Network:
    """Return a copy of a network whose weights and buffers are `copied` of its own."""
    copies: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        made = copied(tensor)
        is_weight = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(made, requires_grad=False) if is_weight else made
    return copy.deepcopy(network, copies)


def copy_to(network: Network, device: torch.device) -> Network:
    """Return a copy of a network on a device; on the same one it shares the weights."""
    made = copy_with(network, lambda tensor: tensor.detach().to(device))
    lay_out_weights(made, device)
    return made
