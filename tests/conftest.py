"""Fixtures of all tests: tiny networks with seeded random weights."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's kernels then run in its interpreter; it must be told before it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from animatediff_v2v.pipeline import load_models
from hypothesis import settings

# The same examples on every machine, and no limit on the time that one takes.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# Networks this small gain nothing from a second thread, and wait for it on a busy machine.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def random_weights():
    """The demo's module that draws networks."""
    path = ROOT / "demo" / "random_weights.py"
    spec = importlib.util.spec_from_file_location("random_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def weights(random_weights, tmp_path_factory):
    """A folder of checkpoint, motion module and LoRA."""
    folder = tmp_path_factory.mktemp("weights")
    random_weights.write_weights(folder)
    return folder


def _load(folder, **options):
    return load_models(
        folder / "checkpoint.safetensors",
        device=torch.device("cpu"),
        dtype=torch.float32,
        **options,
    )


@pytest.fixture(scope="session")
def models(weights):
    """The networks with a motion module (v2-shaped, at most 32 frames)."""
    return _load(weights, motion_module=weights / "motion_module.safetensors")


@pytest.fixture(scope="session")
def still_models(weights):
    """The same without a motion module."""
    return _load(weights)
