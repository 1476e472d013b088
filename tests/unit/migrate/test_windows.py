"""Windows of AnimateDiff-Evolved: what they become, and what is said of what is not here."""

from __future__ import annotations

import pytest
from animatediff_v2v.migrate import convert
from animatediff_v2v.migrate.known import known_nodes, targets
from animatediff_v2v.pipeline.sampling import ContextOptions

from .graphs import checkpoint, found, gen1, node, source, workflow

CONTEXT = "ADV2V_ContextOptions"
STATIC = "ADE_StandardStaticContextOptions"
IN_ALL_STEPS = (
    "The windows are the same in all steps; for other windows in some of them, use two KSampler "
    "(Advanced), each for its steps and with an Apply AnimateDiff of its own."
)
VIEWS = "Views inside windows have no counterpart: the windows are as long as the views."
EQUAL = (
    "A video as long as a window is one window; for a closed loop, use a length below the number "
    "of frames."
)
ELSEWHERE = (
    "relative", "random", "gauss-sigma", "gauss-sigma inverse", "delayed reverse sawtooth",
    "pyramid-sigma", "pyramid-sigma inverse",
)  # fmt: skip
NODES = [each for each in known_nodes().values() if each.outputs[:1] and "ContextOpt" in each.type]
OPTIONS = [each for each in NODES if each.outputs[0][1] == "CONTEXT_OPTIONS"]


def options(number, kind=STATIC, values=(12, 3, "flat", False, 0, 1), **inputs):
    return node(number, kind, values, ["CONTEXT_OPTIONS"], **inputs)


def view(number, kind="StandardStatic", values=(16, 4, "flat")):
    return node(number, f"ADE_{kind}ViewOptions", values, ["VIEW_OPTS"])


def converted(*nodes):
    """Convert a graph whose loader has the options of node 3; return it and the report."""
    graph = workflow(checkpoint(), *nodes, gen1(9, context_options=("CONTEXT_OPTIONS", 3, 0)))
    result = convert(graph)
    return result.graph, result.report


def windows(graph):
    """The values of the one node of Context Options that Apply AnimateDiff has, by name."""
    made = found(graph, CONTEXT)
    assert source(graph, found(graph, "ADV2V_ApplyMotion"), "context_options") == (made["id"], 0)
    return dict(zip(targets()[CONTEXT].widgets, made["widgets_values"], strict=True))


def said(report, number=3):
    return next(each for each in report.entries if each.node == str(number))


@pytest.mark.parametrize("fuse", ["pyramid", "flat", "overlap-linear"])
def test_fuse_methods_that_are_here_stay(fuse):
    graph, report = converted(options(3, values=(12, 3, fuse, False, 0, 1)))
    assert windows(graph)["fuse"] == fuse
    assert said(report).notes == []


@pytest.mark.parametrize("name", [*ELSEWHERE, *(f"🔬{each}" for each in ELSEWHERE[1:])])
def test_fuse_methods_of_theirs_alone_become_pyramid(name):
    graph, report = converted(options(3, values=(12, 3, name, False, 0, 1)))
    assert windows(graph)["fuse"] == "pyramid"
    assert said(report).notes == [f"fuse_method was {name}, which is not here; now it is pyramid."]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((12, 3, "flat", True, 0, 1), EQUAL),
        ((12, 3, "flat", False, 0.3, 1), IN_ALL_STEPS),
        ((12, 3, "flat", False, 0, 4), IN_ALL_STEPS),
    ],
)
def test_values_without_counterpart_are_explained(values, sentence):
    _, report = converted(options(3, values=values))
    assert said(report).notes == [sentence]


