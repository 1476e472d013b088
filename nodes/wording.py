"""The library's sentences in the words of the nodes, whose inputs have some other names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..pipeline import AnimateDiffV2VError


@contextmanager
def naming_inputs(**inputs: str) -> Iterator[None]:
    """Name inputs, given as field=input, where an AnimateDiffV2VError names the library's fields.

    Fields stand first of all in a sentence, or after a comma; elsewhere the same letters can be
    part of a file's name.
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
