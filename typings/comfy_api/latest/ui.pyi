from collections.abc import Sequence
from typing import Any

from .io import FolderType

class SavedResult:
    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None: ...

class _Shown:
    def as_dict(self) -> dict[str, Any]: ...

class SavedImages(_Shown):
    def __init__(self, results: Sequence[SavedResult], is_animated: bool = False) -> None: ...

class PreviewVideo(_Shown):
    def __init__(self, values: Sequence[SavedResult]) -> None: ...
