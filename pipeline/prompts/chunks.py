"""From a prompt to what CLIP reads: chunks of 77 weighted tokens, as ComfyUI lays them out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .weights import parse_weights

CHUNK_LENGTH = 77  # start token, 75 of the prompt, end token
# A stretch of equal weight shorter than this moves to the next chunk rather than being torn.
UNTORN_LENGTH = 8

_IDENTIFIER = "embedding:"
_PUNCTUATION = re.compile(r"[^\w/\\-]")
_PUNCTUATION_IN_TEXT = re.compile(r"[,;:!?|()\[\]{}\"']|\.$")  # a dot inside may be of the name

FindEmbedding = Callable[[str], "Tensor | None"]


@dataclass(frozen=True)
class Token:
    """One position of CLIP's input: a vocabulary id, or an embedding [channels] in its place."""

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

    find_embedding: gives the vectors [count, channels] of a textual inversion by the name that
    follows `embedding:` in the prompt, or None if there is none of that name.
    on_missing: is told the name for which there is none.
    """
    groups = [
        group
        for part in parse_weights(prompt)
        for group in _token_groups(part.text, part.weight, tokenize, find_embedding, on_missing)
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
    """Token ids and vectors of one weight, in groups that stay together where they fit."""
    groups = []
    pieces = list(reversed(re.split(r"(?<=\s)(?=embedding:)", text)))
    while pieces:
        rest = pieces.pop()
        if rest.startswith(_IDENTIFIER):
            vectors, rest = _embedding(rest.removeprefix(_IDENTIFIER), find, on_missing)
            groups.append([Token(vector, weight) for vector in vectors])
            next_one = re.match(r"([^\w\s]*)(embedding:.*)", rest, re.DOTALL)
            if next_one:  # directly behind the punctuation that ends this one's name
                rest, another = next_one.groups()
                pieces.append(another)
        if rest:
            groups.append([Token(token, weight) for token in tokenize(rest)])
    return [group for group in groups if group]


def _embedding(
    text: str, find: FindEmbedding, on_missing: Callable[[str], None]
) -> tuple[list[Tensor], str]:
    """Look up the name that `text` begins with; return its vectors and the text after it.

    The name is the first word as ComfyUI reads it: up to "<" or "[", and without commas at its end.
    Where there is none of that name, punctuation inside of the word ends it: `embedding:a,word`.
    """
    words = text.split()
    if not words:
        return [], ""
    name = re.split(r"[<\[]", words[0])[0]
    after = " ".join([words[0][len(name) :], *words[1:]]).strip()
    shorter = [name[: match.start()] for match in _PUNCTUATION.finditer(name)]
    for candidate in dict.fromkeys((name, name.strip(","), *reversed(shorter))):
        vectors = find(candidate) if candidate else None
        if vectors is not None:
            rest = name[name.index(candidate) + len(candidate) :]
            return list(vectors), f"{rest} {after}".strip()
    end = _PUNCTUATION_IN_TEXT.search(name)
    missing = name[: end.start()] if end else name
    on_missing(missing)
    return [], f"{name[len(missing) :]} {after}".strip()
