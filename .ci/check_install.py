"""Resolve constraints.txt and requirements.txt from the package index, for all they are for.

Nothing is installed, and wheels alone count: a package that has none does not install on a
machine without a compiler. `make check-install` leaves out the machine's settings of pip and uv.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = ("linux", "windows", "macos")
# PyTorch has no wheels for an older one.
LOWEST_MACOS = "14.0"
# Packages installed in ComfyUIs, and the huggingface_hub beside an older one: pip keeps it unless
# a requirement wants a newer one.
HOSTS = {"transformers==4.57.*": "0.36.0", "transformers==5.*": ""}
HOST_PYTHON = "3.12"


@dataclass(frozen=True)
class Resolution:
    """Packages to resolve for a machine, and the huggingface_hub that must not change."""

    title: str
    sources: tuple[str, ...]
    python: str
    platform: str
    installed: str = ""
    hub: str = ""


def main() -> int:
    """Return 1 where something cannot be resolved, else 0; print what was done."""
    if not index_answers():
        print("check-install: the package index did not answer; nothing was checked.", flush=True)
        return 0
    subprocess.run(["make", "--silent", ".venv-lock/.ready"], cwd=ROOT, check=True)
    return check(ROOT, ROOT / ".venv-lock/bin/uv")


def index_answers() -> bool:
    """Return whether the index answers for a package that it has; print pip's output if not."""
    ask = ["index", "versions", "uv", "--retries", "1", "--timeout", "30"]
    return (
        subprocess.run([sys.executable, "-m", "pip", *ask], stdout=DEVNULL, check=False).returncode
        == 0
    )


def check(root: Path, uv: Path) -> int:
    """Resolve all that a project claims with that uv, and print each; return 1 if one failed."""
    todo = resolutions(root)
    with ThreadPoolExecutor(8) as pool:
        complaints = list(pool.map(lambda each: complaint(each, root, uv), todo))
    for resolution, words in zip(todo, complaints, strict=True):
        print(
            f"FAILED    {resolution.title}\n{words}" if words else f"resolved  {resolution.title}"
        )
    print(f"check-install: {complaints.count('')} of {len(todo)} resolved")
    return int(any(complaints))


def resolutions(root: Path) -> list[Resolution]:
    """List a resolution for each Python that the classifiers claim and each platform, and ComfyUIs.

    The lock has one version of a package for a machine: what resolves with all extras does without.
    """
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    lock = [
        Resolution(
            f"constraints.txt for Python {python}, {platform}",
            ("pyproject.toml", "--all-extras", "--constraint", "constraints.txt"),
            python,
            platform,
        )
        for python in re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
        for platform in PLATFORMS
    ]
    hosts = [
        Resolution(
            f"requirements.txt in a ComfyUI with {installed}",
            ("requirements.txt", "--constraint", "-"),
            HOST_PYTHON,
            "linux",
            installed,
            hub,
        )
        for installed, hub in HOSTS.items()
    ]
    return lock + hosts


def complaint(resolution: Resolution, root: Path, uv: Path) -> str:
    """Return what is wrong with a resolution, or nothing."""
    machine = ["--python-version", resolution.python, "--python-platform", resolution.platform]
    output = ["--only-binary", ":all:", "--no-header", "--no-annotate"]
    settings = {
        "MACOSX_DEPLOYMENT_TARGET": LOWEST_MACOS,
        "UV_PYTHON_DOWNLOADS": "never",  # resolving for a Python does not need it installed
    }
    with TemporaryDirectory() as folder:
        # uv keeps the versions of an earlier output where it can.
        kept = Path(folder, "kept.txt")
        kept.write_text(f"huggingface-hub=={resolution.hub}\n" if resolution.hub else "")
        done = subprocess.run(
            [uv, "pip", "compile", *resolution.sources, *machine, *output, "--output-file", kept],
            cwd=root,
            env=os.environ | settings,
            input=resolution.installed,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return done.stderr
    hub = re.search(r"^huggingface-hub==(.*)$", done.stdout, re.MULTILINE)
    if resolution.hub and hub and hub[1] != resolution.hub:
        return f"huggingface_hub would become {hub[1]}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
