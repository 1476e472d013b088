"""Damaged and huge graphs are converted or refused in a sentence; the result is whole."""

from __future__ import annotations

import json

import pytest
from animatediff_v2v.migrate import convert
from animatediff_v2v.migrate.workflow_format import subgraphs
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError

from .graphs import checkpoint, context, gen1, linked, node, sampler, workflow
from .mutations import mutated
from .test_convert import COMBINE, LOAD_VIDEO

ROUNDS = 300
INNER = [context(20), gen1(21, (-10, 0), context_options=("CONTEXT_OPTIONS", 20, 0))]
SUBGRAPH = {
    "id": "11111111-2222-3333-4444-555555555555",
    "name": "Inner",
    **linked(INNER, as_objects=True, first=50),
    "inputs": [{"name": "model", "type": "MODEL", "linkIds": [51]}],
    "outputs": [{"name": "MODEL", "type": "MODEL", "linkIds": []}],
}
GRAPH = workflow(
    checkpoint(),
    node(2, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"]),
    node(3, "ADE_MultivalDynamic", [1.2], ["MULTIVAL"]),
    node(
        4, "ADE_ApplyAnimateDiffModel", [0.1, 0.9], ["M_MODELS"],
        motion_model=("MOTION_MODEL_ADE", 2, 0), scale_multival=("MULTIVAL", 3, 0),
        prev_m_models=("M_MODELS", 4, 0),
    ),
    node(
        5, "ADE_UseEvolvedSampling", ["autoselect"], ["MODEL"],
        model=("MODEL", 1, 0), m_models=("M_MODELS", 4, 0),
        sample_settings=("SAMPLE_SETTINGS", 6, 0), context_options=("CONTEXT_OPTIONS", 7, 0),
    ),
    node(6, "ADE_AnimateDiffSamplingSettings", [0, "FreeNoise"], ["SAMPLE_SETTINGS"]),
    context(7, "ADE_AnimateDiffUniformContextOptions", [16, 1, 4, "uniform", False]),
    sampler(8, (5, 0)),
    node(9, "VHS_LoadVideo", LOAD_VIDEO, ["IMAGE", "INT"], vae=("VAE", 1, 2)),
    node(10, "VHS_VideoCombine", COMBINE, ["X"], images=("LATENT", 8, 0), vae=("VAE", 1, 2)),
    node(11, "Reroute", [], ["MODEL"], **{"": ("*", 5, 0)}),
    node(12, "AnimateDiffModuleLoader", ["mm.pth"], ["MOTION_MODULE"]),
    node(13, "AnimateDiffSampler", ["default", 12, 5, "fixed", 20, 8.0, "euler", "normal", 1.0],
         ["LATENT"], motion_module=("MOTION_MODULE", 12, 0), model=("MODEL", 11, 0)),
    node(14, "VHS_SplitImages", {"split_index": 3}, ["IMAGE", "INT", "IMAGE", "INT"],
         images=("IMAGE", 9, 0)),
    node(15, SUBGRAPH["id"], [], ["MODEL"], model=("MODEL", 1, 0)),
    definitions={"subgraphs": [SUBGRAPH]},
)  # fmt: skip
API = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
    "2": {"class_type": "ADE_LoadAnimateDiffModel", "inputs": {"model_name": "mm.ckpt"}},
    "3": {"class_type": "ADE_ApplyAnimateDiffModelSimple", "inputs": {"motion_model": ["2", 0]}},
    "4": {
        "class_type": "ADE_UseEvolvedSampling",
        "inputs": {"model": ["1", 0], "m_models": ["3", 0]},
    },
    "5": {"class_type": "VHS_LoadVideo", "inputs": LOAD_VIDEO},
    "6": {"class_type": "VHS_VideoCombine", "inputs": {"images": ["5", 0], **COMBINE}},
}


def checked(data):
    """Convert, and check that the result is JSON whose links have both ends."""
    try:
        result = convert(data)
    except AnimateDiffV2VError as error:
        assert str(error).endswith(".")
        return "refused"
    if result.graph is None:
        assert result.report.reason
        return "left"
    again = json.loads(json.dumps(result.graph))
    if isinstance(again.get("nodes"), list):
        for part in (again, *subgraphs(again)):
            ends_meet(part)
    return "converted"


def ends_meet(part):
    nodes = [each for each in part["nodes"] if isinstance(each, dict)]
    ids = [each["id"] for each in nodes if isinstance(each.get("id"), int | str)]
    for row in part["links"]:
        _, origin, _, target, _ = row[:5] if isinstance(row, list) else list(row.values())[:5]
        assert {origin, target} <= {*ids, -10, -20}


@pytest.mark.parametrize("graph", [GRAPH, API], ids=["workflow", "api"])
def test_damaged_graphs(graph):
    outcomes = {checked(mutated(graph, seed)) for seed in range(ROUNDS)}
    assert "converted" in outcomes


def test_a_graph_of_ten_megabytes():
    chain = [checkpoint()]
    chain += [gen1(number, (number - 1, 0)) for number in range(2, 2000)]
    chain += [
        node(
            number,
            "ADE_MultivalDynamic",
            [1.0],
            ["MULTIVAL"],
            mask_optional=("MASK", number + 1, 0),
        )
        for number in range(2000, 4000)
    ]
    graph = workflow(*chain)
    graph["extra"] = {"note": "x" * 9_000_000}
    assert len(json.dumps(graph)) > 10_000_000
    assert checked(graph) == "converted"


@pytest.mark.parametrize("depth", [150, 100_000])
def test_deep_json(depth):
    inner: list = []
    for _ in range(depth):
        inner = [inner]
    graph = workflow(checkpoint(), gen1(2))
    graph["extra"] = {"deep": inner}
    assert checked_deep(graph) == ("converted" if depth < 200 else "refused")


def checked_deep(graph):
    try:
        return "converted" if convert(graph).graph else "left"
    except AnimateDiffV2VError as error:
        assert "nested" in str(error)
        return "refused"
