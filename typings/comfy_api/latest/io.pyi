"""Schemas, sockets and widgets of nodes."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar

class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"

class HiddenHolder:
    unique_id: str
    prompt: Any
    extra_pnginfo: Any

class UploadType(str, Enum):
    video = "video_upload"

class FolderType(str, Enum):
    output = "output"
    temp = "temp"

class Input:
    id: str
    def __init__(
        self,
        id: str,
        *,
        optional: bool = False,
        advanced: bool | None = None,
        tooltip: str | None = None,
    ) -> None: ...

class Output:
    def __init__(self, *, display_name: str | None = None, tooltip: str | None = None) -> None: ...

_Input = Input
_Output = Output

class _Type:
    class Output(_Output): ...

class _Socket(_Type):
    class Input(_Input): ...

class Image(_Socket): ...
class Mask(_Socket): ...
class Latent(_Socket): ...
class Conditioning(_Socket): ...
class Model(_Socket): ...
class Clip(_Socket): ...
class ClipVision(_Socket): ...
class Vae(_Socket): ...
class Audio(_Socket): ...
class Video(_Socket): ...
class Sampler(_Socket): ...
class Sigmas(_Socket): ...

def Custom(io_type: str) -> type[_Socket]: ...

class Boolean(_Type):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: bool,
            optional: bool = False,
            advanced: bool | None = None,
            tooltip: str | None = None,
        ) -> None: ...

class Int(_Type):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: int,
            min: float,
            max: float,
            step: int | None = None,
            control_after_generate: bool | None = None,
            optional: bool = False,
            advanced: bool | None = None,
            tooltip: str | None = None,
        ) -> None: ...

class Float(_Type):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: float | None = None,
            min: float,
            max: float,
            step: float | None = None,
            optional: bool = False,
            advanced: bool | None = None,
            force_input: bool | None = None,
            tooltip: str | None = None,
        ) -> None: ...

class String(_Type):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: str,
            multiline: bool = False,
            dynamic_prompts: bool | None = None,
            optional: bool = False,
            advanced: bool | None = None,
            tooltip: str | None = None,
        ) -> None: ...

class Combo(_Type):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            options: Sequence[str],
            default: str | None = None,
            upload: UploadType | None = None,
            optional: bool = False,
            advanced: bool | None = None,
            tooltip: str | None = None,
        ) -> None: ...

class Schema:
    node_id: str
    def __init__(
        self,
        *,
        node_id: str,
        display_name: str,
        category: str,
        description: str,
        inputs: Sequence[Input],
        outputs: Sequence[Output],
        search_aliases: Sequence[str] = (),
        hidden: Sequence[Hidden] = (),
        is_output_node: bool = False,
    ) -> None: ...

class NodeOutput:
    result: tuple[Any, ...]
    ui: Any
    def __init__(self, *args: Any, ui: Any = None) -> None: ...

# `execute`, `validate_inputs` and `fingerprint_inputs` take the inputs of each node by name.
class ComfyNode:
    hidden: ClassVar[HiddenHolder]
    @classmethod
    def define_schema(cls) -> Schema: ...

class NodeReplace:
    def __init__(
        self,
        new_node_id: str,
        old_node_id: str,
        old_widget_ids: list[str] | None = None,
        input_mapping: list[dict[str, Any]] | None = None,
        output_mapping: list[dict[str, int]] | None = None,
    ) -> None: ...
