"""Refusals and their exact words, by input and by path."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from animatediff_v2v.pipeline.sampling.windows import ContextMemory

from .homes import QUEUE, V2V

TURBO = f"{V2V}/turbo"
FAST = "/fal-ai/fast-animatediff/video-to-video"
FAST_TURBO = "/fal-ai/fast-animatediff/turbo/video-to-video"
HUGE = 10**30


def entry(loc, type, **ctx):
    return {"loc": ["body", *loc], "type": type, **({"ctx": ctx} if ctx else {})}


# Endpoint, values that replace those of a good input, and the entries of `detail`.
WRONG_INPUTS = [
    (V2V, {"video_url": None}, [entry(["video_url"], "missing")]),
    (V2V, {"prompt": None}, [entry(["prompt"], "missing")]),
    (
        V2V,
        {"video_url": None, "prompt": None},
        [entry(["video_url"], "missing"), entry(["prompt"], "missing")],
    ),
    (V2V, {"video_url": 5}, [entry(["video_url"], "string_type")]),
    (V2V, {"video_url": ""}, [entry(["video_url"], "sequence_too_short", min_length=1)]),
    (V2V, {"prompt": ["a"]}, [entry(["prompt"], "string_type")]),
    (V2V, {"prompt": "x" * 10_001}, [entry(["prompt"], "sequence_too_long", max_length=10_000)]),
    (V2V, {"negative_prompt": 1}, [entry(["negative_prompt"], "string_type")]),
    (V2V, {"prompt": "(a:nan)"}, [entry(["prompt"], "value_error")]),
    (V2V, {"prompt": "a {fox} (b:1e30)"}, [entry(["prompt"], "value_error")]),
    (FAST, {"negative_prompt": "(a:-inf)"}, [entry(["negative_prompt"], "value_error")]),
    (V2V, {"prompt": "(" * 4_000 + "a:nan" + ")" * 4_000}, [entry(["prompt"], "value_error")]),
    (V2V, {"prompt": "\ud800"}, [entry(["prompt"], "string_unicode")]),
    (V2V, {"num_inference_steps": 0}, [entry(["num_inference_steps"], "greater_than_equal", ge=1)]),
    (
        V2V,
        {"num_inference_steps": 101},
        [entry(["num_inference_steps"], "less_than_equal", le=100)],
    ),
    (V2V, {"num_inference_steps": 2.5}, [entry(["num_inference_steps"], "int_from_float")]),
    (V2V, {"num_inference_steps": "many"}, [entry(["num_inference_steps"], "int_parsing")]),
    (V2V, {"num_inference_steps": []}, [entry(["num_inference_steps"], "int_type")]),
    (V2V, {"guidance_scale": -1}, [entry(["guidance_scale"], "greater_than_equal", ge=0)]),
    (V2V, {"guidance_scale": 31}, [entry(["guidance_scale"], "less_than_equal", le=30)]),
    (V2V, {"guidance_scale": "strong"}, [entry(["guidance_scale"], "float_parsing")]),
    (V2V, {"guidance_scale": float("nan")}, [entry(["guidance_scale"], "finite_number")]),
    (V2V, {"guidance_scale": float("inf")}, [entry(["guidance_scale"], "finite_number")]),
    (V2V, {"guidance_scale": "0: 7, 8: 31"}, [entry(["guidance_scale"], "value_error")]),
    (V2V, {"guidance_scale": "8: 7, 4: 1"}, [entry(["guidance_scale"], "value_error")]),
    (V2V, {"guidance_scale": "a: 7"}, [entry(["guidance_scale"], "value_error")]),
    (V2V, {"guidance_scale": "-" * 9_000 + "1: 7"}, [entry(["guidance_scale"], "value_error")]),
    (
        V2V,
        {"guidance_scale": "0: 7," * 2_001},
        [entry(["guidance_scale"], "sequence_too_long", max_length=10_000)],
    ),
    (
        TURBO,
        {"num_inference_steps": 8, "guidance_scale": "0: 0.5"},
        [entry(["guidance_scale"], "value_error")],
    ),
    (V2V, {"guidance_scale": "0%: 7, 50%: 31"}, [entry(["guidance_scale"], "value_error")]),
    (V2V, {"guidance_scale": "0%: 7, 8: 3"}, [entry(["guidance_scale"], "value_error")]),
    (V2V, {"match_source": 1.5}, [entry(["match_source"], "less_than_equal", le=1)]),
    (V2V, {"refine": 0.5}, [entry(["refine"], "greater_than_equal", ge=1)]),
    (FAST, {"refine": 2.5}, [entry(["refine"], "less_than_equal", le=2)]),
    (V2V, {"refine_denoise": -0.1}, [entry(["refine_denoise"], "greater_than_equal", ge=0)]),
    (
        V2V,
        {"refine_upscale": "model"},
        [entry(["refine_upscale"], "one_of", expected=["image", "latent"])],
    ),
    (V2V, {"keyframe_strength": -1}, [entry(["keyframe_strength"], "greater_than_equal", ge=0)]),
    (V2V, {"keyframes": [{"frame": 0}]}, [entry(["keyframes", 0, "image_url"], "missing")]),
    (
        FAST,
        {"keyframes": [{"image_url": "https://a.b/c.png", "frame": 0.5}]},
        [entry(["keyframes", 0, "frame"], "int_from_float")],
    ),
    (V2V, {"restore_frames": "often"}, [entry(["restore_frames"], "bool_parsing")]),
    (V2V, {"seed": -1}, [entry(["seed"], "greater_than_equal", ge=0)]),
    (V2V, {"seed": HUGE}, [entry(["seed"], "less_than_equal", le=2**64 - 1)]),
    (
        V2V,
        {"select_every_nth_frame": 0},
        [entry(["select_every_nth_frame"], "greater_than_equal", ge=1)],
    ),
    (
        V2V,
        {"base_model": "unheardOf"},
        [entry(["base_model"], "one_of", expected=["cardosAnime_v20.safetensors"])],
    ),
    (
        V2V,
        {"base_model": "../../etc/passwd"},
        [entry(["base_model"], "one_of", expected=["cardosAnime_v20.safetensors"])],
    ),
    (V2V, {"base_model": ""}, [entry(["base_model"], "sequence_too_short", min_length=1)]),
    (V2V, {"loras": {}}, [entry(["loras"], "list_type")]),
    (V2V, {"loras": [{}]}, [entry(["loras", 0, "path"], "missing")]),
    (
        V2V,
        {"loras": [{"path": "a", "scale": 11}]},
        [entry(["loras", 0, "scale"], "less_than_equal", le=10)],
    ),
    (
        V2V,
        {"loras": [{"path": "a"}] * 17},
        [entry(["loras"], "sequence_too_long", max_length=16)],
    ),
    (
        TURBO,
        {"num_inference_steps": 3},
        [entry(["num_inference_steps"], "greater_than_equal", ge=4)],
    ),
    (
        TURBO,
        {"num_inference_steps": 13},
        [entry(["num_inference_steps"], "less_than_equal", le=12)],
    ),
    (
        TURBO,
        {"num_inference_steps": 8, "guidance_scale": 0.5},
        [entry(["guidance_scale"], "greater_than_equal", ge=1)],
    ),
    (
        V2V,
        {"loras": [{"path": "a"}, {"path": "b", "scale": "0: 11"}]},
        [entry(["loras", 1, "scale"], "value_error")],
    ),
    (FAST, {"strength": "0: 0, 8: 1.5"}, [entry(["strength"], "value_error")]),
    (FAST, {"strength": "0%: 0, 50%: 1"}, [entry(["strength"], "value_error")]),
    (FAST, {"strength": "0: nan"}, [entry(["strength"], "value_error")]),
    (
        V2V,
        {"context_memory": "ContextRef2"},
        [entry(["context_memory"], "one_of", expected=[*get_args(ContextMemory)])],
    ),
    (
        V2V,
        {"context_memory_end": 2},
        [entry(["context_memory_end"], "less_than_equal", le=1)],
    ),
    (FAST, {"strength": 1.5}, [entry(["strength"], "less_than_equal", le=1)]),
    (FAST, {"first_n_seconds": 0}, [entry(["first_n_seconds"], "greater_than", gt=0)]),
    (FAST, {"fps": 0}, [entry(["fps"], "greater_than_equal", ge=1)]),
    (
        FAST,
        {"motions": ["roll"]},
        [
            entry(
                ["motions", 0],
                "one_of",
                expected=["zoom-out", "zoom-in", "pan-left", "pan-right", "tilt-up", "tilt-down"],
            )
        ],
    ),
    (FAST, {"motions": ["zoom-in"]}, [entry(["motions"], "feature_not_supported")]),
    (FAST_TURBO, {"fps": 121}, [entry(["fps"], "less_than_equal", le=120)]),
    (V2V, {"video_url": "data:"}, [entry(["video_url"], "file_download_error")]),
    (V2V, {"video_url": "data:video/mp4;base64,%%"}, [entry(["video_url"], "file_download_error")]),
    (
        V2V,
        {"video_url": "data:video/mp4;base64," + "A" * 270_000},
        [entry(["video_url"], "file_too_large", max_size=200_000)],
    ),
]

# What only shows when the video and the LoRAs are brought in: submitted all the same.
WRONG_FILES = [
    ({"video_url": "ftp://example.com/a.mp4"}, entry(["video_url"], "file_download_error")),
    ({"video_url": "nonsense"}, entry(["video_url"], "file_download_error")),
    ({"video_url": "file:///etc/passwd"}, entry(["video_url"], "file_download_error")),
    ({"video_url": "http://127.0.0.1:8188/x"}, entry(["video_url"], "file_download_error")),
    (
        {"video_url": "data:video/mp4;base64,AAAA"},
        entry(
            ["video_url"],
            "unsupported_video_format",
            supported_formats=["mp4", "mov", "webm", "mkv", "avi", "gif"],
        ),
    ),
    (
        {"loras": [{"path": "no_such_lora"}]},
        entry(["loras", 0, "path"], "file_download_error"),
    ),
    (
        {"loras": [{"path": "style_lora"}, {"path": "../../../etc/passwd"}]},
        entry(["loras", 1, "path"], "file_download_error"),
    ),
    (
        {"loras": [{"path": "http://169.254.169.254/latest"}]},
        entry(["loras", 0, "path"], "file_download_error"),
    ),
]


def essence(detail):
    """Return the fields of an entry that programs read; it must have a message as well."""
    assert detail.pop("msg")
    detail.pop("input", None)
    assert detail.pop("url") == f"https://docs.fal.ai/errors/#{detail['type']}"
    return detail


@pytest.mark.parametrize(("endpoint", "values", "expected"), WRONG_INPUTS)
def test_wrong_input_is_refused_at_once(home, endpoint, values, expected):
    body = json.dumps(home.wish(**values))
    for host in (QUEUE, "/fal/fal.run"):
        answer = home.call("POST", host + endpoint, data=body)
        assert answer.status_code == 422
        assert [essence(each) for each in answer.json()["detail"]] == expected


@pytest.mark.parametrize(("values", "expected"), WRONG_FILES)
def test_unusable_files_are_reported_by_the_result(home, values, expected):
    request = home.submit(**values)
    status = home.wait(request)
    assert (status["error_type"], status["logs"][-1]["message"]) == (
        expected["type"],
        status["error"],
    )
    answer = home.get(request["response_url"])
    assert answer.status_code == 422
    assert answer.headers["x-fal-request-id"] == request["request_id"]
    assert answer.headers["X-Fal-Error-Type"] == expected["type"]
    (detail,) = answer.json()["detail"]
    for place in (str(home.data), "/models/", "Traceback"):
        assert place not in detail["msg"]
    assert essence(detail) == expected
    assert not home.leftovers()


def test_a_video_that_is_too_long_is_refused(home, long_clip):
    request = home.submit(video_url=long_clip)
    (detail,) = home.result(request).json()["detail"]
    assert essence(detail) == entry(
        ["video_url"], "video_duration_too_long", max_duration=5, provided_duration=6
    )


def problem(sentence, error_type):
    return {"detail": sentence, "error_type": error_type}


NO_JSON = (400, problem("The body is not valid JSON", "bad_request"))
NOT_FOUND = (404, problem("Request not found", "not_found"))
NO_TARGET = (400, problem("The header x-fal-target-url is missing", "bad_target"))
BAD_TARGET = (412, problem("The target of the proxy must be a URL of fal's", "bad_target"))
BAD_METHOD = (405, problem("The proxy takes GET, POST and PUT", "bad_method"))
NO_FILE = (404, problem("There is no such file, or it was removed", "not_found"))
NOTHING = f"{QUEUE}{V2V}/requests/nothing"


def proxied(target):
    return {"headers": {"x-fal-target-url": target}}


# Method, path, what comes with it, and the whole answer.
CALLS = [
    ("POST", QUEUE + V2V, {"data": "{"}, NO_JSON),
    ("POST", QUEUE + V2V, {"data": "[" * 100_000}, NO_JSON),
    ("POST", QUEUE + V2V, {"data": "1" * 5_000}, NO_JSON),
    ("POST", QUEUE + V2V, {"data": b"\xff\xfe"}, NO_JSON),
    ("GET", f"{NOTHING}/status", {}, NOT_FOUND),
    ("GET", f"{NOTHING}/status/stream", {}, NOT_FOUND),
    ("GET", NOTHING, {}, NOT_FOUND),
    ("PUT", f"{NOTHING}/cancel", {}, (404, {"status": "NOT_FOUND"})),
    ("GET", "/fal/proxy", {}, NO_TARGET),
    ("GET", "/fal/proxy", proxied("https://example.com/"), BAD_TARGET),
    ("GET", "/fal/proxy", proxied("https://fal.run.example.com/"), BAD_TARGET),
    ("GET", "/fal/proxy", proxied("https://me@queue.fal.run/"), BAD_TARGET),
    ("GET", "/fal/proxy", proxied("http://queue.fal.run/"), BAD_TARGET),
    ("DELETE", "/fal/proxy", {}, BAD_METHOD),
    ("GET", "/animatediff-v2v/files/none/x.mp4", {}, NO_FILE),
]


@pytest.mark.parametrize(("method", "path", "options", "expected"), CALLS)
def test_wrong_calls(home, method, path, options, expected):
    answer = home.call(method, path, **options)
    assert (answer.status_code, answer.json()) == expected


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/fal/fal.run/fal-ai/unheard-of", None),
        (f"/fal/fal.run{V2V}/stream", None),
        ("/fal/queue.fal.run/fal-ai/unheard-of", None),
        ("/fal/nowhere.fal.run/x", None),
        ("/fal/proxy", "https://queue.fal.run/fal-ai/unheard-of"),
    ],
)
def test_unknown_paths_are_not_found(home, path, target):
    headers = {"x-fal-target-url": target} if target else {}
    answer = home.post(path, {}, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["error_type"] == "not_found"
    assert "fal-ai/animatediff-v2v" in answer.json()["detail"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_malformed_start_timeout_is_refused(home, text):
    answer = home.post(QUEUE + V2V, home.wish(), headers={"x-fal-request-timeout": text})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "x-fal-request-timeout"]


def test_unknown_fields_are_ignored_as_the_hosted_model_does(home):
    request = home.submit(colour="green", loras=[{"path": "style_lora", "force": True}])
    assert home.result(request).status_code == 200
