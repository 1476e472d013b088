"""Graphs in the frontend's format, written short."""

from __future__ import annotations

SIZE = [300, 120]


def node(number, kind, widgets=(), outputs=(), **inputs):
    """A node; an input is (type, origin, output), or (type,) without a link.

    Inputs whose names end in `_w` are widgets that were made into inputs.
    """
    return {
        "id": number,
        "type": kind,
        "pos": [number * 400, 100],
        "size": SIZE,
        "mode": 0,
        "inputs": [
            {
                "name": name.removesuffix("_w"),
                "type": given[0],
                "link": given[1:] or None,
                **({"widget": {"name": name.removesuffix("_w")}} if name.endswith("_w") else {}),
            }
            for name, given in inputs.items()
        ],
        "outputs": [{"name": each, "type": each, "links": []} for each in outputs],
        "properties": {"Node name for S&R": kind, "cnr_id": "their-pack", "ver": "1"},
        "widgets_values": list(widgets) if not isinstance(widgets, dict) else widgets,
    }


def workflow(*nodes, **more):
    """A graph of nodes, with its list of links."""
    return {"version": 0.4, **linked(list(nodes)), "groups": [], "extra": {}, **more}


def linked(nodes, *, as_objects=False, first=1):
    """Nodes and the links between them, numbered from `first`."""
    links = []
    by_id = {each["id"]: each for each in nodes}
    for each in nodes:
        for index, slot in enumerate(each["inputs"]):
            if slot["link"]:
                origin, output = slot["link"]
                number = first + len(links)
                row = [number, origin, output, each["id"], index, slot["type"]]
                links.append(row)
                slot["link"] = number
                if origin in by_id:
                    by_id[origin]["outputs"][output]["links"].append(number)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    rows = [dict(zip(keys, row, strict=True)) for row in links] if as_objects else links
    return {
        "nodes": nodes,
        "links": rows,
        "last_node_id": max(by_id, default=0),
        "last_link_id": len(links),
    }


def checkpoint(number=1):
    return node(number, "CheckpointLoaderSimple", ["a.safetensors"], ["MODEL", "CLIP", "VAE"])


def sampler(number, model, *, widgets=(1, "fixed", 20, 7.0, "euler", "normal", 1.0)):
    return node(number, "KSampler", widgets, ["LATENT"], model=("MODEL", *model))


def gen1(number, model=(1, 0), widgets=("mm.ckpt", "sqrt_linear (AnimateDiff)"), **inputs):
    given = {"model": ("MODEL", *model), **inputs}
    return node(number, "ADE_AnimateDiffLoaderGen1", widgets, ["MODEL"], **given)


def context(number, kind="ADE_StandardStaticContextOptions", widgets=(12, 3, "flat", False, 0, 1)):
    return node(number, kind, widgets, ["CONTEXT_OPTIONS"], prev_context=("CONTEXT_OPTIONS",))


def found(graph, kind):
    """The one node of a type."""
    (only,) = [each for each in graph["nodes"] if each["type"] == kind]
    return only


def source(graph, target, name):
    """Return the (node, output) that an input's link starts at, or None; check both its ends."""
    slot = next(each for each in target["inputs"] if each["name"] == name)
    if slot["link"] is None:
        return None
    rows = [each if isinstance(each, list) else list(each.values()) for each in graph["links"]]
    (row,) = [each for each in rows if each[0] == slot["link"]]
    assert row[3:5] == [target["id"], target["inputs"].index(slot)]
    (origin,) = [each for each in graph["nodes"] if each["id"] == row[1]]
    assert row[0] in origin["outputs"][row[2]]["links"]
    return row[1], row[2]
