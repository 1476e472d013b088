"""Conversion of a prompt into CLIP's input: chunks of 77 weighted tokens, as in ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from .weights import parse_weights

CHUNK_LENGTH = 77  # start token, 75 of the prompt, end token
LONGEST_NAME = 255  # characters in the file name of an embedding
# A run of equal weight shorter than this moves to the next chunk instead of being split.
UNTORN_LENGTH = 8

_IDENTIFIER = "embedding:"
_PUNCTUATION = re.compile(r"[^\w/\\-]")
# Positions directly after punctuation that ends a name.
_NEXT = re.compile(r"((?:(?<=[^\w\s/\\-])| [^\w\s]*)embedding:)")
_PUNCTUATION_IN_TEXT = re.compile(r"[,;:!?|()\[\]{}\"']|\.$")  # a dot inside may belong to the name

FindEmbedding = Callable[[str], "Tensor | None"]


@dataclass(frozen=True)
class Token:
    """One position of CLIP's input: a vocabulary id, or an embedding [channels] instead."""

    value: int | Tensor
    weight: float = 1.0


def chunk_prompt(
    prompt: str,
    *,
    tokenize: Callable[[str], list[int]],
    find_embedding: FindEmbedding,
    start_token: int,
    end_token: int,
    on_missing: Callable[[str], None] = lambda name: None,
) -> list[list[Token]]:
    """Turn a prompt into chunks of exactly 77 tokens, at least one.

    Args:
        prompt: the text, with weights.
        tokenize: returns the token ids of a text.
        find_embedding: returns the vectors [count, channels] of a textual inversion by the name
            after `embedding:` in the prompt, or None if there is none of that name.
        start_token: the id of CLIP's start token.
        end_token: the id of CLIP's end token.
        on_missing: called with the name of each embedding that does not exist.
    """
    find = cache(find_embedding)  # reads a file
    groups = [
        group
        for part in parse_weights(prompt)
        for group in _token_groups(part.text, part.weight, tokenize, find, on_missing)
    ]
    room = CHUNK_LENGTH - 2
    chunks: list[list[Token]] = [[]]
    for group in groups:
        rest = group
        while len(chunks[-1]) + len(rest) > room:
            if len(group) >= UNTORN_LENGTH:
                free = room - len(chunks[-1])
                chunks[-1] += rest[:free]
                rest = rest[free:]
            chunks.append([])
        chunks[-1] += rest
    start, end = Token(start_token), Token(end_token)
    return [[start, *chunk, *[end] * (CHUNK_LENGTH - 1 - len(chunk))] for chunk in chunks]


def _token_groups(
    text: str,
    weight: float,
    tokenize: Callable[[str], list[int]],
    find: FindEmbedding,
    on_missing: Callable[[str], None],
) -> list[list[Token]]:
    """Return token ids and vectors of one weight, in groups to be kept in one chunk if they fit."""
    groups = []
    for piece in re.split(r"(?<=\s)(?=embedding:)", text):
        rest = piece
        if piece.startswith(_IDENTIFIER):
            # Text after each identifier; in between, the next identifier and the text before it.
            parts = _NEXT.split(" ".join(piece.removeprefix(_IDENTIFIER).split()))
            for index in range(0, len(parts), 2):
                vectors, rest = _embedding(parts[index], find, on_missing)
                groups.append([Token(vector, weight) for vector in vectors])
                following = "".join(parts[index + 1 : index + 2])
                between = (rest + following.removesuffix(_IDENTIFIER)).strip()
                if not following or not re.fullmatch(r"[^\w\s]*", between):
                    rest = "".join([rest, *parts[index + 1 :]]).strip()
                    break
                groups.append([Token(token, weight) for token in tokenize(between)])
        groups.append([Token(token, weight) for token in tokenize(rest)])
    return [group for group in groups if group]


def _embedding(
    text: str, find: FindEmbedding, on_missing: Callable[[str], None]
) -> tuple[list[Tensor], str]:
    """Look up the name that `text` begins with; return its vectors and the text after it.

    The name is the first word, as in ComfyUI: up to "<" or "[", and without commas at its end.
    If no embedding has that name, punctuation inside the word ends it: `embedding:a,word`.
    """
    if not text:
        return [], ""
    name = re.split(r"[<\[ ]", text, maxsplit=1)[0]
    after = text[len(name) :].strip()
    ends = [match.start() for match in _PUNCTUATION.finditer(name, 0, LONGEST_NAME + 1)]
    shorter = [name[:end] for end in reversed(ends)]
    for candidate in dict.fromkeys((name, name.strip(","), *shorter)):
        vectors = find(candidate) if 0 < len(candidate) <= LONGEST_NAME else None
        if vectors is not None:
            rest = name[name.index(candidate) + len(candidate) :]
            return list(vectors), f"{rest} {after}".strip()
    end = _PUNCTUATION_IN_TEXT.search(name)
    missing = name[: end.start()] if end else name
    on_missing(missing)
    return [], f"{name[len(missing) :]} {after}".strip()
