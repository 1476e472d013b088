"""Results of the model's calls on disk, from which a job that was killed goes on.

A sampler depends on nothing but its inputs, the model's results and noise for a seed. So the next
run repeats it from the start, with the results of the calls that were made: that takes next to no
time, and brings the sampler to the same state to the bit, whatever it keeps between its steps.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError
from .denoise import Denoise, HasUnconditional

logger = logging.getLogger(__name__)

# Sampling that takes less begins again: at most this much is lost.
LEAST_SECONDS = 60.0
_SUFFIX = ".steps"
_KEY_FILE = "key.txt"
_NAME_LENGTH = 16
_BLOCK_BYTES = 2**20


class KeptCalls:
    """A hidden folder beside a job's result, with the results of the model's calls."""

    def __init__(self, target: Path, *, name: str, key: str) -> None:
        """Use the results of an earlier run with the same key; nothing is written yet.

        Args:
            target: The file beside which the folder is made.
            name: A digest of the job, in hexadecimal digits, for the folder's name.
            key: A description of everything that the results depend on.
        """
        self._folder = target.with_name(f".{name[:_NAME_LENGTH]}{_SUFFIX}")
        self._key = key

    def around(
        self, model: Denoise, guided: HasUnconditional, *, phase: str, calls: int, interval: int = 1
    ) -> KeptModel:
        """Return a model whose calls are kept.

        Args:
            model: The model.
            guided: The one inside it that has the unconditional prediction.
            phase: The name of this use of a model in the job.
            calls: About how often it will be called.
            interval: Earlier calls are used in groups of so many: the model depends on the calls
                before in its group and on the group before, which is computed again.
        """
        return KeptModel(self, model, guided, phase=phase, calls=calls, interval=interval)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def found(self, phase: str, size: int) -> list[Path]:
        """Return the intact files of a phase's first calls, each of `size` bytes."""
        try:
            if (self._folder / _KEY_FILE).read_text("utf-8") != self._key:
                return []
            names = {path.name: path for path in self._folder.iterdir()}
        except (OSError, UnicodeDecodeError):
            return []
        files: list[Path] = []
        while True:
            start = f"{phase}-{len(files):05}-"
            path = next((names[name] for name in names if name.startswith(start)), None)
            if path is None or not _is_intact(path, size):
                return files
            files.append(path)

    def keep(self, phase: str, number: int, tensors: list[Tensor]) -> None:
        """Write the results of a call; raise OSError if that fails."""
        if number == 0 or not self._folder.is_dir():
            self._begin()
        part = self._folder / f"{phase}-{number:05}.part"
        with part.open("wb") as file:
            for tensor in tensors:
                file.write(_bytes(tensor))
        part.rename(self._folder / f"{phase}-{number:05}-{_digest(tensors)}")

    def _begin(self) -> None:
        key = self._folder / _KEY_FILE
        with suppress(OSError, UnicodeDecodeError):
            if key.read_text("utf-8") == self._key:
                return
        self.remove()
        self._folder.mkdir()
        key.write_text(self._key, "utf-8")


class KeptModel:
    """A model whose results are kept, and whose first results are those of an earlier run."""

    def __init__(
        self,
        kept: KeptCalls,
        model: Denoise,
        guided: HasUnconditional,
        *,
        phase: str,
        calls: int,
        interval: int,
    ) -> None:
        """See KeptCalls.around."""
        self._kept, self._model, self._guided = kept, model, guided
        self._phase, self._calls, self._interval = phase, calls, interval
        self._number = 0
        self._files: list[Path] | None = None
        self._has_both = False
        self._unconditional: Tensor | None = None
        self._is_keeping = True

    def keep_unconditional(self) -> None:
        """Compute and keep the unconditional prediction from now on."""
        self._has_both = True
        self._guided.keep_unconditional()

    def unconditional(self) -> Tensor:
        """Return the unconditional prediction of the latest call."""
        return self._guided.unconditional() if self._unconditional is None else self._unconditional

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Return the result of the earlier run, or that of the model, and keep it."""
        tensors = 1 + self._has_both
        if self._files is None:
            # A job may sample more than once, from other latents.
            self._phase += f"-{_digest([noisy])[:_NAME_LENGTH]}"
            files = self._kept.found(self._phase, tensors * noisy.nbytes)
            self._files = files[: len(files) // self._interval * self._interval]
        number, self._number = self._number, self._number + 1
        if number < len(self._files):
            if self._interval > 1 and number >= len(self._files) - self._interval:
                self._model(noisy, sigma, step)  # the next group depends on its state
            read = _read(self._files[number], (tensors, *noisy.shape), noisy.dtype)
            read = read.to(noisy.device)
            self._unconditional = read[1] if self._has_both else None
            return read[0]
        self._unconditional = None
        began = time.monotonic()
        result = self._model(noisy, sigma, step)
        if number == 0:
            # Short jobs are not worth the writing. A graphics card has finished when it is read.
            result.flatten()[0].item()
            self._is_keeping = (time.monotonic() - began) * self._calls >= LEAST_SECONDS
        if self._is_keeping:
            self._keep(number, [result, self.unconditional()] if self._has_both else [result])
        return result

    def _keep(self, number: int, tensors: list[Tensor]) -> None:
        try:
            self._kept.keep(self._phase, number, tensors)
        except OSError as error:
            # The space, if it is that, is for the result.
            self._is_keeping = False
            if not self._files:
                self._kept.remove()
            logger.warning(
                "The steps cannot be kept (%s): if this job is killed, it begins again.",
                error.strerror,
            )


def remove_kept(folder: Path, *, but: Collection[str]) -> None:
    """Remove the kept calls in a folder, but those of the jobs with these digests."""
    names = {digest[:_NAME_LENGTH] for digest in but}
    form = re.compile(rf"\.([0-9a-f]{{{_NAME_LENGTH}}}){re.escape(_SUFFIX)}")
    with suppress(OSError):  # the folder is not there
        for path in folder.glob(f".*{_SUFFIX}"):
            found = form.fullmatch(path.name)
            if found and found[1] not in names and (path / _KEY_FILE).is_file():
                shutil.rmtree(path, ignore_errors=True)


def _bytes(tensor: Tensor) -> memoryview:
    values: memoryview = tensor.cpu().contiguous().numpy().data
    return values


def _digest(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _is_intact(path: Path, size: int) -> bool:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError:
        return False
    return path.name.endswith(digest.hexdigest())


def _read(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a file's tensors, which stay in the file until they are used."""
    try:
        flat = torch.from_file(str(path), shared=False, size=prod(shape), dtype=dtype)
    except RuntimeError as error:
        raise AnimateDiffV2VError(
            f"{path} has vanished: another worker has finished this unit, or someone has removed "
            "the folder."
        ) from error
    return flat.view(shape)
