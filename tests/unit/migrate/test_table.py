"""The table of nodes: complete, of one mind with the nodes here, and shown in the documentation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from animatediff_v2v.migrate.convert import PART, RULES
from animatediff_v2v.migrate.known import known_nodes, packs, targets
from animatediff_v2v.migrate.node_table import node_table

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "coming-from-animatediff-evolved.md"
CONTRACT = json.loads((ROOT / "tests" / "unit" / "node_contract.json").read_text(encoding="utf-8"))
KINDS = {"FLOAT": "float", "INT": "int", "STRING": "string", "BOOLEAN": "boolean", "COMBO": "combo"}
OURS = sorted(each for each in targets() if each.startswith("ADV2V_"))


def test_all_nodes_of_the_packs_are_there():
    counts = {name: len(table["nodes"]) for name, table in packs().items()}
    assert counts["animatediff_evolved"] == 145
    assert counts["video_helper_suite"] == 40
    assert counts["artventurex"] == 7
    assert min(counts.values()) >= 7 and len(counts) == 6


@pytest.mark.parametrize("known", known_nodes().values(), ids=lambda each: each.type)
def test_an_entry_says_one_thing_and_names_what_is_there(known):
    verdicts = [bool(known.to), bool(known.stays), bool(known.none)]
    assert sum(verdicts) == 1
    assert known.rule in {"", PART, *RULES}
    orders = [known.widgets, *known.older]
    own = {each.rstrip("?") for each in known.sockets} | {name for each in orders for name in each}
    if known.to:
        target = targets()[known.to]
        ours = {each.rstrip("?") for each in target.sockets} | set(target.widgets)
        if known.rule not in ("split",):
            assert set(known.inputs.values()) <= ours
            assert set(known.set) <= ours
        assert all(number < len(target.outputs) for number in known.output_map.values())
    assert {int(number) for number in known.output_map} <= set(range(len(known.outputs)))
    assert set(known.choices) | set(known.neutral) <= own


@pytest.mark.parametrize("node_id", OURS)
def test_our_nodes_have_the_inputs_that_conversion_gives_them(node_id):
    target, contract = targets()[node_id], CONTRACT[node_id]
    sockets = {
        each["name"] + ("?" if each["optional"] else ""): each["type"]
        for each in contract["inputs"]
        if not each.get("widget")
    }
    widgets = {each["name"]: each for each in contract["inputs"] if each.get("widget")}
    assert target.sockets == sockets
    assert [name for name in target.widgets if name != "upload"] == list(widgets)
    for name, each in widgets.items():
        kind, default = target.widgets[name]
        assert kind == KINDS[each["type"]]
        if "default" in each:
            assert default == each["default"]
        elif "<files>" not in each.get("options", ()):
            assert default == each["options"][0]
    assert list(target.outputs.items()) == [tuple(each) for each in contract["outputs"]]


def test_the_documentation_has_the_table():
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "see tests/unit/migrate/test_table.py -->\n", "<!-- end of nodes -->"
    before, _, rest = text.partition(begin)
    shown, _, after = rest.partition(end)
    expected = f"\n{node_table()}\n"
    if os.environ.get("WRITE_SNAPSHOTS"):
        PAGE.write_text(before + begin + expected + end + after, encoding="utf-8")
        return
    assert shown == expected
