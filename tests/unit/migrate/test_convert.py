"""Converted graphs: nodes, values, links, places, and the report."""

from __future__ import annotations

import copy
import json

import pytest
from animatediff_v2v.migrate import convert
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError

from .graphs import checkpoint, context, found, gen1, linked, node, sampler, source, workflow

APPLY, CONTEXT, LOAD, ENCODE = (
    f"ADV2V_{name}" for name in ("ApplyMotion", "ContextOptions", "LoadVideo", "EncodeVideo")
)
HELD = {"video": "a.mp4", "force_rate": 12, "custom_width": 512, "custom_height": 0}
LOAD_VIDEO = {**HELD, "frame_load_cap": 16, "skip_first_frames": 4, "select_every_nth": 3}
CONTROLLED = ["CONDITIONING", "CONDITIONING", "MODEL"]
COMBINE = {
    "frame_rate": 8,
    "loop_count": 2,
    "filename_prefix": "AD",
    "format": "video/h264-mp4",
    "crf": 17,
    "pingpong": True,
    "save_output": False,
}


def after(graph):
    """The converted graph; the JSON that was given stays as it was."""
    before = copy.deepcopy(graph)
    result = convert(graph)
    assert graph == before
    assert result.graph is not None, result.report.reason
    return result.graph


def notes(graph):
    return [note for each in convert(graph).report.entries for note in each.notes]


def values(target):
    return target["widgets_values"]


def test_a_loader_of_the_first_generation():
    graph = workflow(
        checkpoint(),
        node(2, "ADE_AnimateDiffLoRALoader", ["zoom.ckpt", 0.8], ["MOTION_LORA"]),
        context(3),
        gen1(4, motion_lora=("MOTION_LORA", 2, 0), context_options=("CONTEXT_OPTIONS", 3, 0)),
        sampler(5, (4, 0)),
    )
    graph["nodes"][3] |= {"title": "Mine", "color": "#123"}
    new = after(graph)
    apply = found(new, APPLY)
    assert values(apply) == ["mm.ckpt", 1.0, "sqrt_linear", 0.0, 1.0]
    assert source(new, apply, "model") == (1, 0)
    assert source(new, apply, "motion_lora_stack") == (2, 0)
    assert source(new, apply, "context_options") == (3, 0)
    assert source(new, found(new, "KSampler"), "model") == (4, 0)
    assert (apply["id"], apply["pos"], apply["title"], apply["color"]) == (
        4, [1600, 100], "Mine", "#123",
    )  # fmt: skip
    assert apply["properties"] == {
        "Node name for S&R": APPLY,
        "converted_from": "ADE_AnimateDiffLoaderGen1",
        "cnr_id": "animatediff-v2v",
    }
    assert values(found(new, "ADV2V_MotionLoraStack")) == ["zoom.ckpt", 0.8]
    assert values(found(new, CONTEXT)) == [12, 3, 1, "standard_static", "flat", False, "none", 1.0]


def test_the_second_generation_becomes_one_node():
    graph = workflow(
        checkpoint(),
        node(2, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"]),
        node(3, "ADE_MultivalDynamic", [1.2], ["MULTIVAL"], mask_optional=("MASK",)),
        node(
            4,
            "ADE_ApplyAnimateDiffModel",
            [0.1, 0.9],
            ["M_MODELS"],
            motion_model=("MOTION_MODEL_ADE", 2, 0),
            scale_multival=("MULTIVAL", 3, 0),
        ),
        node(
            5,
            "ADE_UseEvolvedSampling",
            ["autoselect"],
            ["MODEL"],
            model=("MODEL", 1, 0),
            m_models=("M_MODELS", 4, 0),
        ),
        sampler(6, (5, 0)),
    )
    new = after(graph)
    assert [each["type"] for each in new["nodes"]] == ["CheckpointLoaderSimple", APPLY, "KSampler"]
    apply = found(new, APPLY)
    assert values(apply) == ["v3.ckpt", 1.2, "autoselect", 0.1, 0.9]
    assert source(new, apply, "model") == (1, 0)
    assert len(new["links"]) == 2
    entries = {each.node: each for each in convert(graph).report.entries}
    outcomes = {key: each.outcome for key, each in entries.items()}
    assert outcomes == {"1": "same", **dict.fromkeys("2345", "converted"), "6": "same"}
    for key in "234":
        assert entries[key].reason == "its values are in node 5 (Apply AnimateDiff) now"


def test_a_number_for_each_frame_becomes_the_motion_scale_and_effect():
    floats = node(2, "BatchValueSchedule", ["0:(1), 8:(2)", 16, False], ["FLOAT", "INT"])
    scale = node(3, "ADE_MultivalDynamicFloatInput", [], ["MULTIVAL"], float_val=("FLOAT", 2, 0))
    load = node(4, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"])
    links = {"motion_model": ("MOTION_MODEL_ADE", 4, 0), "scale_multival": ("MULTIVAL", 3, 0)}
    links["effect_multival"] = ("MULTIVAL", 3, 0)
    apply = node(5, "ADE_ApplyAnimateDiffModelSimple", [], ["M_MODELS"], **links)
    links = {"model": ("MODEL", 1, 0), "m_models": ("M_MODELS", 5, 0)}
    evolved = node(6, "ADE_UseEvolvedSampling", ["lcm"], ["MODEL"], **links)
    new = after(workflow(checkpoint(), floats, scale, load, apply, evolved))
    for name in ("motion_scale", "motion_effect"):
        assert source(new, found(new, APPLY), name) == (2, 0)


def test_multivals_with_masks_become_strengths_and_masks():
    mask = node(2, "LoadImageMask", ["a.png", "alpha"], ["MASK"])
    masked = {"mask_optional": ("MASK", 2, 0)}
    scale = node(3, "ADE_MultivalDynamic", [1.2], ["MULTIVAL"], **masked)
    given = [0.0, 0.7, "absolute"]
    effect = node(4, "ADE_MultivalScaledMask", given, ["MULTIVAL"], mask=("MASK", 2, 0))
    multivals = {"scale_multival": ("MULTIVAL", 3, 0), "effect_multival": ("MULTIVAL", 4, 0)}
    new = after(workflow(checkpoint(), mask, scale, effect, gen1(5, (1, 0), **multivals)))
    apply, curve = found(new, APPLY), found(new, "ADV2V_StrengthCurve")
    assert values(apply)[1] == 1.2 and values(curve) == ["0: 0.7", 0.0, 1.0]
    assert source(new, apply, "motion_effect") == (curve["id"], 0)
    for name in ("motion_scale_mask", "motion_effect_mask"):
        assert source(new, apply, name) == (2, 0)
    assert not [each for each in new["nodes"] if each["type"].startswith("ADE_")]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("ADE_MultivalScaledMask", [0.2, 1.0, "absolute"]),
        ("ADE_MultivalScaledMask", [0.0, 1.0, "relative"]),
        ("ADE_MultivalDynamicFloats", []),
    ],
)
def test_multivals_without_a_counterpart_are_named(kind, given):
    multival = node(3, kind, given, ["MULTIVAL"])
    graph = workflow(checkpoint(), multival, gen1(5, (1, 0), effect_multival=("MULTIVAL", 3, 0)))
    assert [each for each in notes(graph) if f"Its motion effect came from {kind}, which" in each]


