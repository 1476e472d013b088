"""Error messages of the library with the input names of the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..pipeline import AnimateDiffV2VError


@contextmanager
def naming_inputs(**inputs: str) -> Iterator[None]:
    """Replace the library's field names in an AnimateDiffV2VError by input names.

    Names are only replaced at the start of a message or after a comma: elsewhere, the same word can
    be part of a file name.

    Args:
        **inputs: input names by field name.
    """
    try:
        yield
    except AnimateDiffV2VError as error:
        sentence = str(error)
        for field, name in inputs.items():
            sentence = re.sub(rf"(?:^|(?<=, )){field}(?= is )", name, sentence)
        if sentence == str(error):
            raise
        raise AnimateDiffV2VError(sentence) from error
