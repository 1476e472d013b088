"""An output folder at a URL: results are made in a folder of this machine, and put there."""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..pipeline.errors import AnimateDiffV2VError
from .digests import FileDigests, Stamp, content_digest, models_digest, stamp_of, unit_digest
from .plan import marked
from .remote import INPUTS_FOLDER, RemoteInputs, copy_file, filesystem, in_words, local_name, url_of
from .report import PAGE
from .run import Result
from .unit import Unit, unit_document, unit_restored

PLAN = ".plan.json"
# Has an empty file for each result, RESULT/DIGEST-FILES, so that one listing says what is done.
MARKS = ".units"

logger = logging.getLogger(__name__)


def working_folder(url: str) -> Path:
    """Return the folder of this machine in which the results for a URL are made."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(cache).expanduser().absolute() / "animatediff-v2v" / "batch" / local_name(url)


class RemoteFolder:
    """An output folder at a URL. Results are put there under a hidden name, then moved."""

    def __init__(self, url: str) -> None:
        """List what is there.

        Attributes:
            url: The URL.
            folder: The folder of this machine in which results are made.

        Raises:
            AnimateDiffV2VError: the URL cannot be read.
        """
        self.url, self.folder = url.rstrip("/"), working_folder(url)
        self._digests = _Digests()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._guard = threading.Lock()
        with in_words(self.url, doing="read"):
            self._files, self._root = filesystem(self.url)
            self._root = self._root.rstrip("/")
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._root, detail=True)
            except FileNotFoundError:  # it may be made when the plan is written
                found = {}
        self._entries = {path[len(self._root) + 1 :]: entry for path, entry in found.items()}

    @property
    def page(self) -> str:
        """The address of the page."""
        return f"{self.url}/{PAGE}"

    # --- the plan, for other machines ------------------------------------------------------------

    def put_plan(self, units: Sequence[Unit]) -> None:
        """Write the plan; this also shows before the work begins that the URL can be written."""
        plan = {"folder": str(self.folder), "units": [unit_document(unit) for unit in units]}
        with in_words(self.url, doing="written"):
            self._files.pipe_file(f"{self._root}/{PLAN}", json.dumps(plan).encode())

    def units(self) -> list[Unit]:
        """Return the planned units, with paths in the working folder of this machine."""
        if PLAN not in self._entries:
            raise AnimateDiffV2VError(
                f"{self.url} holds no plan: run `batch INPUT... {self.url} --plan-only` first."
            )
        with in_words(self.url, doing="read"):
            text = self._files.cat_file(f"{self._root}/{PLAN}").decode()
        planned_in = json.dumps(json.loads(text)["folder"])[:-1]
        text = text.replace(planned_in, json.dumps(str(self.folder))[:-1])
        return [unit_restored(each) for each in json.loads(text)["units"]]

    # --- what is there already -------------------------------------------------------------------

    def is_done(self, unit: Unit) -> bool:
        """Return whether a unit's result was there, complete, when the folder was listed."""
        name = self._name(unit.target)
        count = sum(each == name or each.startswith(f"{name}/") for each in self._entries)
        return bool(count) and f"{MARKS}/{name}/{unit.digest}-{count}" in self._entries

    def fetched(self, units: Sequence[Unit], *, overwrite: bool) -> list[Unit]:
        """Fetch results of a plan that other machines have put there.

        Args:
            units: The plan.
            overwrite: Replace files there that are not results of a batch.

        Returns:
            The plan, with a problem in units whose result would replace another's file.
        """
        results = {each for key in self._entries for each in _with_parents(key)}
        there = {unit.name for unit in units if self.is_done(unit)}
        needless = {need for unit in units if unit.name in there for need in unit.needs}
        checked = []
        for unit in units:
            name = self._name(unit.target)
            is_wanted = unit.name in there - needless and unit.target.suffix != ".gif"
            # Gifs hold no digest, so that they could not be recognised here.
            if is_wanted and marked(unit.target) != unit.digest:
                self._fetch(name, unit.target)
            is_foreign = name in results and f"{MARKS}/{name}" not in results
            if is_foreign and unit.kind in ("clip", "join") and not (overwrite or unit.problem):
                unit = replace(  # noqa: PLW2901
                    unit,
                    problem=f"{self.url}/{name} exists already and is not of a batch: move it "
                    "away, or set overwrite to replace it.",
                )
            checked.append(unit)
        return checked

    def _fetch(self, name: str, target: Path) -> None:
        with in_words(f"{self.url}/{name}", doing="copied"):
            for key in [each for each in self._entries if f"{each}/".startswith(f"{name}/")]:
                made = target / key[len(name) + 1 :]
                part = made.with_name(f".{made.name[:40]}.copy")
                path = f"{self._root}/{key}"
                copy_file(self._files, path, self._entries[key], made, part=part)

    # --- putting results there -------------------------------------------------------------------

    def put_soon(self, unit: Unit) -> None:
        """Put a result there in the background; `put_all` tries again what fails.

        Parts are left out: this machine joins them.
        """
        if unit.kind == "part":
            return

        def put() -> None:
            try:
                self.put(unit)
            except AnimateDiffV2VError as error:
                logger.warning("%s", error)

        self._thread.submit(put)

    def put_all(self, units: Iterable[Unit]) -> None:
        """Put the results of units there, and the page, but not what is there already.

        Raises:
            AnimateDiffV2VError: the URL cannot be written.
        """
        for unit in units:
            self.put(unit)
        with in_words(self.url, doing="written"):
            self._put_file(self.folder / PAGE, PAGE)

    def stop(self) -> None:
        """Put no more results there after the one at hand."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, unit: Unit) -> None:
        """Put a unit's result there, unless it is there already.

        Raises:
            AnimateDiffV2VError: the URL cannot be written, or the result is gone.
        """
        stamp_of(unit.target)  # says so if it is gone
        name = self._name(unit.target)
        with self._guard, in_words(f"{self.url}/{name}", doing="written"):
            if self.is_done(unit):
                return
            self._remove(name)
            paths = sorted(unit.target.iterdir()) if unit.target.is_dir() else [unit.target]
            # First, so that a file without one is known not to be of a batch.
            mark = f"{MARKS}/{name}/{unit.digest}-{len(paths)}"
            self._files.pipe_file(f"{self._root}/{mark}", b"")
            for path in paths:
                key = self._name(path)
                self._put_file(path, key)
                self._entries[key] = {}
            self._entries[mark] = {}
            for part in unit.parts if unit.kind == "join" else ():
                self._remove(self._name(part))

    def _put_file(self, path: Path, key: str) -> None:
        import fsspec  # noqa: PLC0415 - see `filesystem`

        hidden = PurePosixPath(key).with_name(f".{path.name}.{platform.node()}.part")
        made, final = f"{self._root}/{hidden}", f"{self._root}/{key}"
        self._files.put_file(str(path), made)
        if type(self._files).mv is fsspec.AbstractFileSystem.mv:  # it would take [1] for a pattern
            self._files.cp_file(made, final)
            self._files.rm_file(made)
        else:
            self._files.mv(made, final)

    def _remove(self, name: str) -> None:
        """Remove a result and what says that it is done."""
        places = (f"{MARKS}/{name}/", f"{name}/")
        for key in [each for each in self._entries if f"{each}/".startswith(places)]:
            self._files.rm_file(f"{self._root}/{key}")
            del self._entries[key]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    # --- the work on units of another machine ----------------------------------------------------

    def render(self, unit: Unit, render: Callable[[Unit], Result]) -> Result:
        """Fetch a unit's clip, write its result, and put it there.

        Raises:
            AnimateDiffV2VError: a file differs from the planned one, or the URL fails.
        """
        if unit.problem:
            raise AnimateDiffV2VError(unit.problem)
        inputs = self.folder / INPUTS_FOLDER
        if unit.request.input.is_relative_to(inputs):
            RemoteInputs(inputs).paths(url_of(unit.request.input.relative_to(inputs)))
        if marked(unit.target) == unit.digest:
            made = Result(content_digest(unit.target), stamp_of(unit.target), unit.frames)
        else:
            made = render(self._as_planned(unit))
        self.put(unit)
        return made

    def _as_planned(self, unit: Unit) -> Unit:
        """Return a unit with this machine's times of its files, whose contents are as planned."""
        digests = FileDigests(self._digests)
        models = models_digest(unit.files, digests)
        if unit_digest("restyle", unit.request, models, digests, []) != unit.digest:
            what = "a model file" if models != unit.models else "its clip, another file"
            raise AnimateDiffV2VError(
                f"{unit.name}: {what} or the version of animatediff-v2v differs from the plan's: "
                "use the same ones here, or give the `batch` command again to plan anew."
            )
        return replace(unit, stamps={path: stamp_of(Path(path)) for path in unit.stamps})


class _Digests(dict[tuple[Path, Stamp], str]):
    """Digests of files that have not changed since they were taken."""

    def digest_of(self, path: Path, stamp: Stamp) -> str | None:
        return self.get((path, stamp))

    def keep_digest(self, path: Path, stamp: Stamp, digest: str) -> None:
        self[path, stamp] = digest


def _with_parents(key: str) -> list[str]:
    return [key, *map(str, PurePosixPath(key).parents)]
