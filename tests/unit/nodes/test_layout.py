"""The templates are readable where they open: nothing lies over, behind or beyond anything.

Positions are those of ComfyUI's frontend, which draws titles above nodes, slots 20 pixels apart,
and links as cubic curves that leave and enter horizontally. Nodes 2.0 draws slots on the edges of
nodes, and no node narrower than 225 pixels.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

TEMPLATES = sorted((Path(__file__).parents[3] / "workflows").glob("*.json"))
TITLE, SLOT = 30, 20
LEAST_WIDTH = 225
# How far within its node a slot is drawn.
INSETS = {"canvas": SLOT / 2, "nodes 2.0": 0}
# ComfyUI's menus lie over the left and upper edge of a window of 1600x1000.
SCREEN, MENU_LEFT, MENU_TOP = (1600, 1000), 60, 88
SMALLEST_SCALE = 0.7
# The one node is as high as its settings, its clip and its result.
SMALLEST_OF_ONE_NODE = 0.64
# Between a link and a node that it passes.
MARGIN = 6
POINTS = 60


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, node):
        (x, y), (width, height) = node["pos"], node["size"]
        return cls(x, y - TITLE, x + width, y + height)

    def overlaps(self, other, margin=0):
        across = self.left < other.right + margin and other.left < self.right + margin
        return across and self.top < other.bottom + margin and other.top < self.bottom + margin


def slot(node, number, *, is_input, inset):
    """The middle of a slot. Inputs of widgets stand by their widgets, below all slots."""
    (x, y), (width, _) = node["pos"], node["size"]
    side = x + inset if is_input else x + width - inset
    if not is_input:
        return side, y + (number + 0.7) * SLOT
    rows = [each for each in node["inputs"] if "widget" not in each]
    entry = node["inputs"][number]
    if "widget" not in entry:
        return side, y + (rows.index(entry) + 0.7) * SLOT
    widgets = [each for each in node["inputs"] if "widget" in each]
    start = max(len(rows), len(node["outputs"])) * SLOT + 8
    return side, y + start + widgets.index(entry) * (SLOT + 4) + SLOT / 2


def curve(start, end):
    """Points on a link, as the frontend draws it."""
    reach = max(30.0, 0.25 * math.dist(start, end))
    knots = (start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
    for index in range(POINTS + 1):
        t = index / POINTS
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        yield tuple(
            sum(weight * knot[axis] for weight, knot in zip(weights, knots, strict=True))
            for axis in (0, 1)
        )


def hidden(workflow, inset=SLOT / 2):
    """Links that pass behind a node, with the node: "4.images behind 3"."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, entry, _ in workflow["links"]:
        start = slot(nodes[source], output, is_input=False, inset=inset)
        end = slot(nodes[target], entry, is_input=True, inset=inset)
        name = nodes[target]["inputs"][entry]["name"]
        for number, node in nodes.items():
            left, top, right, bottom = Box.of(node)
            # The ends of a link lie on the edges of its own nodes.
            gap = MARGIN if number not in (source, target) else -SLOT
            if any(
                left - gap < x < right + gap and top - gap < y < bottom + gap
                for x, y in curve(start, end)
            ):
                yield f"{target}.{name} behind {number}"
        if end[0] <= start[0]:
            yield f"{target}.{name} goes back to the left"


@pytest.fixture(params=TEMPLATES, ids=lambda path: path.stem)
def workflow(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_no_node_lies_over_another(workflow):
    boxes = {node["id"]: Box.of(node) for node in workflow["nodes"]}
    assert not [
        pair
        for pair in itertools.combinations(boxes, 2)
        if boxes[pair[0]].overlaps(boxes[pair[1]], margin=20)
    ]


@pytest.mark.parametrize("renderer", INSETS)
def test_links_run_from_left_to_right_and_behind_no_node(workflow, renderer):
    assert not list(hidden(workflow, INSETS[renderer]))


def test_nodes_are_as_wide_as_they_are_shown(workflow):
    assert not [n["type"] for n in workflow["nodes"] if n["size"][0] < LEAST_WIDTH]


def test_the_whole_graph_is_seen_where_it_opens(workflow):
    # By this the page knows templates of this pack, which it opens as large as it can.
    assert workflow["extra"]["animatediff_v2v_template"] is True
    view = workflow["extra"]["ds"]
    is_one_node = any(node["type"] == "ADV2V_VideoToVideo" for node in workflow["nodes"])
    assert view["scale"] >= (SMALLEST_OF_ONE_NODE if is_one_node else SMALLEST_SCALE)
    for node in workflow["nodes"]:
        left, top, right, bottom = (
            (edge + view["offset"][index % 2]) * view["scale"]
            for index, edge in enumerate(Box.of(node))
        )
        assert left >= MENU_LEFT and right <= SCREEN[0], node["type"]
        assert top >= MENU_TOP and bottom <= SCREEN[1], node["type"]


FIRST = {"id": 1, "pos": [0, 0], "size": [100, 100], "inputs": [], "outputs": [{}, {}]}
LAST = {"id": 3, "pos": [400, 0], "size": [100, 100], "inputs": [{"name": "in"}], "outputs": []}


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ([200, 60], []),
        ([200, 0], ["3.in behind 2"]),
        ([200, -80], ["3.in behind 2"]),  # its lower edge
        ([200, 40], ["3.in behind 2"]),  # its title
        ([200, -110], []),
    ],
)
def test_a_link_behind_a_node_is_found(place, found):
    between = {"id": 2, "pos": place, "size": [100, 100], "inputs": [], "outputs": []}
    links = [[1, 1, 0, 3, 0, "IMAGE"]]
    assert list(hidden({"nodes": [FIRST, between, LAST], "links": links})) == found


def test_a_link_to_the_left_is_found():
    links = [[1, 1, 0, 3, 0, "IMAGE"]]
    left = {**LAST, "pos": [-300, 0]}
    assert "3.in goes back to the left" in hidden({"nodes": [FIRST, left], "links": links})
