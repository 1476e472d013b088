"""Damaged graphs: parts removed, exchanged, repeated, of another type, in circles."""

from __future__ import annotations

import copy
import random

STRANGE = [
    None, True, -1, 0, 10**20, 1.5, float("nan"), "", "ADE_UseEvolvedSampling", "\ud800", [], {},
    [1, 2], ["1", 0], {"0": 1}, "Reroute", -10, -20, [[[[]]]],
]  # fmt: skip


def mutated(graph, seed):
    """A copy of a graph with one to eight damages; the same seed makes the same."""
    draw = random.Random(seed)
    graph = copy.deepcopy(graph)
    for _ in range(draw.randint(1, 8)):
        places = list(_places(graph))
        holder, key = draw.choice(places)
        draw.choice([_remove, _exchange, _strange, _repeat, _circle])(
            draw, graph, holder, key, places
        )
    return graph


def _places(value, depth=0):
    """All places in JSON, as what holds them and the key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list) and depth < 8:
            yield from _places(inner, depth + 1)


def _remove(_draw, _graph, holder, key, _places):
    if key in holder if isinstance(holder, dict) else key < len(holder):
        del holder[key]


def _exchange(draw, _graph, holder, key, places):
    other, other_key = draw.choice(places)
    try:
        copied = copy.deepcopy(other[other_key])
        _put(holder, key, copied)
    except (KeyError, IndexError):
        pass


def _strange(draw, _graph, holder, key, _places):
    _put(holder, key, copy.deepcopy(draw.choice(STRANGE)))


def _repeat(draw, _graph, holder, key, _places):
    if isinstance(holder, list) and key < len(holder):
        holder.extend(copy.deepcopy([holder[key]] * draw.randint(1, 3)))


def _circle(draw, graph, _holder, _key, _places):
    """Let links come from where they go, or from any node."""
    links = graph.get("links") if isinstance(graph, dict) else None
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    if not isinstance(links, list) or not isinstance(nodes, list):
        return
    ids = [each.get("id") for each in nodes if isinstance(each, dict)]
    for row in links:
        if isinstance(row, list) and len(row) > 3 and ids and draw.random() < 0.5:
            row[1] = draw.choice([row[3], draw.choice(ids)])


def _put(holder, key, value):
    if isinstance(holder, dict) or key < len(holder):
        holder[key] = value
