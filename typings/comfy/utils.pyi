from typing import Any

class ProgressBar:
    def __init__(self, total: int) -> None: ...
    def update_absolute(
        self, value: int, total: int | None = None, preview: Any = None
    ) -> None: ...