def keyframe(key, start, *, scale=None, effect=None, before=None, inherits=True, steps=1, **more):
    """Return an AnimateDiff keyframe and its multivals."""
    links, nodes = {**more}, []
    for offset, (name, number) in enumerate((("scale", scale), ("effect", effect)), start=1):
        if number is not None:
            nodes.append(node(key + offset, "ADE_MultivalDynamic", [number], ["MULTIVAL"]))
            links[f"{name}_multival"] = ("MULTIVAL", key + offset, 0)
    if before is not None:
        links["prev_ad_keyframes"] = ("AD_KEYFRAMES", before, 0)
    widgets = [start, inherits, steps]
    nodes.append(node(key, "ADE_AnimateDiffKeyframe", widgets, ["AD_KEYFRAMES"], **links))
    return nodes


def keyframed(*nodes, last, **multivals):
    loader = gen1(90, (1, 0), ad_keyframes=("AD_KEYFRAMES", last, 0), **multivals)
    return workflow(checkpoint(), *nodes, loader)


def curve_at(new, name):
    """Return the text of the curve that is linked to an input of Apply AnimateDiff."""
    (linked,) = [
        each for each in new["nodes"] if (each["id"], 0) == source(new, found(new, APPLY), name)
    ]
    return values(linked)[0]


def test_keyframes_become_curves_over_the_steps():
    graph = keyframed(
        # Added out of order; the second has no effect of its own.
        *keyframe(20, 0.333, scale=1.4, before=None),
        *keyframe(30, 0.0, scale=1.2, effect=0.5, before=20),
        *keyframe(40, 0.75, effect=0.8, scale=1.4, before=30),
        node(50, "ADE_MultivalDynamic", [0.5], ["MULTIVAL"]),
        last=40,
        scale_multival=("MULTIVAL", 50, 0),
    )
    new = after(graph)
    assert curve_at(new, "motion_scale") == "0%: 0.6, 33.3%: 0.7 hold"
    assert curve_at(new, "motion_effect") == "0%: 0.5, 75%: 0.8 hold"
    for text in (curve_at(new, "motion_scale"), curve_at(new, "motion_effect")):
        assert Curve(text).is_over_steps
    assert not [each for each in new["nodes"] if each["type"].startswith("ADE_")]
    assert any("only the last one acts" in each for each in notes(graph))


def test_keyframes_that_inherit_nothing_return_to_the_multival():
    graph = keyframed(
        *keyframe(20, 0.2, scale=1.4),
        *keyframe(30, 0.6, before=20, inherits=False),
        last=30,
    )
    new = after(graph)
    assert curve_at(new, "motion_scale") == "0%: 1, 20%: 1.4 hold, 60%: 1 hold"
    assert source(new, found(new, APPLY), "motion_effect") is None


def test_a_keyframe_for_all_steps_is_a_number():
    graph = keyframed(*keyframe(20, 0.0, scale=1.4, steps=9), last=20)
    new = after(graph)
    assert values(found(new, APPLY))[1] == 1.4
    assert not [each for each in notes(graph) if "eyframe" in each]


MULTIVAL = ("MULTIVAL", 60, 0)
NO_CURVES = {
    "guarantee_steps of one is 2": [
        *keyframe(20, 0.2, scale=1.4, steps=2),
        *keyframe(70, 0.6, scale=1.0, before=20),
    ],
    "guarantee_steps of one is 1": [
        *keyframe(20, 0.2, scale=1.4),
        *keyframe(70, 0.2, scale=1.0, before=20),
    ],
    "the scale of one is not a plain number": [
        node(60, "ADE_MultivalScaledMask", [0.2, 1.0, "absolute"], ["MULTIVAL"]),
        *keyframe(70, 0.2, scale_multival=MULTIVAL),
    ],
    "settings of single blocks": [
        node(60, "ADE_PerBlock_SD15_FromJson", [], ["PER_BLOCK"]),
        *keyframe(70, 0.2, per_block_replace=("PER_BLOCK", 60, 0)),
    ],
    "motion_effect would be 1.5, above 1": keyframe(70, 0.2, effect=1.5),
    "one comes through a subgraph": keyframe(70, 0.2, effect=0.5, before=99),
    "one begins at 1.5": keyframe(70, 1.5, effect=0.5),
}


@pytest.mark.parametrize("reason", NO_CURVES)
def test_keyframes_that_are_no_curve_are_named(reason):
    graph = keyframed(*NO_CURVES[reason], last=70)
    assert [
        each for each in notes(graph) if each.startswith("Dropped: AnimateDiff") and reason in each
    ]
    new = after(graph)
    assert not [each for each in new["nodes"] if each["type"] == "ADV2V_StrengthCurve"]


