"""Error messages of the library with the input names of the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..pipeline import AnimateDiffV2VError

# What the batch command says, and what to do in a graph.
_FOR_GRAPH = {
    "give the same command again": "run the graph again",
    "move it away, or set overwrite to replace it": "move it away, or choose another output_folder",
}


def for_graph(sentence: str) -> str:
    """Return a sentence of a batch in the words of the node."""
    for said, meant in _FOR_GRAPH.items():
        sentence = sentence.replace(said, meant)
    return sentence


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
