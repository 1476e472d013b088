"""Read PyTorch's pickled checkpoints without executing anything in them.

They are read with `torch.load(weights_only=True)`. Before that, the pickle's operations are
scanned, so that an error can name the class that is not allowed, and so that no file makes the
reader allocate or compute without limit. `torch.serialization.get_unsafe_globals_in_checkpoint`
does less: it reads neither files from before PyTorch 1.6 nor pickles of protocol 4.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import AnimateDiffV2VError

_LARGEST_PICKLE_BYTES = 8_000_000  # the names of 10 GB of weights take less than 1 MB
_DEEPEST = 8  # dictionaries inside dictionaries; real files have three
_LARGEST_TUPLE = 100_000  # numbers in a tuple, including those in nested tuples
_LEGACY_PICKLES = 5  # magic number, version, system, the object, the storages' order
_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.(storage\.)?\w*Storage|torch\.(Size|device)|torch\.(b?float|u?int|bool)\w*"
    r"|torch\.nn\.parameter\.Parameter|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.modules\.container\.ParameterDict|(__builtin__|builtins)\.set"
)
# Stands in for a ParameterDict: takes its state as attributes, without code of PyTorch's class.
_ParameterDict = type("ParameterDict", (), {"__module__": "torch.nn.modules.container"})
_DAMAGE = (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError)


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a ``torch.save`` file, memory-mapped if the file allows it.

    Raises:
        AnimateDiffV2VError: the file is damaged, or asks for classes other than tensors.
    """
    try:
        archive = zipfile.is_zipfile(path)
        for pickled in _archived_pickle(path) if archive else _legacy_pickles(path):
            _look_through(pickled, path)
        with torch.serialization.safe_globals([_ParameterDict]):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        tensors = _named_tensors(state)
        for name, tensor in tensors.items():
            _check_storage(tensor, name)
    except (pickle.UnpicklingError, zipfile.BadZipFile, AssertionError, *_DAMAGE) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise AnimateDiffV2VError(
            f"{path} is a damaged PyTorch checkpoint ({reason}). Download it again."
        ) from error
    return tensors


def _archived_pickle(path: Path) -> list[bytes]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is a compressed archive, which PyTorch does not write")
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _LARGEST_PICKLE_BYTES:
            raise ValueError("it is an archive without one list of tensors")
        return [archive.read(pickles[0])]


def _legacy_pickles(path: Path) -> Iterator[bytes]:
    """Yield the pickles at the start of a file in the format before PyTorch 1.6."""
    with path.open("rb") as file:
        front = io.BytesIO(file.read(_LARGEST_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        start = front.tell()
        for _operation in pickletools.genops(front):
            pass
        yield front.getvalue()[start : front.tell()]


def _look_through(pickled: bytes, path: Path) -> None:
    """Refuse a pickle that names classes other than tensors', or nests tuples too deeply."""
    strings: list[str] = []
    costs = _TupleCosts()
    for operation, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str):
            strings.append(argument)
        if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            words = strings[-2:] if operation.name == "STACK_GLOBAL" else str(argument).split(" ")
            name = ".".join(words)
            if not _HARMLESS.fullmatch(name):
                raise AnimateDiffV2VError(
                    f"{path} was refused: it is a pickle that needs {name}, and a pickle with "
                    "such classes can run any code. Use a .safetensors version of it."
                )
        costs.follow(operation, argument)


class _TupleCosts:
    """Simulates a pickle's stack with the cost of hashing each value instead of the values.

    A tuple of two tuples of two tuples and so on takes a few bytes per level, but twice the time.
    """

    def __init__(self) -> None:
        self._stack: list[int | None] = []  # None stands for a mark
        self._memo: dict[int, int] = {}

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        name = operation.name
        if name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo.get(int(argument), 1))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._stack[-1] or 1
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1] or 1
        elif name == "MARK":
            self._stack.append(None)
        else:
            taken = self._take(operation)
            cost = 1 + sum(taken) if "TUPLE" in name else 1
            if cost > _LARGEST_TUPLE:
                raise ValueError("its tuples are nested without end")
            self._stack.extend([cost] * len(operation.stack_after))

    def _take(self, operation: pickletools.OpcodeInfo) -> list[int]:
        before = operation.stack_before
        taken: list[int] = []
        if pickletools.markobject in before:
            while (top := self._stack.pop()) is not None:
                taken.append(top)
            before = before[: before.index(pickletools.markobject)]
        return taken + [self._stack.pop() or 1 for _ in before]


def _named_tensors(state: Any) -> dict[str, torch.Tensor]:
    """Unwrap ``state_dict``; give tensors in nested dictionaries dotted names."""
    state = _as_mapping(state)
    if state is None:
        raise ValueError("it holds no named weights")
    inner = _as_mapping(state.get("state_dict"))
    pending = [("", 1, state if inner is None else inner)]
    seen, tensors = set(), {}
    while pending:
        prefix, depth, mapping = pending.pop()
        seen.add(id(mapping))
        for key, value in mapping.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{prefix}{key}"] = value.detach()
            elif depth < _DEEPEST and id(value) not in seen:
                inside = _as_mapping(value)
                if inside is not None:
                    seen.add(id(value))
                    pending.append((f"{prefix}{key}.", depth + 1, inside))
    return tensors


def _as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """Return a dictionary, list or ParameterDict as a mapping; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list):
        return dict(enumerate(value))
    if isinstance(value, _ParameterDict):
        held = vars(value)
        inside = _as_mapping(held.get("_parameters")) or {}
        return {n: v for n, v in held.items() if isinstance(v, torch.Tensor)} | dict(inside)
    return None


def _check_storage(tensor: torch.Tensor, name: str) -> None:
    """Refuse a tensor that claims more numbers than its file has for it."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"the tensor {name} is larger than its data")
