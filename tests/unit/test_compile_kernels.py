"""The launches that `benchmarks/compile_kernels.py` compiles ahead of time."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from animatediff_v2v.pipeline.bench.networks import Sizes

pytest.importorskip("triton", reason="Triton is not installed")
TINY = Sizes(channels=(32,) * 4, vae_channels=(32,) * 4, layers=1, text_channels=32, heads=2)


def test_the_networks_launch_every_kernel(monkeypatch):
    """So each is compiled, with the types that it is launched with."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    module = importlib.import_module("compile_kernels")
    kernels = {
        name
        for name, value in vars(module.triton_kernels).items()
        if isinstance(value, module.KernelInterface)
    }
    with module.noted_launches() as launches:
        module.run_networks(frames=2, size=64, sizes=TINY)
    assert {launch.kernel for launch in launches} == kernels
    types = {kind for launch in launches for _, kind in launch.signature}
    assert types <= {"*fp16", "*fp32", "i32", "fp32", "constexpr"}