def test_keyframes_do_not_multiply_a_number_for_each_frame():
    def by_frame(*keyframes):
        floats = node(2, "BatchValueSchedule", ["0:(1), 8:(2)", 16, False], ["FLOAT", "INT"])
        numbers = {"float_val": ("FLOAT", 2, 0)}
        scale = node(3, "ADE_MultivalDynamicFloatInput", [], ["MULTIVAL"], **numbers)
        multival = ("MULTIVAL", 3, 0)
        return keyframed(floats, scale, *keyframes, last=20, scale_multival=multival)

    both = by_frame(*keyframe(20, 0.2, scale=1.4))
    assert [each for each in notes(both) if "would multiply a number for each frame" in each]
    assert source(after(both), found(after(both), APPLY), "motion_scale") == (2, 0)
    apart = by_frame(*keyframe(20, 0.2, effect=0.4))
    assert curve_at(after(apart), "motion_effect") == "0%: 1, 20%: 0.4 hold"
    assert source(after(apart), found(after(apart), APPLY), "motion_scale") == (2, 0)


def test_keyframes_act_on_the_motion_scale_of_the_older_loader():
    older = node(
        90,
        "ADE_AnimateDiffLoaderWithContext",
        ["v3.ckpt", "autoselect", 1.5, True],
        ["MODEL"],
        model=("MODEL", 1, 0),
        ad_keyframes=("AD_KEYFRAMES", 20, 0),
    )
    new = after(workflow(checkpoint(), *keyframe(20, 0.5, scale=2.0), older))
    assert curve_at(new, "motion_scale") == "0%: 1.5, 50%: 3 hold"


def test_the_report_names_each_node_that_has_the_values_of_another():
    load = node(2, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"])
    simple = "ADE_ApplyAnimateDiffModelSimple"
    apply = node(3, simple, [], ["M_MODELS"], motion_model=("MOTION_MODEL_ADE", 2, 0))
    links = {"model": ("MODEL", 1, 0), "m_models": ("M_MODELS", 3, 0)}
    evolved = [node(key, "ADE_UseEvolvedSampling", ["lcm"], ["MODEL"], **links) for key in (4, 5)]
    unused = node(6, "ADE_MultivalDynamic", [1.2], ["MULTIVAL"])
    report = convert(workflow(checkpoint(), load, apply, *evolved, unused)).report
    reasons = {each.node: (each.outcome, each.reason) for each in report.entries}
    both = "node 4 (Apply AnimateDiff) and node 5 (Apply AnimateDiff)"
    assert reasons["2"] == reasons["3"] == ("converted", f"its values are in {both} now")
    assert reasons["6"] == ("dropped", "no node that was converted uses it")


@pytest.mark.parametrize(("width", "is_told"), [(0, True), (128, False)])
def test_the_size_note_is_a_condition(width, is_told):
    load = node(1, "VHS_LoadVideo", {"video": "a.mp4", "custom_width": width}, ["IMAGE"])
    said = [each for each in notes(workflow(load, checkpoint(2), gen1(3, (2, 0)))) if "768" in each]
    assert len(said) == is_told
    assert all(each.startswith("If the video has a side longer than 768, ") for each in said)


@pytest.mark.parametrize(
    ("between", "end"),
    [
        (node(7, "Reroute", [], ["M_MODELS"], **{"": ("*", 4, 0)}), (7, 0)),
        (node(7, "SomeLoader", [], ["MODEL"], model=("MODEL", 4, 0)), (4, 0)),
    ],
)
def test_motion_models_are_found_through_reroutes(between, end):
    graph = workflow(
        checkpoint(),
        node(2, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"]),
        node(
            4, "ADE_ApplyAnimateDiffModelSimple", [], ["M_MODELS"],
            motion_model=("MOTION_MODEL_ADE", 2, 0),
        ),
        copy.deepcopy(between),
        node(
            5, "ADE_UseEvolvedSampling", ["lcm"], ["MODEL"],
            model=("MODEL", 1, 0), m_models=("M_MODELS", *end),
        ),
    )  # fmt: skip
    assert values(found(after(graph), APPLY))[:3] == ["v3.ckpt", 1.0, "lcm"]


def test_windows_alone_become_comfyuis():
    graph = workflow(
        checkpoint(),
        context(2, "ADE_BatchedContextOptions", [8, 0, 1]),
        node(
            3, "ADE_UseEvolvedSampling", ["autoselect"], ["MODEL"],
            model=("MODEL", 1, 0), context_options=("CONTEXT_OPTIONS", 2, 0),
        ),
        sampler(4, (3, 0)),
    )  # fmt: skip
    new = after(graph)
    assert [each["type"] for each in new["nodes"]][1:] == ["ContextWindowsManual", "KSampler"]
    assert values(new["nodes"][1])[:7] == [8, 0, "batched", 1, False, "pyramid", 0]


def test_what_a_node_that_stays_uses_stays_too():
    graph = workflow(
        checkpoint(),
        context(2),
        node(3, "SomeSwitch", [], ["M_MODELS"]),
        node(
            4, "ADE_UseEvolvedSampling", ["autoselect"], ["MODEL"], model=("MODEL", 1, 0),
            m_models=("M_MODELS", 3, 0), context_options=("CONTEXT_OPTIONS", 2, 0),
        ),
        gen1(5, (4, 0)),
    )  # fmt: skip
    new = after(graph)
    assert found(new, "ADE_UseEvolvedSampling") and found(new, APPLY)
    assert found(new, "ADE_StandardStaticContextOptions")


@pytest.mark.parametrize("mode", [2, 4])
def test_a_switched_off_node_stays_switched_off(mode):
    loader = gen1(2)
    loader["mode"] = mode
    assert found(after(workflow(checkpoint(), loader, sampler(3, (2, 0)))), APPLY)["mode"] == mode


def test_the_old_loader_with_its_window():
    graph = workflow(
        checkpoint(),
        node(2, "EmptyLatentImage", [512, 512, 16], ["LATENT"]),
        node(
            3,
            "ADE_AnimateDiffLoaderV1Advanced",
            ["mm.ckpt", False, 16, 2, 4, "uniform", True, "sqrt_linear (AnimateDiff)"],
            ["MODEL", "LATENT"],
            model=("MODEL", 1, 0),
            latents=("LATENT", 2, 0),
        ),
        node(4, "KSampler", [], ["LATENT"], model=("MODEL", 3, 0), latent_image=("LATENT", 3, 1)),
    )
    new = after(graph)
    assert values(found(new, CONTEXT)) == [16, 4, 2, "looped_uniform", "flat", True, "none", 1.0]
    assert source(new, found(new, APPLY), "context_options") == (5, 0)
    assert source(new, found(new, "KSampler"), "latent_image") == (2, 0)
    assert new["last_node_id"] == 5


@pytest.mark.parametrize(
    ("widgets", "expected"),
    [
        (("mm.ckpt", "sqrt_linear (AnimateDiff)"), [1.0, "sqrt_linear"]),
        (("mm.ckpt", "use existing", 1.3, True), [1.3, "use existing"]),
        (("mm.ckpt", "linear (HotshotXL/default)", 1, False), [1.0, "linear"]),
        (("mm.ckpt", "unheard of", 0.7, False), [0.7, "autoselect"]),
    ],
)
def test_the_legacy_loader(widgets, expected):
    graph = workflow(
        checkpoint(),
        node(2, "ADE_AnimateDiffLoaderWithContext", widgets, ["MODEL"], model=("MODEL", 1, 0)),
    )
    assert values(found(after(graph), APPLY))[1:3] == expected


def test_a_video_is_read_and_written():
    graph = workflow(
        node(1, "VHS_LoadVideo", LOAD_VIDEO, ["IMAGE", "INT", "AUDIO", "VHS_VIDEOINFO"]),
        checkpoint(2),
        gen1(3, (2, 0)),
        node(
            4, "VHS_VideoCombine", COMBINE, ["VHS_FILENAMES"],
            images=("IMAGE", 1, 0), audio=("AUDIO", 1, 2), meta_batch=("VHS_BatchManager",),
            frame_rate_w=("FLOAT", 5, 0),
        ),
        node(5, "PrimitiveNode", [8, "fixed"], ["FLOAT"]),
        node(6, "SomeCount", [], [], count=("INT", 1, 1)),
    )  # fmt: skip
    graph["nodes"][4]["outputs"][0]["widget"] = {"name": "frame_rate"}
    new = after(graph)
    load, encode = found(new, LOAD), found(new, ENCODE)
    assert values(load) == ["a.mp4", 3, 4, 16, 12, 512, 0, 0.0, 0.0, "crop", "image"]
    assert values(encode) == [8.0, "AD", "mp4-h264", 17, True, 2, False, False, False]
    assert source(new, encode, "images") == (1, 0)
    assert source(new, encode, "audio") == (1, 1)
    assert source(new, encode, "fps") == (5, 0)
    assert source(new, found(new, "SomeCount"), "count") == (1, 3)
    assert found(new, "PrimitiveNode")["outputs"][0]["widget"] == {"name": "fps"}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"force_size": "Disabled", "custom_width": 512, "custom_height": 512}, [0, 0]),
        ({"force_size": "?x256", "custom_width": 512, "custom_height": 512}, [0, 256]),
        ({"force_size": "512x320"}, [512, 320]),
        ({"force_size": "Custom Width", "custom_width": 640, "custom_height": 480}, [640, 0]),
        ({"custom_width": 640, "custom_height": 480}, [640, 480]),
    ],
)
def test_sizes(held, expected):
    load = node(1, "VHS_LoadVideo", {"video": "a.mp4", **held}, ["IMAGE"])
    assert (
        values(found(after(workflow(load, checkpoint(2), gen1(3, (2, 0)))), LOAD))[5:7] == expected
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("input/sub/a.mp4", "sub/a.mp4"),
        ("C:\\ComfyUI\\output\\b\\c.mp4", "b/c.mp4 [output]"),
        ("/home/me/clips/d.mp4", "d.mp4"),
        ("https://host/a/e.mp4?x=1", "e.mp4"),
        ("frames", "frames"),
        ("", ""),
    ],
)
def test_paths(path, expected):
    load = node(1, "VHS_LoadVideoPath", {"video": path}, ["IMAGE"])
    assert values(found(after(workflow(load, checkpoint(2), gen1(3, (2, 0)))), LOAD))[0] == expected


