"""ComfyUI's search finds the nodes by the words that users of other packs know."""

from __future__ import annotations

import pytest

from .declared import schemas

ALL = set(schemas())
READ_OR_WRITE = {"LoadVideo", "SelectFrames", "EncodeVideo", "VideoToVideo", "Batch"}


def found(text):
    """The nodes whose name or aliases contain a text, as in ComfyUI's search."""
    words = {
        node_id: [schema.display_name, *schema.search_aliases]
        for node_id, schema in schemas().items()
    }
    return {node_id for node_id, each in words.items() if text in " | ".join(each).lower()}


@pytest.mark.parametrize("text", ["animatediff"])
def test_the_packs_own_subject_finds_every_node(text):
    assert found(text) == ALL


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        # VideoHelperSuite
        ("vhs", READ_OR_WRITE),
        ("load video", {"LoadVideo"}),
        ("video combine", {"EncodeVideo"}),
        ("select every nth", {"LoadVideo", "SelectFrames"}),
        # AnimateDiff-Evolved
        ("evolved", {"ApplyMotion", "LoadModel", "ModelFromComfy", "Sampler", "ContextOptions"}),
        ("ade", {"ApplyMotion", "LoadModel", "ModelFromComfy", "Sampler", "ContextOptions"}),
        ("load animatediff model", {"LoadModel"}),
        ("use evolved sampling", {"ApplyMotion", "ModelFromComfy"}),
        ("load animatediff lora", {"MotionLoraStack"}),
        ("context options", {"ContextOptions"}),
        ("animatediff loader", {"ApplyMotion"}),
        ("looped uniform", {"ContextOptions"}),
        ("sample settings", {"Sampler"}),
        ("prompt scheduling", {"PromptSchedule"}),
        # Other packs around them
        ("batch prompt schedule", {"PromptSchedule"}),
        ("ipadapter", {"IPAdapter"}),
        ("advanced controlnet", {"ControlNet"}),
        ("lora stack", {"LoraStack", "MotionLoraStack"}),
        ("vid2vid", {"Sampler", "VideoToVideo", "Batch"}),
        ("batch manager", {"Batch"}),
        ("folder of videos", {"Batch"}),
    ],
)
def test_words_of_other_packs_find_the_node_that_does_the_same(text, nodes):
    assert {f"ADV2V_{name}" for name in nodes} <= found(text)


def test_no_alias_is_given_twice():
    for schema in schemas().values():
        assert len(set(schema.search_aliases)) == len(schema.search_aliases), schema.node_id
