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
) -> list[list[Token]]:
    """Turn a prompt into chunks of exactly 77 tokens, at least one.

    find_embedding: gives the vectors [count, channels] of a textual inversion by the name that
    follows `embedding:` in the prompt, or None if there is none of that name.
    """
    groups = [
        group
        for part in parse_weights(prompt)
        for group in _token_groups(part.text, part.weight, tokenize, find_embedding)
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
    text: str, weight: float, tokenize: Callable[[str], list[int]], find_embedding: FindEmbedding
) -> list[list[Token]]:
    groups = []
    for piece in re.split(r"(?<=\s)(?=embedding:)", text):
        rest = piece
        if piece.startswith("embedding:"):
            vectors, rest = _embedding(piece.removeprefix("embedding:"), find_embedding)
            groups.append([Token(vector, weight) for vector in vectors])
        if rest:
            groups.append([Token(token, weight) for token in tokenize(rest)])
    return [group for group in groups if group]


def _embedding(text: str, find_embedding: FindEmbedding) -> tuple[list[Tensor], str]:
    """Look up the name that `text` begins with; return its vectors and the text after it."""
    words = text.split()
    if not words:
        return [], ""
    name = re.split(r"[<\[]", words[0])[0]
    after = " ".join([words[0][len(name) :], *words[1:]]).strip()
    bare = name.strip(",")
    for candidate in dict.fromkeys((name, bare)):
        vectors = find_embedding(candidate)
        if vectors is not None:
            return list(vectors), f"{name[len(candidate) :]} {after}".strip()
    return [], f"{name[len(bare) :]} {after}".strip()