def test_windows_that_change_over_the_steps_become_the_last_ones():
    graph, report = converted(
        options(5, "ADE_LoopedUniformContextOptions", [8, 1, 2, False, "flat", False, 0, 1]),
        options(4, values=(14, 2, "flat", False, 0.2, 1), prev_context=("CONTEXT_OPTIONS", 5, 0)),
        options(3, values=(12, 3, "flat", False, 0, 1), prev_context=("CONTEXT_OPTIONS", 4, 0)),
    )
    assert windows(graph)["length"] == 12
    assert said(report).notes == [IN_ALL_STEPS]
    for number in (4, 5):
        entry = said(report, number)
        assert (entry.outcome, entry.reason) == (
            "dropped", f"it gave windows for some steps. {IN_ALL_STEPS}"[:-1]
        )  # fmt: skip


def test_earlier_windows_in_a_circle_are_no_trap():
    _, report = converted(
        options(3, prev_context=("CONTEXT_OPTIONS", 4, 0)),
        options(4, prev_context=("CONTEXT_OPTIONS", 5, 0)),
        options(5, prev_context=("CONTEXT_OPTIONS", 4, 0)),
    )
    assert said(report).outcome == "converted"


def test_windows_are_as_long_as_their_views():
    """Windows of 64 frames, which no motion module takes, have views of 16."""
    graph, report = converted(
        options(
            3, values=(64, 8, "pyramid", False, 0, 1), view_opts=("VIEW_OPTS", 4, 0)
        ),
        view(4),
    )  # fmt: skip
    made = windows(graph)
    assert (made["length"], made["overlap"]) == (16, 4)
    assert (made["schedule"], made["fuse"]) == ("standard_static", "pyramid")
    assert said(report).notes == [VIEWS]
    assert said(report, 4).reason == "its values are in node 3 (Context Options) now"


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("StandardStatic", (16, 4, "flat"), {"schedule": "standard_static", "fuse": "flat"}),
        (
            "StandardUniform",
            (16, 2, 4, "pyramid"),
            {"schedule": "standard_uniform", "stride": 2, "fuse": "pyramid"},
        ),
        (
            "LoopedUniform",
            (16, 2, 4, True, "overlap-linear", False),
            {"schedule": "looped_uniform", "closed_loop": True, "fuse": "overlap-linear"},
        ),
    ],
)
def test_views_alone_become_windows(kind, values, expected):
    graph, report = converted(
        options(3, "ADE_ViewsOnlyContextOptions", [0, 1], view_opts_req=("VIEW_OPTS", 4, 0)),
        view(4, kind, values),
    )
    made = windows(graph)
    assert made.items() >= ({"length": 16, "overlap": 4} | expected).items()
    assert said(report).notes == [VIEWS]
    ContextOptions(**made)


def test_views_and_extras_go_into_the_same_windows():
    graph, _ = converted(
        node(
            3, "ADE_ContextExtras_Set", [], ["CONTEXT_OPTIONS"],
            context_opts=("CONTEXT_OPTIONS", 5, 0), context_extras=("CONTEXT_EXTRAS", 6, 0),
        ),
        view(4),
        options(5, values=(64, 8, "flat", False, 0, 1), view_opts=("VIEW_OPTS", 4, 0)),
        node(6, "ADE_ContextExtras_ContextRef", [0.0, 0.25], ["CONTEXT_EXTRAS"]),
    )  # fmt: skip
    made = windows(graph)
    assert (made["length"], made["memory"]) == (16, "ContextRef")


@pytest.mark.parametrize("known", OPTIONS, ids=lambda each: each.type)
def test_each_input_of_their_windows_is_converted_or_explained(known):
    """With all inputs linked and all values unusual, no note says only that something is lost."""
    assert known.to == CONTEXT
    given = {"int": 7, "float": 0.5, "bool": True, "combo": "random"}
    linked = {each.rstrip("?"): (kind, 1, 0) for each, kind in known.sockets.items()}
    graph = workflow(
        checkpoint(),
        options(3, known.type, [given[kind] for kind in known.widgets.values()], **linked),
        gen1(9, context_options=("CONTEXT_OPTIONS", 3, 0)),
    )
    told = said(convert(graph).report).notes
    assert IN_ALL_STEPS in told
    assert not [each for each in told if each.endswith(("counterpart here.", "its link ends."))]


def test_all_kinds_of_windows_are_there():
    assert len(OPTIONS) == 6
