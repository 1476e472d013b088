"""Every node has a help page that describes all its inputs and outputs."""

import re
from pathlib import Path

import pytest
from PIL import Image

from .declared import schemas

DOCS = Path(__file__).parents[3] / "web" / "docs"
PICTURE = re.compile(r"!\[(?P<says>[^\]]*)\]\((?P<path>[^)]+)\)")
MOST_BYTES = 120_000
# Numbered slots are described once, by the first one.
LATER_SLOTS = re.compile(r"_([2-9]|10)$")


def page(node_id):
    return (DOCS / f"{node_id}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("schema", schemas().values(), ids=lambda schema: schema.node_id)
def test_the_page_tells_of_everything(schema):
    text = page(schema.node_id)
    assert text.startswith(f"# {schema.display_name}\n")
    for part in ("## Inputs", "## Outputs", "## Typical graph"):
        assert f"\n{part}\n" in text, part
    inputs, outputs = text.split("## Inputs")[1].split("## Outputs")
    for each in schema.inputs:
        if not LATER_SLOTS.search(each.name):
            assert f"`{each.name}`" in inputs, each.name
    for each in schema.outputs:
        assert f"`{each.display_name}`" in outputs, each.display_name


@pytest.mark.parametrize("schema", schemas().values(), ids=lambda schema: schema.node_id)
def test_the_page_names_ranges(schema):
    """Each input has its own list item, and a number's item states its range."""
    inputs = page(schema.node_id).split("## Outputs")[0]
    items = re.findall(r"^- (`.*?)(?=^- |^$)", inputs, re.MULTILINE | re.DOTALL)
    told = {name: item for item in items for name in re.findall(r"`(\w+)`", item.split(":")[0])}
    for each in schema.inputs:
        if not LATER_SLOTS.search(each.name):
            item = told[each.name]
            assert len(item) > 30
            if each.type in ("INT", "FLOAT"):
                assert re.search(r"\([^)]*\d", item), item


@pytest.mark.parametrize("node_id", schemas())
def test_the_page_has_a_picture_that_is_there_and_small(node_id):
    pictures = PICTURE.findall(page(node_id))
    assert pictures, "demo/help_pictures.py draws them"
    for says, path in pictures:
        assert len(says) > 10, f"{path}: what does it show?"
        # The frontend looks for relative paths below web/docs.
        file = DOCS / path
        assert file.stat().st_size < MOST_BYTES
        with Image.open(file) as picture:
            assert picture.width >= 250 and picture.height >= 100


@pytest.mark.parametrize("node_id", schemas())
def test_the_page_shows_what_the_node_does(node_id):
    made = [path for _, path in PICTURE.findall(page(node_id)) if path.endswith("_miniature.jpg")]
    # The miniature has no motion LoRA.
    assert len(made) == (node_id != "ADV2V_MotionLoraStack")


@pytest.mark.parametrize("schema", schemas().values(), ids=lambda schema: schema.node_id)
def test_the_readme_names_the_node_as_comfyui_shows_it(schema):
    readme = (DOCS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"| {schema.display_name} (`{schema.node_id}`) | " in readme


def test_nothing_is_left_over():
    assert {path.stem for path in DOCS.glob("*.md")} == set(schemas())
    used = {path for node_id in schemas() for _, path in PICTURE.findall(page(node_id))}
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*") if path.is_file()}
    assert {path for path in there if not path.endswith(".md")} == used