@pytest.mark.parametrize(
    ("theirs", "ours", "hardware"),
    [
        ("image/gif", "gif", False),
        ("image/webp", "webp", False),
        ("video/h265-mp4", "mp4-h265", False),
        ("video/av1-webm", "mp4-av1", False),
        ("video/webm", "webm-vp9", False),
        ("video/ProRes", "mov-prores", False),
        ("video/ffv1-mkv", "mkv-ffv1", False),
        ("video/8bit-png", "png", False),
        ("video/nvenc_h264-mp4", "mp4-h264", True),
        ("video/unheard-of", "mp4-h264", False),
    ],
)
def test_formats(theirs, ours, hardware):
    combine = node(1, "VHS_VideoCombine", COMBINE | {"format": theirs}, [], images=("IMAGE",))
    new = found(after(workflow(combine, checkpoint(2), gen1(3, (2, 0)))), ENCODE)
    assert (values(new)[2], values(new)[7]) == (ours, hardware)


def test_latents_are_encoded_and_decoded_by_nodes_of_their_own():
    graph = workflow(
        checkpoint(),
        node(2, "VHS_LoadVideo", LOAD_VIDEO, ["LATENT", "INT"], vae=("VAE", 1, 2)),
        gen1(3),
        sampler(4, (3, 0)),
        node(
            5, "VHS_VideoCombine", COMBINE, ["VHS_FILENAMES"],
            images=("LATENT", 4, 0), vae=("VAE", 1, 2),
        ),
    )  # fmt: skip
    graph["nodes"][3]["inputs"].append({"name": "latent_image", "type": "LATENT", "link": 99})
    graph["links"].append([99, 2, 0, 4, 1, "LATENT"])
    new = after(graph)
    encoder, decoder = found(new, "VAEEncode"), found(new, "VAEDecode")
    assert source(new, encoder, "pixels") == (2, 0)
    assert source(new, encoder, "vae") == (1, 2)
    assert source(new, found(new, "KSampler"), "latent_image") == (encoder["id"], 0)
    assert source(new, decoder, "samples") == (4, 0)
    assert source(new, found(new, ENCODE), "images") == (decoder["id"], 0)


