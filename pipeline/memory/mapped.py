"""Tensors of a whole video in memory-mapped files, so that main memory does not grow with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count, pairwise
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..part_folder import PartFolder
from ..ranges import MEMORY_GB
from .ram import default_ram_bytes

# Latents, noise and what a sampler keeps of earlier steps: so many tensors of a whole video.
TENSORS_PER_VIDEO = 8
_CHUNK_BYTES = 2**20
_MIN_CHUNK_ROWS = 16

# Gives a context in which tensors are as usual.
Paused = Callable[[], AbstractContextManager[None]]


class Scratch:
    """Files for the tensors of a video that do not fit into a budget of main memory.

    A context manager: the files are removed when it ends.
    """

    def __init__(self, target: Path, *, max_ram_gb: float | None = None) -> None:
        """Set the limits; nothing is written before it is needed.

        Args:
            target: The file beside which a hidden folder is made.
            max_ram_gb: What all tensors of a whole video may take together, in 10^9 bytes; None is
                a quarter of this machine's memory.

        Raises:
            AnimateDiffV2VError: `max_ram_gb` is out of range.
        """
        if max_ram_gb is not None:
            MEMORY_GB.check("max_ram_gb", max_ram_gb, hint="a quarter of the machine's is usual")
        self._target = target
        self._part_folder: PartFolder | None = None
        self._max_bytes = default_ram_bytes() if max_ram_gb is None else int(max_ram_gb * 1e9)
        self._numbers = count()

    def __enter__(self) -> Scratch:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the files."""
        if self._part_folder is not None:
            self._part_folder.remove()

    def joined(self, parts: Iterable[Tensor]) -> Tensor:
        """Return the parts of a video's latents as one tensor, [frames, 4, height, width]."""
        held: list[Tensor] = []
        held_bytes = 0
        parts = iter(parts)
        for part in parts:
            held.append(part)
            held_bytes += part.nbytes
            if self._is_too_much(held_bytes):
                return self._joined_on_disk(held, parts)
        return torch.cat(held)

    @contextmanager
    def mapping(self, latents: Tensor) -> Iterator[Paused]:
        """Map tensors with a row for each frame of `latents` into files, if there are too many.

        Yields a function that gives a context in which tensors are as usual, for the networks.
        """
        if not self._is_too_much(latents.nbytes):
            yield nullcontext
            return
        with _Mapping(self.tensor, rows=len(latents)) as mapping:
            yield mapping.paused

    def tensor(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor of zeros in a file of its own, which goes when the tensor does."""
        shape = tuple(shape)
        path = self._new_path()
        flat = torch.from_file(str(path), shared=True, size=prod(shape), dtype=dtype)
        _forget(path)
        return flat.view(shape)

    def _new_path(self) -> Path:
        if self._part_folder is None:
            self._part_folder = PartFolder(self._target)
        return self._part_folder.path / f"{next(self._numbers)}.tensor"

    def _is_too_much(self, tensor_bytes: int) -> bool:
        return TENSORS_PER_VIDEO * tensor_bytes > self._max_bytes

    def _joined_on_disk(self, held: list[Tensor], rest: Iterable[Tensor]) -> Tensor:
        path = self._new_path()
        like, frames = held[0], 0
        with path.open("wb") as file:
            while held:
                frames += len(held[0])
                file.write(held.pop(0).contiguous().numpy().data)
            for part in rest:
                frames += len(part)
                file.write(part.contiguous().numpy().data)
        shape = (frames, *like.shape[1:])
        flat = torch.from_file(str(path), shared=True, size=prod(shape), dtype=like.dtype)
        _forget(path)
        return flat.view(shape)


class _Mapping(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes tensors with a row for each frame in chunks of rows, into mapped files.

    Operations on single numbers give the same bits in chunks, and so does noise drawn into a file.
    """

    def __init__(
        self, allocate: Callable[[Iterable[int], torch.dtype], Tensor], *, rows: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._allocate, self._rows = allocate, rows

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the mode for a while."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("randn", "zeros", "empty") and self._is_shape(args[0]):
            made = self._allocate(args[0], kwargs.get("dtype") or torch.get_default_dtype())
            return self._drawn(made, kwargs.get("generator")) if name == "randn" else made
        whole = [each for each in (*args, *kwargs.values()) if self._is_whole(each)]
        if not whole:
            return func(*args, **kwargs)
        if name in ("zeros_like", "empty_like"):
            return self._allocate(args[0].shape, kwargs.get("dtype") or args[0].dtype)
        if name in ("clone", "_to_copy") and kwargs.get("device") in (None, torch.device("cpu")):
            return self._in_chunks(func, args, kwargs, whole)
        if torch.Tag.pointwise in func.tags:
            return self._in_chunks(func, args, kwargs, whole)
        return func(*args, **kwargs)

    def _in_chunks(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], whole: list[Tensor]
    ) -> Any:
        is_in_place = func.overloadpacket.__name__.endswith("_")
        result: Tensor | None = args[0] if is_in_place else kwargs.get("out")
        is_given = result is not None
        for chunk in self._chunks(max(whole, key=lambda each: each.nbytes)):
            made = func(
                *(self._part(each, chunk) for each in args),
                **{key: self._part(each, chunk) for key, each in kwargs.items()},
            )
            if is_given:
                continue
            if result is None:
                result = self._allocate((self._rows, *made.shape[1:]), made.dtype)
            result[chunk] = made
        return result

    def _drawn(self, tensor: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fill a tensor with noise, as if it were drawn at once.

        PyTorch draws numbers in blocks of 16, so chunks of whole blocks give the same numbers.
        """
        for chunk in self._chunks(tensor):
            tensor[chunk].normal_(generator=generator)
        return tensor

    def _chunks(self, tensor: Tensor) -> Iterator[slice]:
        """Yield slices of rows, none of them shorter than _MIN_CHUNK_ROWS if there are enough."""
        row_bytes = max(1, tensor.nbytes // self._rows)
        step = max(1, _CHUNK_BYTES // row_bytes // _MIN_CHUNK_ROWS) * _MIN_CHUNK_ROWS
        starts = list(range(0, max(1, self._rows - _MIN_CHUNK_ROWS + 1), step))
        for start, end in pairwise([*starts, self._rows]):
            yield slice(start, end)

    def _part(self, value: Any, chunk: slice) -> Any:
        return value[chunk] if self._is_whole(value) else value

    def _is_whole(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.device.type == "cpu"
            and value.dim() == 4
            and len(value) == self._rows
        )

    def _is_shape(self, shape: Any) -> bool:
        return len(shape) == 4 and shape[0] == self._rows


def _forget(path: Path) -> None:
    """Remove the name of a mapped file; Windows keeps it, and its space, until the job ends."""
    if sys.platform != "win32":
        path.unlink()
