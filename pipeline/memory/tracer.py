"""The memory that networks take on a device, counted without that device.

Networks run on PyTorch's meta device, where every operator returns tensors with shapes but without
content; the sizes of the tensors alive at a time are added up. Weights and tensors are counted. On
a real device, workspaces of kernels, fragmentation and the driver's context come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .copies import copy_with

META = torch.device("meta")
ATTENTION = "fused attention"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Allocation:
    """Memory allocated for a tensor."""

    size: int
    """Bytes."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    operator: str


class MetaDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which the meta device behaves like a real one, and each operator is reported.

    Copies from it to the CPU are zeros, and tensors of equal shapes on it are equal.
    """

    def ran(self, operator: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Handle an operator that ran, with its input and result tensors."""
        raise NotImplementedError

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator; a composite one as its parts."""
        kwargs = kwargs or {}
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        if torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), composite.name):
            with self:
                return operator._op_dk(composite, *args, **kwargs)
        inputs = tensors((args, kwargs))
        if any(tensor.device == META for tensor in inputs):
            if operator is torch.ops.aten.equal.default:
                return inputs[0].shape == inputs[1].shape
            target = kwargs.get("device")
            if operator is torch.ops.aten._to_copy.default and target not in (None, META):
                return torch.zeros(
                    inputs[0].shape, dtype=kwargs.get("dtype") or inputs[0].dtype, device=target
                )
        result = operator(*args, **kwargs)
        self.ran(operator, inputs, tensors(result))
        return result


class FusedAttention(TorchFunctionMode):
    """A mode in which attention is one kernel, as on a GPU; on the meta device it is composite."""

    def __init__(self, ran: Callable[[list[Tensor]], None] = lambda _touched: None) -> None:
        """Call `ran` with the inputs and the result of each attention."""
        super().__init__()
        self._ran = ran

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Replace attention by the allocation of its result."""
        if function is not functional.scaled_dot_product_attention or args[0].device != META:
            return function(*args, **(kwargs or {}))
        query, key, value = args[:3]
        # As the kernels return it: the heads of a token side by side in memory.
        result = torch.empty_like(query.transpose(-3, -2), memory_format=torch.contiguous_format)
        result = result.transpose(-3, -2)
        self._ran([query, key, value, result])
        return result


class LiveBytes(MetaDevice):  # type: ignore[no-untyped-call]
    """A count of the bytes alive on the meta device."""

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, tuple[Allocation, Any]] = {}
        self.now = 0
        self.peak = 0
        """Bytes, the most at a time since the beginning or the latest `restart`."""
        self.at_peak: list[Allocation] = []

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak, self.at_peak = self.now, [allocation for allocation, _ in self._alive.values()]

    def ran(self, operator: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        """Count the results that have memory of their own."""
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        for tensor in results:
            if tensor.device == META and tensor.untyped_storage()._cdata not in known:
                self._add(tensor, operator.name())

    def _add(self, tensor: Tensor, operator: str) -> None:
        storage: Any = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._alive:
            return
        end = weakref.ref(storage, lambda _: self._remove(address))
        allocation = Allocation(size, tuple(tensor.shape), tensor.dtype, operator)
        self._alive[address] = allocation, end
        self.now += size
        if self.now > self.peak:
            self.restart()

    def _remove(self, address: int) -> None:
        allocation, _ = self._alive.pop(address)
        self.now -= allocation.size


@contextmanager
def live_bytes() -> Iterator[LiveBytes]:
    """Count allocations on the meta device while the context is open."""
    with LiveBytes() as counted, FusedAttention():
        yield counted


def to_meta_copy(network: Network) -> Network:
    """Return a copy of a network on the meta device, which takes no memory."""
    return copy_with(network, lambda tensor: torch.empty_like(tensor, device=META))


def weight_bytes(*networks: nn.Module) -> int:
    """Return the bytes of the weights of networks."""
    weights = {
        id(tensor): tensor
        for network in networks
        for tensor in chain(network.parameters(), network.buffers())
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors among nested values."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