@pytest.mark.parametrize(
    ("extra", "becomes"),
    [
        ({}, "ControlNetApplyAdvanced"),
        ({"mask_optional": ("MASK", 9, 0)}, "ACN_AdvancedControlNetApply"),
        ({"timestep_kf": ("TIMESTEP_KEYFRAME", 9, 0)}, "ACN_AdvancedControlNetApply"),
    ],
)
def test_a_controlnet_stays_where_it_uses_what_comfyui_lacks(extra, becomes):
    control = node(
        4, "ACN_AdvancedControlNetApply", [0.9, 0.0, 0.5], CONTROLLED,
        positive=("CONDITIONING", 9, 1), control_net=("CONTROL_NET", 3, 0),
        model_optional=("MODEL", 2, 0), **extra,
    )  # fmt: skip
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, "ControlNetLoaderAdvanced", ["canny.pth"], ["CONTROL_NET"], tk_optional=("T",)),
        control,
        sampler(5, (4, 2)),
        node(9, "Anything", [], ["MASK", "CONDITIONING"]),
    )
    new = after(graph)
    assert values(found(new, becomes)) == [0.9, 0.0, 0.5]
    plain = becomes == "ControlNetApplyAdvanced"
    assert source(new, found(new, "KSampler"), "model") == ((2, 0) if plain else (4, 2))
    assert values(found(new, "ControlNetLoader")) == ["canny.pth"]


PLAIN = [True, 1.0, 1.0, "nearest_hint", 1.0, 1.0, 1.0]


def sparse(*, loader=PLAIN, method=("Index", "0, -1"), images="ImageBatch", apply=(gen1,), **extra):
    """A graph with Advanced-ControlNet's SparseCtrl."""
    spread = node(5, f"ACN_SparseCtrl{method[0]}MethodNode", method[1:], ["SPARSE_METHOD"])
    return workflow(
        checkpoint(),
        *(make(2 + 20 * index) for index, make in enumerate(apply)),
        node(3, "LoadImage", ["a.png", "image"], ["IMAGE", "MASK"]),
        *([node(4, "ImageBatch", [], ["IMAGE"], image1=("IMAGE", 3, 0), image2=("IMAGE", 3, 0))]
          if images == "ImageBatch" else []),
        spread,
        node(6, "ACN_SparseCtrlLoaderAdvanced", ["rgb.ckpt", *loader], ["CONTROL_NET"],
             sparse_method=("SPARSE_METHOD", 5, 0)),
        node(7, "ACN_SparseCtrlRGBPreprocessor", [], ["IMAGE"], vae=("VAE", 1, 2),
             image=("IMAGE", 4 if images == "ImageBatch" else 3, 0)),
        node(8, "ACN_AdvancedControlNetApply_v2", [0.8, 0.1, 0.9], ["CONDITIONING"] * 2,
             positive=("CONDITIONING", 10, 0), negative=("CONDITIONING", 11, 0),
             control_net=("CONTROL_NET", 6, 0), image=("IMAGE", 7, 0), **extra),
        node(9, "KSampler", [1, "fixed", 20, 7.0, "euler", "normal", 1.0], ["LATENT"],
             model=("MODEL", 2, 0), positive=("CONDITIONING", 8, 0),
             negative=("CONDITIONING", 8, 1)),
        node(10, "CLIPTextEncode", ["a"], ["CONDITIONING"], clip=("CLIP", 1, 1)),
        node(11, "CLIPTextEncode", ["b"], ["CONDITIONING"], clip=("CLIP", 1, 1)),
        node(12, "SolidMask", [1.0, 8, 8], ["MASK"]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({}, "0, -1"),
        ({"method": ("Index", "3,7,9")}, "3, 7"),
        ({"method": ("Spread", "uniform")}, "0, -1"),
        ({"method": ("Spread", "ending"), "images": "LoadImage"}, "-1"),
        ({"mask_optional": ("MASK", 12, 0)}, "0, -1"),
    ],
)
def test_sparsectrl_becomes_keyframes_in_front_of_apply_animatediff(options, frames):
    new = after(sparse(**options))
    keyframes, apply = found(new, "ADV2V_Keyframes"), found(new, APPLY)
    assert values(keyframes) == ["rgb.ckpt", frames, 0.8, 0.1, 0.9]
    assert source(new, keyframes, "images") == (4 if "images" not in options else 3, 0)
    mask = source(new, keyframes, "mask")
    assert mask == (options["mask_optional"][1:] if "mask_optional" in options else None)
    assert source(new, apply, "control") == (8, 0)
    assert source(new, apply, "vae") == (1, 2)
    ksampler = found(new, "KSampler")
    assert source(new, ksampler, "positive") == (10, 0)
    assert source(new, ksampler, "negative") == (11, 0)
    assert not [each["type"] for each in new["nodes"] if each["type"].startswith("ACN_")]


def changed(**given):
    names = [
        "use_motion", "motion_strength", "motion_scale", "context_aware", "sparse_hint_mult",
        "sparse_nonhint_mult", "sparse_mask_mult",
    ]  # fmt: skip
    return [given.get(name, usual) for name, usual in zip(names, PLAIN, strict=True)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loader": changed(motion_strength=0.5)}, "motion_strength of its loader is not 1.0"),
        ({"loader": changed(use_motion=False)}, "use_motion of its loader is not True"),
        ({"loader": changed(context_aware="off")}, "context_aware of its loader is not nearest"),
        ({"loader": changed(sparse_mask_mult=0.0)}, "sparse_mask_mult of its loader is not 1.0"),
        ({"method": ("Spread", "center")}, "its frames are spread over the video (center)"),
        ({"weights_override": ("CONTROL_NET_WEIGHTS", 12, 0)}, "weights_override has no"),
        ({"apply": (context,)}, "the graph has no Apply AnimateDiff to connect it to"),
        ({"apply": (gen1, gen1)}, "the graph has 2 Apply AnimateDiff to connect it to"),
    ],
)
def test_sparsectrl_stays_where_keyframes_has_no_counterpart(options, reason):
    result = convert(sparse(**options))
    entries = {each.node: each for each in result.report.entries}
    assert entries["8"].outcome == "kept" and reason in entries["8"].reason
    assert {entries[each].outcome for each in "567"} == {"kept"}
    assert "Advanced-ControlNet" in result.report.summary


