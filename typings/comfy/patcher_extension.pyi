from collections.abc import Callable
from typing import Any

class WrappersMP:
    PREPARE_SAMPLING: str
    DIFFUSION_MODEL: str
    OUTER_SAMPLE: str

class WrapperExecutor:
    class_obj: Any
    wrappers: list[Callable[..., Any]]
    idx: int
    @classmethod
    def new_class_executor(
        cls,
        original: Callable[..., Any],
        class_obj: object,
        wrappers: list[Callable[..., Any]],
        idx: int = 0,
    ) -> WrapperExecutor: ...
    def execute(self, *args: Any, **kwargs: Any) -> Any: ...
