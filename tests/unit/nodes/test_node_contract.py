"""Graphs that people share keep working: the nodes are held against `node_contract.json`.

After an addition `make golden` writes the file anew; commit it with the addition.
"""

import copy
import json
import os
from pathlib import Path

import pytest

from .contract import broken, contract_of
from .declared import schemas

SNAPSHOT = Path(__file__).parents[1] / "node_contract.json"


def released():
    return json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_shared_graphs_still_work():
    assert not broken(released(), contract_of(schemas()))


def test_the_snapshot_has_the_latest_additions():
    now = contract_of(schemas())
    if os.environ.get("WRITE_SNAPSHOTS"):
        assert not broken(released(), now), "a snapshot of broken graphs is not written"
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    assert released() == now, (
        "The nodes have something that tests/unit/node_contract.json lacks. Run `make golden`, "
        "which writes it anew, and commit it with the addition."
    )


WIDGET = {"type": "INT", "optional": False, "default": 1, "min": 0, "max": 9, "widget": True}
NODE = {
    "inputs": [
        {"name": "steps", **WIDGET},
        {
            "name": "fit",
            "type": "COMBO",
            "optional": True,
            "options": ["crop", "pad"],
            "widget": True,
        },
    ],
    "outputs": [["frames", "IMAGE"], ["fps", "FLOAT"]],
}
ADDED = {"name": "added", **WIDGET, "optional": True}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda node: node["inputs"].pop(), "Node.fit is gone, and shared graphs set it"),
        (lambda node: node["inputs"][0].update(name="passes"), "Node.steps is gone"),
        (lambda node: node["inputs"][0].update(type="FLOAT"), "steps was INT and is FLOAT"),
        (lambda node: node["inputs"][1].update(optional=False), "fit has become required"),
        (lambda node: node["inputs"][0].update(default=2), "default was 1 and is 2: put it back"),
        (lambda node: node["inputs"][0].update(min=1), "min was 0 and is 1"),
        (lambda node: node["inputs"][0].update(max=8), "max was 9 and is 8"),
        (lambda node: node["inputs"][0].update(upload=True), "upload was None and is True"),
        (lambda node: node["inputs"][1].update(options=["pad"]), "no longer offers"),
        (lambda node: node["inputs"][1]["options"].reverse(), "no longer offers"),
        (lambda node: node["inputs"].reverse(), "new widgets go behind all others"),
        (lambda node: node["inputs"].insert(1, ADDED), "new widgets go behind all others"),
        (
            lambda node: node["inputs"].append({**ADDED, "optional": False}),
            "added is new and required",
        ),
        (lambda node: node["outputs"].pop(), "links hold outputs by number"),
        (lambda node: node["outputs"].insert(0, ["mask", "MASK"]), "links hold outputs by number"),
    ],
)
def test_a_change_that_breaks_graphs_is_told(change, sentence):
    changed = copy.deepcopy(NODE)
    change(changed)
    found = broken({"Node": NODE}, {"Node": changed})
    assert any(sentence in each for each in found), found


def test_a_widget_after_an_upload_button_is_told():
    before = copy.deepcopy(NODE)
    before["inputs"][0]["upload"] = True
    after = copy.deepcopy(before)
    after["inputs"].append(ADDED)
    assert "has an upload button" in broken({"Node": before}, {"Node": after})[0]


def test_a_node_that_is_gone_is_told():
    assert "Node is gone" in broken({"Node": NODE}, {})[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node["inputs"].append(ADDED),
        lambda node: node["inputs"][0].update(min=-1, max=10),
        lambda node: node["inputs"][1]["options"].insert(1, "stretch"),
        lambda node: node["outputs"].append(["mask", "MASK"]),
    ],
)
def test_an_addition_breaks_nothing(change):
    changed = copy.deepcopy(NODE)
    change(changed)
    assert not broken({"Node": NODE}, {"Node": changed})