def test_the_sampler_of_artventurex():
    graph = workflow(
        checkpoint(),
        node(2, "AnimateDiffModuleLoader", ["mm.pth"], ["MOTION_MODULE"]),
        node(3, "EmptyLatentImage", [512, 512, 1], ["LATENT"]),
        node(
            4, "AnimateDiffSampler",
            ["default", 12, 5, "increment", 20, 8, "euler", "normal", 0.9], ["LATENT"],
            motion_module=("MOTION_MODULE", 2, 0), model=("MODEL", 1, 0),
            latent_image=("LATENT", 3, 0),
        ),
        node(5, "AnimateDiffCombine", [8, 0, True, "A", "image/gif", True], [],
             images=("IMAGE",)),
    )  # fmt: skip
    new = after(graph)
    ksampler = found(new, "KSampler")
    assert values(ksampler) == [5, "increment", 20, 8, "euler", "normal", 0.9]
    assert source(new, ksampler, "model") == (found(new, APPLY)["id"], 0)
    repeat = found(new, "RepeatLatentBatch")
    assert values(repeat) == [12] and source(new, repeat, "samples") == (3, 0)
    assert values(found(new, APPLY))[0] == "mm.pth"
    assert values(found(new, ENCODE))[:3] == [8.0, "A", "gif"]


def test_a_node_without_counterpart_passes_its_model_on():
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, "ADE_AnimateDiffUnload", [], ["MODEL"], model=("MODEL", 2, 0)),
        sampler(4, (3, 0)),
    )
    new = after(graph)
    assert source(new, found(new, "KSampler"), "model") == (2, 0)
    assert convert(graph).report.count("dropped") == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((0, "FreeNoise", "comfy", 0), "noise_type was FreeNoise"),
        ((0, "default", "auto1111", 0), "seed_gen of the sample settings was auto1111"),
        ((0, "default", "comfy", 0), None),
    ],
)
def test_settings_without_counterpart_are_named(settings, said):
    graph = workflow(
        checkpoint(),
        node(2, "ADE_AnimateDiffSamplingSettings", settings, ["SAMPLE_SETTINGS"]),
        gen1(3, sample_settings=("SAMPLE_SETTINGS", 2, 0)),
    )
    found_notes = notes(graph)
    assert len(found_notes) == (said is not None)
    assert all(each.startswith(said or "") for each in found_notes)


FREE_INIT = [3, "butterworth", 0.3, 0.2, 2, 999, False, "FreeInit [sampler sigma]", 0, 1]


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({1: "box"}, "filter was box, which is not here; now it is ideal."),
        ({5: 500}, "sigma_step was 500; it has no counterpart here."),
        ({6: True}, "apply_to_1st_iter was True; it has no counterpart here."),
        ({7: "DinkInit_v1"}, "init_type was DinkInit_v1; it has no counterpart here."),
        ({9: 5}, "iter_seed_offset was 5; it has no counterpart here."),
    ],
)
def test_free_init_comes_along(generation, changed, said):
    given = [changed.get(index, value) for index, value in enumerate(FREE_INIT)]
    settings = {"sample_settings": ("SAMPLE_SETTINGS", 3, 0)}
    motion = [gen1(4, **settings)]
    if generation == 2:
        motion = [
            node(4, "ADE_LoadAnimateDiffModel", ["v3.ckpt"], ["MOTION_MODEL_ADE"]),
            node(
                5, "ADE_ApplyAnimateDiffModelSimple", [], ["M_MODELS"],
                motion_model=("MOTION_MODEL_ADE", 4, 0),
            ),
            node(
                6, "ADE_UseEvolvedSampling", ["autoselect"], ["MODEL"],
                model=("MODEL", 1, 0), m_models=("M_MODELS", 5, 0), **settings,
            ),
        ]  # fmt: skip
    graph = workflow(
        checkpoint(),
        node(2, "ADE_IterationOptsFreeInit", given, ["ITERATION_OPTS"]),
        node(
            3, "ADE_AnimateDiffSamplingSettings", [0, "default", "comfy", 0], ["SAMPLE_SETTINGS"],
            iteration_opts=("ITERATION_OPTS", 2, 0),
        ),
        *motion,
    )  # fmt: skip
    new = after(graph)
    free_init = found(new, "ADV2V_FreeInit")
    kept = "ideal" if given[1] == "box" else "butterworth"
    assert values(free_init) == [3, kept, 0.3, 0.2, 2]
    assert source(new, found(new, APPLY), "free_init") == (free_init["id"], 0)
    assert notes(graph) == ([] if said is None else [said])


@pytest.mark.parametrize(
    ("kind", "between"), [("SomeNumber", "ComfyNumberConvert"), ("PrimitiveNode", "")]
)
def test_a_whole_number_as_frame_rate(kind, between):
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, kind, [12, "fixed"], ["INT"]),
        node(4, "VHS_VideoCombine", COMBINE, [], images=("IMAGE",), frame_rate_w=("INT", 3, 0)),
    )
    new = after(graph)
    origin = source(new, found(new, ENCODE), "fps")
    if between:
        assert source(new, found(new, between), "value") == (3, 0)
        assert origin == (found(new, between)["id"], 0)
    else:
        assert origin == (3, 0)
        assert new["nodes"][2]["outputs"][0]["type"] == "FLOAT"


TEXT = '"0": "a fox", "8": "an owl"'


@pytest.mark.parametrize(
    ("kind", "widgets", "outputs", "expected"),
    [
        ("BatchPromptSchedule", [TEXT, 24, False, 0, 0], 2, [TEXT, 24, "", ""]),
        ("BatchPromptSchedule", [TEXT, 24, False, "a", "b", 0, 0, 0, 0], 2, [TEXT, 24, "a", "b"]),
        ("BatchPromptSchedule", [TEXT, 24, "a", "b", 0, 0, 0, 0], 1, [TEXT, 24, "a", "b"]),
        ("ADE_PromptScheduling", [TEXT, False, 24, "lerp"], 1, [TEXT, 24, "", ""]),
    ],
)
def test_prompt_schedules(kind, widgets, outputs, expected):
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, kind, widgets, ["CONDITIONING"] * outputs, clip=("CLIP", 1, 1)),
        node(
            4, "KSampler", [], ["LATENT"], model=("MODEL", 2, 0),
            positive=("CONDITIONING", 3, 0), negative=("CONDITIONING", 3, outputs - 1),
        ),
    )  # fmt: skip
    new = after(graph)
    travel, ksampler = found(new, "ADV2V_PromptTravel"), found(new, "KSampler")
    assert values(travel) == expected
    assert source(new, ksampler, "positive") == (3, 0)
    negative = source(new, ksampler, "negative")
    if outputs == 2:
        encoder = found(new, "CLIPTextEncode")
        assert negative == (encoder["id"], 0) and source(new, encoder, "clip") == (1, 1)
    else:
        assert negative == (3, 0)


