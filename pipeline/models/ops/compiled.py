"""The UNet's layers as compiled code, for `MotionUNet.forward`.

Each kind of layer is compiled separately: all layers of a kind share its code, whatever their
weights, and so do all UNets of a process. The numbers of frames and tokens, height and width are
dynamic. Norms, activations, gates and additions between the heavy operations are fused into a few
kernels. The code always works on all tokens: a loop over chunks would be unrolled, and compiled
again for each length.

For GPUs that have no fused layers: on an NVIDIA H200 a step took 120 ms compiled, 145 ms eager and
93 ms fused. Not for CPUs, where the compiled UNet took 1.58 times as long (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...errors import AnimateDiffV2VError
from .eager import CrossAttentionKV
from .interface import Ops
from .select import EAGER_OPS
from .window_memory import RowMemory

# The first PyTorch in which the limit on recompilations has this name.
OLDEST_PYTORCH = "2.7"
# Compiled variants of a function: Stable Diffusion 1.5 has twelve kinds of resnets for each dtype
# and device.
_MAX_KINDS = 64


@contextmanager
def compiled_layers(
    device: torch.device, *, on_compile: Callable[[], None] = lambda: None
) -> Iterator[Ops]:
    """Provide compiled operations while the context is open.

    Code that was compiled earlier in this process is not compiled again, and PyTorch caches it on
    disk for the next process.

    Args:
        device: The device to compile for.
        on_compile: Called whenever compiling begins.

    Raises:
        AnimateDiffV2VError: nothing can be compiled for `device`, or compiling fails.
    """
    check_can_compile(device)
    from torch._dynamo import callback, config, exc  # noqa: PLC0415 (takes seconds)
    from torch.fx.experimental import _config as symbols  # noqa: PLC0415

    def tell(*_: object) -> None:
        on_compile()

    callback.callback_handler.register_start_callback(tell)
    try:
        with (
            config.patch(recompile_limit=_MAX_KINDS),
            # Otherwise equal numbers of frames and rows of pixels would be compiled separately.
            symbols.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        ):
            yield _layers()
    except exc.TorchDynamoException as error:
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())
        raise AnimateDiffV2VError(
            f"PyTorch could not compile the UNet's layers for {device.type}; switch compile off: "
            f"{reason}"
        ) from error
    finally:
        callback.callback_handler.remove_start_callback(tell)


def check_can_compile(device: torch.device) -> None:
    """Raise AnimateDiffV2VError, with the remedy, if nothing can be compiled for `device`."""
    obstacle = _obstacle(device)
    if obstacle is not None:
        raise AnimateDiffV2VError(f"compile is on, but {obstacle}, or switch compile off.")


def _obstacle(device: torch.device) -> str | None:
    if torch.__version__ < OLDEST_PYTORCH:
        return f"this is PyTorch {torch.__version__}: use {OLDEST_PYTORCH} or newer"
    if device.type == "cpu":
        return None if _has_cpp_compiler() else f"there is no C++ compiler: {_CPP_ADVICE}"
    if device.type not in ("cuda", "xpu"):
        return f"it is not made for {device.type}: use a CPU, or a GPU of NVIDIA, AMD or Intel"
    from torch.utils._triton import has_triton  # noqa: PLC0415 (may import Triton)

    if not has_triton():
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"PyTorch finds no Triton that works with this GPU: install the package {package}"
    # Triton for Windows includes a compiler.
    if sys.platform != "win32" and not _has_c_compiler():
        return "Triton needs a C compiler and there is none: install gcc or clang"
    return None


_CPP_ADVICE = (
    "install Visual Studio's Build Tools and start from their prompt, where cl is found"
    if sys.platform == "win32"
    else "install g++ or clang"
)


def _has_cpp_compiler() -> bool:
    """Return whether inductor, PyTorch's compiler, finds a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415 (takes seconds)
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415

    try:
        compiler = get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return False
    return shutil.which(compiler) is not None


def _has_c_compiler() -> bool:
    names = (os.environ.get("CC"), "gcc", "clang", "cc")
    return any(shutil.which(name) for name in names if name)


@cache
def _layers() -> Ops:
    """Return the compiled operations, which all jobs of a process share."""
    plain = EAGER_OPS
    resnet, transformer, motion = (
        torch.compile(function, dynamic=True)
        for function in (plain.resnet, plain.transformer, plain.motion)
    )

    def run_resnet(
        block: Any, features: Tensor, embedding: Tensor | None, num_frames: int
    ) -> Tensor:
        run = plain.resnet if _has_a_one(features) else resnet
        return run(block, features, embedding, num_frames)

    def run_transformer(
        block: Any,
        features: Tensor,
        prompts: CrossAttentionKV,
        num_frames: int,
        tokens_at_once: int | None,
        *,
        memory: RowMemory | None = None,
    ) -> Tensor:
        # A memory keeps tensors from one pass to the next, which would be compiled into the code.
        if memory is not None or _has_a_one(features):
            return plain.transformer(
                block, features, prompts, num_frames, tokens_at_once, memory=memory
            )
        # Rows that share a prompt may be an expanded view, for which code is compiled separately.
        each_row = [[source.in_memory() for source in sources] for sources in prompts]
        return transformer(block, features, each_row, num_frames, None)

    def run_motion(
        module: Any, features: Tensor, num_frames: int, tokens_at_once: int | None
    ) -> Tensor:
        # Video by video, because there are two with guidance and one without.
        videos = torch.split(features, num_frames)
        if _has_a_one(videos[0]):
            return plain.motion(module, features, num_frames, tokens_at_once)
        moved = [motion(module, video, num_frames, None) for video in videos]
        return moved[0] if len(moved) == 1 else torch.cat(moved)

    return Ops(run_resnet, run_transformer, run_motion, plain.activated_norm, plain.upsampler)


def _has_a_one(features: Tensor) -> bool:
    """Return whether an axis has length 1, for which PyTorch would compile separate code."""
    return 1 in features.shape
