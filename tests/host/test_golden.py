"""A real ComfyUI gives the numbers in tests/unit/sampling/golden, as `make golden` writes them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PATHS

SCRIPT = Path(__file__).with_name("golden_sampling.py")
GOLDEN = Path(__file__).parents[1] / "unit" / "sampling" / "golden"


def read(folder, name, key):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))[key]


@pytest.mark.parametrize("path", PATHS or [None], ids=lambda path: Path(path or "none").name)
def test_golden_tables_can_be_written_anew(path, tmp_path):
    if path is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    written = shutil.copytree(GOLDEN, tmp_path / "golden")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    subprocess.run([python, "-W", "ignore", SCRIPT, written], cwd=path, check=True)
    for case, (elements, norm, calls) in read(GOLDEN, "samplers", "results").items():
        found = read(written, "samplers", "results")[case]
        assert found[0] == pytest.approx(elements, abs=1e-5), case
        assert found[1] == pytest.approx(norm, rel=1e-5) and found[2] == calls, case
    for case, sigmas in read(GOLDEN, "sigmas", "sigmas").items():
        assert read(written, "sigmas", "sigmas")[case] == pytest.approx(sigmas, rel=1e-5), case