@pytest.mark.parametrize("text", ['"0": "a fox --neg b"', '"0": "(a:`sin(t)`)"'])
def test_a_schedule_that_calculates_stays(text):
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, "BatchPromptSchedule", [text, 24, False, 0, 0], ["CONDITIONING", "CONDITIONING"]),
    )
    assert found(after(graph), "BatchPromptSchedule")["widgets_values"][0] == text


@pytest.mark.parametrize(("kind", "shift"), [("VHS_VideoInfo", 0), ("VHS_VideoInfoLoaded", 5)])
def test_video_info(kind, shift):
    graph = workflow(
        node(1, "VHS_LoadVideo", LOAD_VIDEO, ["IMAGE", "INT", "AUDIO", "VHS_VIDEOINFO"]),
        node(
            2, kind, [], ["FLOAT", "INT", "FLOAT", "INT", "INT"], video_info=("VHS_VIDEOINFO", 1, 3)
        ),
        node(3, "SomeCount", [], [], count=("INT", 2, 1)),
        checkpoint(4),
        gen1(5, (4, 0)),
    )
    new = after(graph)
    assert source(new, found(new, "ADV2V_VideoInfo"), "video_info") == (1, 4)
    assert source(new, found(new, "SomeCount"), "count") == (2, 1 + shift)


def test_batches_are_split_by_comfyuis_own_nodes():
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, "LoadImage", ["a.png", "image"], ["IMAGE"]),
        node(4, "VHS_SplitImages", {"split_index": 5}, ["IMAGE", "INT", "IMAGE", "INT"],
             images=("IMAGE", 3, 0)),
        node(5, "PreviewImage", [], [], images=("IMAGE", 4, 2)),
    )  # fmt: skip
    new = after(graph)
    second = next(each for each in new["nodes"] if each["id"] == 6)
    assert (second["type"], values(second)) == ("ImageFromBatch", [5, 4096])
    assert source(new, second, "image") == (3, 0)
    assert source(new, found(new, "PreviewImage"), "images") == (6, 0)


def test_hooks_become_comfyuis():
    graph = workflow(
        checkpoint(),
        gen1(2),
        node(3, "ADE_RegisterLoraHook", ["a.safetensors", 0.5, 0.6], ["MODEL", "CLIP", "HOOKS"],
             model=("MODEL", 2, 0), clip=("CLIP", 1, 1)),
        node(4, "ADE_AttachLoraHookToCLIP", [], ["CLIP"], clip=("CLIP", 3, 1),
             lora_hook=("HOOKS", 3, 2)),
        sampler(5, (3, 0)),
    )  # fmt: skip
    new = after(graph)
    assert values(found(new, "CreateHookLora")) == ["a.safetensors", 0.5, 0.6]
    assert source(new, found(new, "SetClipHooks"), "clip") == (1, 1)
    assert source(new, found(new, "SetClipHooks"), "hooks") == (3, 0)
    assert source(new, found(new, "KSampler"), "model") == (2, 0)


def test_a_subgraph_keeps_its_boundary_and_its_widgets():
    inner = [
        context(10),
        gen1(
            11, (-10, 0), context_options=("CONTEXT_OPTIONS", 10, 0), model_name_w=("COMBO", -10, 1)
        ),
    ]
    definition = {
        "id": "11111111-2222-3333-4444-555555555555",
        "name": "Motion",
        **linked(inner, as_objects=True, first=20),
        "state": {"lastNodeId": 11, "lastLinkId": 24},
        "inputs": [
            {"id": "a", "name": "model", "type": "MODEL", "linkIds": [21]},
            {"id": "b", "name": "model_name", "type": "COMBO", "linkIds": [22]},
        ],
        "outputs": [{"id": "c", "name": "MODEL", "type": "MODEL", "linkIds": [24]}],
    }
    out = [24, 11, 0, -20, 0, "MODEL"]
    definition["links"].append(dict(zip(definition["links"][0], out, strict=True)))
    inner[1]["outputs"][0]["links"] = [24]
    instance = node(2, definition["id"], ["mm.ckpt"], ["MODEL"], model=("MODEL", 1, 0))
    instance["properties"]["proxyWidgets"] = [["11", "model_name"], ["10", "context_length"]]
    graph = workflow(
        checkpoint(), instance, sampler(3, (2, 0)), definitions={"subgraphs": [definition]}
    )
    new = after(graph)
    (changed,) = new["definitions"]["subgraphs"]
    apply = found(changed, APPLY)
    assert apply["id"] == 11
    assert changed["outputs"][0]["linkIds"] == [24]
    boundary = {row["target_slot"]: row for row in changed["links"] if row["origin_id"] == -10}
    names = [apply["inputs"][slot]["name"] for slot in boundary]
    assert names == ["model", "motion_module"]
    assert [each["linkIds"] for each in changed["inputs"]] == [
        [row["id"]] for row in boundary.values()
    ]
    shown = new["nodes"][1]["properties"]["proxyWidgets"]
    assert shown == [["11", "motion_module"], ["10", "length"]]
    assert convert(graph).report.entries[-1].node == "Motion: 11"


