"""Conversion of graphs that the frontend saves to prompts that the server runs."""

from __future__ import annotations

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
# A combo whose choices have their own widgets, which follow it.
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
NOTES = {"Note", "MarkdownNote"}


def to_api(workflow, object_info):
    """Turn a workflow (version 0.4) into a prompt; every saved value must belong to a widget."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": widget_values(node, object_info[node["type"]]) | links(node, sources),
        }
        for node in workflow["nodes"]
        if node["type"] not in NOTES
    }


def links(node, sources):
    return {
        entry["name"]: sources[entry["link"]]
        for entry in node["inputs"]
        if entry["link"] is not None
    }


def widget_values(node, info):
    saved = list(node["widgets_values"])
    values, uploads = {}, 0
    for section in ("required", "optional"):
        for name in info["input_order"].get(section, ()):
            kind, *options = info["input"][section][name]
            options = options[0] if options else {}
            if kind == DYNAMIC and not options.get("hidden"):
                values |= chosen(name, options, saved)
            if not (isinstance(kind, list) or kind in WIDGETS) or options.get("forceInput"):
                continue
            if not saved and section == "optional":
                continue  # Saved before the node had this widget: use its default.
            assert saved, f"{node['type']}: no value for {name}"
            values[name] = saved.pop(0)
            if options.get("control_after_generate"):
                assert saved.pop(0) in ("fixed", "increment", "decrement", "randomize")
            uploads += bool(options.get("video_upload") or options.get("image_upload"))
    # The frontend adds the upload button after all other widgets.
    assert saved == ["image"] * uploads, f"{node['type']}: {saved} left over"
    return values


def chosen(name, options, saved):
    """Return the value of a dynamic combo, and those of its choice's widgets."""
    assert saved, f"no value for {name}"
    values = {name: saved.pop(0)}
    choices = {each["key"]: each["inputs"] for each in options["options"]}
    assert values[name] in choices, f"{name} has no choice {values[name]!r}"
    for section in choices[values[name]].values():
        for inner, (kind, *more) in section.items():
            if kind == DYNAMIC:
                values |= chosen(f"{name}.{inner}", more[0], saved)
            elif isinstance(kind, list) or kind in WIDGETS:
                assert saved, f"no value for {name}.{inner}"
                values[f"{name}.{inner}"] = saved.pop(0)
    return values


def with_values(prompt, class_type, **values):
    """Return the prompt with other values in its only node of a class."""
    nodes = [key for key, node in prompt.items() if node["class_type"] == class_type]
    assert len(nodes) == 1
    node = prompt[nodes[0]]
    assert not set(values) - set(node["inputs"]), "no such widget"
    return {**prompt, nodes[0]: {**node, "inputs": {**node["inputs"], **values}}}
