"""The declarations of the nodes, read without ComfyUI.

A stand-in for the part of ComfyUI's node API that schemas are written in: it keeps what it is
given. `tests/host` compares the result with what a real ComfyUI makes of the same schemas.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

PACKAGE = "animatediff_v2v.nodes"
# Stands for the file names in combos that list files, among their fixed choices.
ANY_FILE = "<files>"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@dataclass
class Input:
    """An input as it was declared; `options` are all other keywords."""

    name: str
    type: str
    options: dict[str, Any]

    @property
    def is_optional(self) -> bool:
        return bool(self.options.get("optional"))

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGETS and not self.options.get("force_input")


@dataclass
class Output:
    """An output as it was declared."""

    type: str
    display_name: str
    tooltip: str


@dataclass
class Schema:
    """The fields that the lowest supported ComfyUI, 0.14.0, knows; it refuses others."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Any] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    price_badge: Any = None
    not_idempotent: bool = False
    enable_expand: bool = False
    accept_all_inputs: bool = False

    @property
    def ordered_inputs(self) -> list[Input]:
        """Return the inputs in the order of graphs and prompts: required ones first."""
        return sorted(self.inputs, key=lambda each: each.is_optional)


class _Type:
    """`io.Int` and its like: what makes inputs and outputs of one type."""

    def __init__(self, name: str) -> None:
        self._name = name

    def Input(self, name: str, **options: Any) -> Input:
        return Input(name, self._name, options)

    def Output(self, *, display_name: str, tooltip: str) -> Output:
        return Output(self._name, display_name, tooltip)


def _node_api() -> SimpleNamespace:
    names = (
        "Int Float String Boolean Combo Image Mask Latent Audio Video Model Clip Vae Conditioning "
        "Sampler Sigmas"
    )
    return SimpleNamespace(
        **{name: _Type(name.upper()) for name in names.split()},
        ClipVision=_Type("CLIP_VISION"),
        Custom=_Type,
        ComfyNode=object,
        Schema=Schema,
        Hidden=Mock(),
        NodeReplace=Mock(),
        UploadType=Mock(),
        FolderType=Mock(),
    )


def node_api() -> dict[str, Any]:
    """The modules of ComfyUI that nodes are written with."""
    api = Mock()
    api.node_replacement.register = AsyncMock()
    return {
        "comfy_api": Mock(),
        "comfy_api.latest": Mock(
            io=_node_api(), ComfyExtension=object, ComfyAPI=Mock(return_value=api)
        ),
    }


def _stand_ins() -> dict[str, Any]:
    """ComfyUI's modules, and ours that import many of them: `nodes/host`, and the server's routes.

    While schemas are read, nothing but combos needs the host.
    """
    return {
        **node_api(),
        f"{PACKAGE}.host": Mock(
            MOTION_MODULES="animatediff_models",
            MOTION_LORAS="animatediff_motion_lora",
            IP_ADAPTERS="ipadapter",
            model_names=lambda _folder: [ANY_FILE],
            vae_names=lambda: [ANY_FILE],
            input_videos=lambda: [ANY_FILE],
        ),
        **{
            f"{PACKAGE}.{name}": Mock()
            for name in (
                "hosted_api.mount",
                "miniature_route",
                "selection_route",
            )
        },
    }


@contextmanager
def without_comfyui() -> Iterator[None]:
    """Install the stand-ins; afterwards, remove all modules that have imported them."""
    stand_ins = _stand_ins()
    before = {name: each for name, each in sys.modules.items() if _is_ours(name, stand_ins)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(stand_ins)
    # `from . import host` takes a package's attribute before its module.
    package = importlib.import_module(PACKAGE)
    attributes = {name: each for name, each in vars(package).items() if _is_submodule(each)}
    for name in attributes:
        delattr(package, name)
    try:
        yield
    finally:
        for name in [name for name, each in vars(package).items() if _is_submodule(each)]:
            delattr(package, name)
        vars(package).update(attributes)
        for name in [name for name in sys.modules if _is_ours(name, stand_ins)]:
            del sys.modules[name]
        sys.modules.update(before)


def _is_submodule(value: Any) -> bool:
    return isinstance(value, ModuleType) and value.__name__.startswith(f"{PACKAGE}.")


def _is_ours(name: str, stand_ins: dict[str, Any]) -> bool:
    return name in stand_ins or name.startswith(f"{PACKAGE}.")


@cache
def schemas() -> dict[str, Schema]:
    """Return every node's schema by its id, in the order of the extension's list."""
    with without_comfyui():
        extension = importlib.import_module(f"{PACKAGE}.extension")
        nodes = asyncio.run(extension.AnimateDiffV2VExtension().get_node_list())
        found = [node.define_schema() for node in nodes]
    return {schema.node_id: schema for schema in found}