def test_the_api_format():
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "2": {
            "class_type": "ADE_AnimateDiffLoaderGen1",
            "inputs": {"model_name": "mm.ckpt", "beta_schedule": "autoselect", "model": ["1", 0]},
            "_meta": {"title": "Mine"},
        },
        "3": {"class_type": "KSampler", "inputs": {"model": ["2", 0], "seed": 1}},
        "4": {"class_type": "VHS_LoadVideoPath", "inputs": LOAD_VIDEO | {"video": "input/a.mp4"}},
        "5": {"class_type": "VHS_VideoCombine", "inputs": {"images": ["4", 0], "frame_rate": 9}},
        "6": {"class_type": "SomeCount", "inputs": {"count": ["4", 1]}},
    }
    for given in (graph, {"prompt": graph, "client_id": "x"}):
        new = after(given)
        nodes = new.get("prompt", new)
        assert nodes["2"] == {
            "class_type": APPLY,
            "inputs": {
                "motion_module": "mm.ckpt",
                "motion_scale": 1.0,
                "beta_schedule": "autoselect",
                "start": 0.0,
                "end": 1.0,
                "model": ["1", 0],
            },
            "_meta": {"title": "Mine", "converted_from": "ADE_AnimateDiffLoaderGen1"},
        }
        assert nodes["3"] == graph["3"]
        assert nodes["4"]["inputs"]["video"] == "a.mp4"
        assert "upload" not in nodes["4"]["inputs"]
        assert nodes["5"]["inputs"]["images"] == ["4", 0]
        assert nodes["5"]["inputs"]["fps"] == 9.0
        assert nodes["6"]["inputs"]["count"] == ["4", 3]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([checkpoint()], "it has no nodes of AnimateDiff"),
        ([node(1, "VHS_LoadVideo", LOAD_VIDEO, ["IMAGE"])], "it has no nodes of AnimateDiff"),
        ([node(1, APPLY, [], ["MODEL"])], "this pack's nodes already"),
        ([checkpoint(), gen1(2, widgets=("hotshotxl_mm_v1.pth", "x"))], "for Stable Diffusion XL"),
        ([checkpoint(), gen1(2, widgets=("mm_sdxl_v10_beta.ckpt", "x"))], "Stable Diffusion XL"),
        ([node(1, "ADE_ApplyAnimateDiffModelWithCameraCtrl", [], [])], "CameraCtrl has no"),
        ([node(1, "ADE_ApplyAnimateDiffModelWithPIA", [], [])], "PIA has no counterpart"),
        ([node(1, "ADE_LoadAnimateLCMI2VModel", ["x"], [])], "AnimateLCM-I2V"),
    ],
)
def test_a_graph_for_something_else_is_left_as_it_is(nodes, said):
    result = convert(workflow(*nodes))
    assert result.graph is None
    assert said in result.report.reason
    assert result.report.reason.startswith("The graph is left as it is")
    assert result.report.summary == result.report.text == result.report.reason


@pytest.mark.parametrize("data", [None, 5, [], {}, {"nodes": 5}, {"a": 1}, "x", {"prompt": {}}])
def test_what_is_no_graph_is_refused(data):
    with pytest.raises(AnimateDiffV2VError, match="holds no graph"):
        convert(data)


def test_a_second_conversion_changes_nothing():
    new = after(workflow(checkpoint(), gen1(2), sampler(3, (2, 0))))
    assert convert(json.loads(json.dumps(new))).graph is None


def test_the_report_is_text_and_json():
    graph = workflow(
        checkpoint(), gen1(2), node(3, "LatentKeyframe", [0, 1.0], ["LATENT_KEYFRAME"])
    )
    report = convert(graph).report
    assert report.summary == (
        "The graph was converted: 1 converted, 1 kept, 1 same. It still needs Advanced-ControlNet."
    )
    assert report.text.splitlines()[1:] == [
        "same      1 CheckpointLoaderSimple",
        "converted 2 ADE_AnimateDiffLoaderGen1 into ADV2V_ApplyMotion",
        "kept      3 LatentKeyframe: it works with Apply AnimateDiff as it is",
    ]
    assert json.loads(json.dumps(report.as_json))["entries"][1]["into"] == APPLY


def extra(number, kind, values, **sockets):
    return node(number, f"ADE_ContextExtras_{kind}", values, ["CONTEXT_EXTRAS"], **sockets)


@pytest.mark.parametrize(
    ("extras", "memory", "said"),
    [
        ([extra(6, "ContextRef", [0.0, 0.25])], ["ContextRef", 0.25], []),
        ([extra(6, "NaiveReuse", [0.0, 0.15, 0.95])], ["NaiveReuse", 0.15], []),
        (
            [extra(6, "NaiveReuse", [0.1, 0.5, 0.8])],
            ["NaiveReuse", 0.5],
            [
                "start_percent of NaiveReuse was 0.1; here it is always 0.",
                "weighted_mean of NaiveReuse was 0.8; here it is always 0.95.",
            ],
        ),
        (
            [
                extra(7, "NaiveReuse", [0.0, 0.15, 0.95]),
                extra(6, "ContextRef", [0.0, 0.4], prev_extras=("CONTEXT_EXTRAS", 7, 0)),
            ],
            ["ContextRef", 0.4],
            ["It has one memory; NaiveReuse is left out."],
        ),
        (
            [
                node(8, "ADE_ContextExtras_ContextRef_ModeFirst", [], ["CONTEXTREF_MODE"]),
                extra(6, "ContextRef", [0, 1], contextref_mode=("CONTEXTREF_MODE", 8, 0)),
            ],
            ["ContextRef", 1],
            [],
        ),
        (
            [
                node(8, "ADE_ContextExtras_ContextRef_ModeSliding", [2], ["CONTEXTREF_MODE"]),
                extra(6, "ContextRef", [0, 1], contextref_mode=("CONTEXTREF_MODE", 8, 0)),
            ],
            ["ContextRef", 1],
            ["Dropped from ContextRef: modes other than the first window."],
        ),
    ],
)  # fmt: skip
def test_context_extras_become_the_memory_of_the_windows(extras, memory, said):
    graph = workflow(
        checkpoint(),
        context(4),
        node(
            5, "ADE_ContextExtras_Set", [], ["CONTEXT_OPTIONS"],
            context_opts=("CONTEXT_OPTIONS", 4, 0), context_extras=("CONTEXT_EXTRAS", 6, 0),
        ),
        *extras,
        gen1(9, context_options=("CONTEXT_OPTIONS", 5, 0)),
    )  # fmt: skip
    new = after(graph)
    windows = found(new, "ADV2V_ContextOptions")
    assert values(windows)[-2:] == memory
    assert source(new, found(new, APPLY), "context_options") == (windows["id"], 0)
    assert notes(graph) == said
    assert not any(each["type"].startswith("ADE_ContextExtras") for each in new["nodes"])
