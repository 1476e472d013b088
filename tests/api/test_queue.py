"""The states of requests: waiting, running, done, cancelled, late; and their reports."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from animatediff_v2v.pipeline.video import VideoReader
from PIL import Image

from .homes import MINIATURE, QUEUE, V2V, data_uri, write_clip

FAST = "/fal-ai/fast-animatediff/video-to-video"
CANCELLED = {"detail": "Request was cancelled", "error_type": "request_cancelled"}


@pytest.fixture
def long_job(home):
    """A job that runs, and is cancelled after the test."""
    request = home.submit_long()
    yield request
    home.cancel(request)
    home.wait(request)


FULL = {"video", "seed", "timings"}
PHASES = {"decode", "encode", "sample", "decode_latents", "write", "total"}


# Endpoint, values, the keys of the output, and the frames of the video.
MADE = [
    (V2V, {}, FULL, 4),
    (V2V, {"loras": [{"path": "style_lora", "scale": 0.5}]}, FULL, 4),
    (V2V, {"select_every_nth_frame": 1, "guidance_scale": 7}, FULL, 8),
    (f"{V2V}/turbo", {"num_inference_steps": 4}, FULL, 4),
    (FAST, {"first_n_seconds": 0.5, "fps": 4}, {"video", "seed"}, 2),
    ("/fal-ai/fast-animatediff/turbo/video-to-video", {"fps": 4}, {"video", "seed"}, 4),
]


@pytest.mark.parametrize("case", MADE)
def test_each_endpoint_makes_a_video(home, read_video, case):
    endpoint, values, keys, frames = case
    answer = home.result(home.submit(endpoint=endpoint, **values))
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (set(made), made["seed"]) == (keys, 1)
    assert set(made.get("timings", PHASES)) == PHASES
    video = made["video"]
    assert video["content_type"] == "video/mp4"
    file = home.get(video["url"], key=None)
    assert len(file.content) == video["file_size"]
    assert read_video(file.content) == (frames, 48, 48)
    assert not home.leftovers()


def test_keyframes_guide_the_video_and_are_removed(home, tmp_path):
    """As data URIs; one that is outside of the video is a sentence."""
    png = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(png, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    keyframes = [{"image_url": url, "frame": 0}, {"image_url": url, "frame": -1}]

    def made(**values):
        video = home.result(home.submit(**values)).json()["video"]
        path = tmp_path / "made.mp4"
        path.write_bytes(home.get(video["url"], key=None).content)
        with VideoReader(path) as frames:
            return np.stack(list(frames))

    assert np.array_equal(made(), made(keyframes=[]))
    assert not np.array_equal(made(), made(keyframes=keyframes))
    answer = home.result(home.submit(keyframes=[{"image_url": url, "frame": 9}]))
    assert answer.status_code == 422, answer.text
    assert "A keyframe is at frame 9, and the video has 4 frames" in answer.text
    wrong = [
        ([{"image_url": url, "frame": 0}] * 2, "Two keyframes are at frame 0"),
        ([{"image_url": url}, {"image_url": "data:image/png;base64,AAAA", "frame": 1}],
         "cannot be read as a picture"),
    ]  # fmt: skip
    for keyframes, sentence in wrong:
        answer = home.result(home.submit(keyframes=keyframes))
        assert answer.status_code == 422 and sentence in answer.text, answer.text
    assert not home.leftovers()


def test_strengths_change_along_the_video(home, tmp_path):
    """A level curve is its number; a rising one begins as without and ends as with it."""

    def made(**values):
        values = {"num_inference_steps": 4, "guidance_scale": 2} | values
        video = home.result(home.submit(**values)).json()["video"]
        path = tmp_path / "made.mp4"
        path.write_bytes(home.get(video["url"], key=None).content)
        with VideoReader(path) as frames:
            return np.stack(list(frames)).astype(int)

    def styled(scale, path="style_lora"):
        return made(loras=[{"path": path, "scale": scale}])

    def difference(found, other):
        return np.abs(found - other).mean()

    for along, number in (("0: 4", 4), ("0: 1, -1: 1", 1)):
        assert difference(made(guidance_scale=along), made(guidance_scale=number)) < 1
    along = "0: 0, 2: 0, -1: 4"
    plain, rising = made(), styled(along)
    # A LoRA that is brought in is not in ComfyUI's list, so its strength takes another way.
    named = {"content_type": "application/octet-stream", "file_name": "a.safetensors"}
    sent = home.post("/fal/rest.fal.ai/storage/upload/initiate", named).json()
    lora = (MINIATURE / "loras" / "miniature_outlined.safetensors").read_bytes()
    assert home.call("PUT", sent["upload_url"], data=lora, key=None).status_code == 200
    assert np.array_equal(styled(along, sent["file_url"]), rising)
    assert difference(rising[-1], plain[-1]) > 2 * difference(rising[0], plain[0])
    fast = {"endpoint": FAST, "select_every_nth_frame": None}
    source = made(**fast, strength=0)
    held = made(**fast, strength="0: 0, 4: 0, 5: 1")
    assert difference(held[:4], source[:4]) < 1 < difference(held[6:], source[6:])
    assert not home.leftovers()


def test_a_curve_beyond_the_video_is_refused_by_its_field(home):
    wrong = [
        ({"guidance_scale": "0: 1, 4: 7"}, ["guidance_scale"], "frame 4 is beyond the video, "
         "whose 4 frames are counted from 0 to 3; the last one can be written as -1"),
        ({"loras": [{"path": "style_lora"}, {"path": "style_lora", "scale": "9: 1"}]},
         ["loras", 1, "scale"], "frame 9 is beyond the video"),
        ({"endpoint": FAST, "strength": "0.5: 0, 2: 1"}, ["strength"], "comes after frame 4"),
    ]  # fmt: skip
    for values, loc, sentence in wrong:
        answer = home.result(home.submit(**values))
        (detail,) = answer.json()["detail"]
        assert answer.status_code == 422 and sentence in detail["msg"], detail
        assert (detail["loc"], detail["type"]) == (["body", *loc], "value_error")
    assert not home.leftovers()


def test_the_memory_of_windows_reaches_the_sampler(home, tmp_path):
    clip = write_clip(tmp_path / "long.mp4", frames=40, frame_rate=10)
    wanted = {"video_url": data_uri(clip), "select_every_nth_frame": 1}
    made = [
        home.get(home.result(request).json()["video"]["url"], key=None).content
        for request in (
            home.submit(**wanted),
            home.submit(**wanted, context_memory="ContextRef"),
            home.submit(**wanted, context_memory="ContextRef", context_memory_end=0),
        )
    ]
    if home.is_comfyui:
        assert len(made) == 3, "each file contains its own graph"
        return
    assert made[0] == made[2] != made[1]


def test_run_answers_with_the_output_itself(home):
    answer = home.post(f"/fal/fal.run{V2V}", home.wish())
    assert answer.status_code == 200
    assert set(answer.json()) == {"video", "seed", "timings"}
    assert answer.headers["x-fal-request-id"]


def test_the_defaults_are_the_hosted_ones(home):
    description = home.get("/animatediff-v2v/openapi.json", key=None).json()
    inputs = {
        path.removeprefix("/fal/fal.run/"): {
            name: field.get("default")
            for name, field in description["components"]["schemas"][
                call["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].split(
                    "/"
                )[-1]
            ]["properties"].items()
        }
        for path, call in description["paths"].items()
        if path.startswith("/fal/fal.run/")
    }
    negative = "(bad quality, worst quality:1.2), ugly faces, bad anime"
    common = {"video_url": None, "prompt": None, "negative_prompt": negative, "seed": None}
    # Ours alone; nothing changes without them.
    common |= {"match_source": 0, "restore_frames": False, "preset": "exact"}
    common |= {"keyframes": None, "keyframe_strength": 1}
    common |= {"context_memory": "none", "context_memory_end": 1}
    common |= {"refine": 1, "refine_denoise": 0.35, "refine_upscale": "image"}
    hosted = {
        "base_model": "cardosAnimev20",
        "loras": None,
        "select_every_nth_frame": 2,
        **common,
    }
    fast = {"strength": 0.7, "first_n_seconds": 3, "fps": 8, "motions": None, **common}
    assert inputs == {
        "fal-ai/animatediff-v2v": {"num_inference_steps": 25, "guidance_scale": 7, **hosted},
        "fal-ai/animatediff-v2v/turbo": {
            "num_inference_steps": 8, "guidance_scale": 2.2, **hosted,
        },
        "fal-ai/fast-animatediff/video-to-video": {
            "num_inference_steps": 25, "guidance_scale": 7.5, **fast,
        },
        "fal-ai/fast-animatediff/turbo/video-to-video": {
            "num_inference_steps": 12, "guidance_scale": 2, **fast,
        },
    }  # fmt: skip


def test_the_video_is_that_of_its_own_field(home):
    """Fields that are not known are ignored, also one with a large data URI in front."""
    about = {"video_url": "data:video/mp4;base64," + "A" * (1 << 20)}
    answer = home.post(f"{QUEUE}{V2V}", {"about": about, **home.wish()})
    assert answer.status_code == 200, answer.text
    assert home.result(answer.json()).status_code == 200


def test_two_equal_requests_get_files_of_their_own(home):
    first, second = home.submit(), home.submit()
    urls = [home.result(each).json()["video"]["url"] for each in (first, second)]
    files = [home.get(url, key=None) for url in urls]
    assert urls[0] != urls[1]
    # In ComfyUI the file contains its graph, and the graph names its request.
    if not home.is_comfyui:
        assert files[0].content == files[1].content
    assert len(set(home.outputs.iterdir())) == len(list(home.outputs.iterdir()))


def test_seeds_are_drawn_and_returned(home):
    drawn = [home.result(home.submit(seed=None)).json()["seed"] for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert all(0 <= seed < 2**53 for seed in drawn)
    huge = 15860307465884635512  # one that the hosted model has answered
    assert home.result(home.submit(seed=huge)).json()["seed"] == huge % 2**53


# --- following ---------------------------------------------------------------------------------


def test_statuses_have_all_that_the_clients_read(home, long_job):
    waiting = home.submit()
    base = f"{home.url}{QUEUE}{V2V}/requests/{waiting['request_id']}"
    urls = {
        "request_id": waiting["request_id"],
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }
    assert waiting == {
        "status": "IN_QUEUE",
        "queue_position": 1,
        "gateway_request_id": waiting["request_id"],
        **urls,
    }
    answer = home.get(waiting["status_url"])
    assert answer.status_code == 202
    assert answer.json() == {"status": "IN_QUEUE", "queue_position": 1, **urls}
    assert answer.headers["x-fal-request-id"] == waiting["request_id"]
    not_ready = home.get(waiting["response_url"])
    assert (not_ready.status_code, not_ready.json()) == (
        400,
        {"detail": "Request is still in progress"},
    )

    running = home.get(f"{long_job['status_url']}?logs=false")
    assert running.status_code == 202
    told = running.json()
    assert (told["status"], told["logs"], told["metrics"]) == ("IN_PROGRESS", None, {})
    assert home.cancel(long_job).json() == {"status": "CANCELLATION_REQUESTED"}

    done = home.wait(waiting)
    assert home.get(waiting["status_url"]).status_code == 200
    assert set(done) == {"status", "logs", "metrics", *urls}
    assert 0 < done["metrics"]["inference_time"] < 60
    for line in done["logs"]:
        assert set(line) == {"timestamp", "message", "level", "source", "labels"}
        assert line["timestamp"].endswith("+00:00")
    messages = [line["message"] for line in done["logs"]]
    assert any(message.startswith("sampling step") for message in messages), messages
    assert home.cancel(waiting).status_code == 400
    assert home.cancel(waiting).json() == {"status": "ALREADY_COMPLETED"}


def test_the_log_of_a_refined_request_says_which_pass_it_is_in(home):
    done = home.wait(home.submit(refine=1.25, num_inference_steps=1))
    messages = [line["message"] for line in home.status(done, logs=1)["logs"]]
    sampling = [message for message in messages if message.startswith("sampling")]
    assert sampling == [f"sampling step 1 of 1, pass {number} of 2" for number in (1, 2)]


def test_positions_count_what_is_ahead(home, long_job):
    waiting = [home.submit() for _ in range(3)]
    low = home.submit(headers={"x-fal-queue-priority": "low"})
    last = home.submit()
    wait_for_positions(home, [*waiting, last, low], [1, 2, 3, 4, 5])
    home.cancel(waiting[0])
    home.wait(waiting[0])
    wait_for_positions(home, [*waiting[1:], last, low], [1, 2, 3, 4])
    for each in (*waiting[1:], last, low):
        home.cancel(each)


def wait_for_positions(home, requests, expected):
    """Wait until all are in the executor's queue: earlier positions are forecasts."""
    until = time.monotonic() + 10
    positions = None
    while positions != expected:
        assert time.monotonic() < until, positions
        positions = [home.status(each).get("queue_position") for each in requests]


def events(answer):
    """Return the objects of an event stream, and the number of pings between them."""
    lines = [line for line in answer.iter_lines(decode_unicode=True) if line]
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert len(told) + lines.count(": ping") == len(lines)
    return told


def test_the_stream_sends_each_log_line_once(home):
    request = home.submit(num_inference_steps=20)
    with home.get(f"{request['status_url']}/stream?logs=1", stream=True) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        told = events(answer)
    states = [each["status"] for each in told]
    assert states[-1] == "COMPLETED" and "IN_PROGRESS" in states
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)
    streamed = [line for each in told for line in each.get("logs") or []]
    assert streamed == home.status(request, logs=1)["logs"]
    assert all(first != second for first, second in pairwise(told))


def test_the_stream_without_logs_has_none(home):
    request = home.submit()
    with home.get(f"{request['status_url']}/stream?logs=0", stream=True) as answer:
        assert all(each.get("logs") is None for each in events(answer))


def test_the_proxy_answers_in_process(home):
    target = f"https://queue.fal.run{V2V}"
    submitted = home.post("/fal/proxy", home.wish(), headers={"x-fal-target-url": target})
    assert submitted.status_code == 200, submitted.text
    request_id = submitted.json()["request_id"]
    home.wait(submitted.json())
    for path, method, status in (
        ("/status?logs=1", "GET", 200),
        ("", "GET", 200),
        ("/cancel", "PUT", 400),
    ):
        headers = {"x-fal-target-url": f"{target}/requests/{request_id}{path}"}
        answer = home.call(method, "/fal/proxy", headers=headers)
        assert answer.status_code == status
        assert answer.headers["x-fal-request-id"] == request_id
        if "logs" in path:
            assert answer.json()["logs"]


# --- whose it is -------------------------------------------------------------------------------


def test_requests_are_visible_only_to_their_key(home):
    request = home.submit()
    home.wait(request)
    for method, url in (
        ("GET", request["status_url"]),
        ("GET", f"{request['status_url']}/stream"),
        ("GET", request["response_url"]),
        ("PUT", request["cancel_url"]),
    ):
        assert home.call(method, url, key=home.other_key).status_code == 404
        assert home.call(method, url, key=None).status_code == 401
        assert (
            home.call(method, url.replace("animatediff-v2v", "fast-animatediff")).status_code == 404
        )


# --- cancelling and being late -----------------------------------------------------------------


def test_a_waiting_request_is_cancelled_at_once(home, long_job):
    waiting = home.submit()
    answer = home.cancel(waiting)
    assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    done = home.wait(waiting)
    assert (done["error"], done["error_type"]) == ("Request was cancelled", "request_cancelled")
    assert done["metrics"] == {}
    result = home.get(waiting["response_url"])
    assert (result.status_code, result.json()) == (499, CANCELLED)
    assert home.status(long_job)["status"] == "IN_PROGRESS"


def test_a_running_request_is_cancelled(home, long_job):
    assert home.cancel(long_job).json() == {"status": "CANCELLATION_REQUESTED"}
    result = home.result(long_job)
    assert (result.status_code, result.json()) == (499, CANCELLED)
    assert not list(home.outputs.glob(f"*{long_job['request_id']}*"))


def test_a_request_that_does_not_start_in_time_ends(home, long_job):
    late = home.submit(headers={"x-fal-request-timeout": "0.3"})
    result = home.result(late)
    assert (result.status_code, result.json()) == (
        504,
        {"detail": "Request timed out", "error_type": "request_timeout"},
    )
    assert result.headers["X-Fal-Request-Timeout-Type"] == "user"
    in_time = home.submit(headers={"x-fal-request-timeout": "60"})
    home.cancel(long_job)
    assert home.result(in_time).status_code == 200


def test_cancelling_never_affects_another_job(home):
    """Of 50 short jobs, every other one is cancelled at a random moment."""
    draw = random.Random(1)
    requests = [home.submit(seed=index) for index in range(50)]
    cancelled = set(range(0, 50, 2))

    def cancel(index):
        time.sleep(draw.random() * 0.2)
        home.wait(
            requests[index],
            until=draw.choice(
                [("IN_PROGRESS", "COMPLETED"), ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")]
            ),
        )
        return index, home.cancel(requests[index]).json()["status"]

    with ThreadPoolExecutor(8) as pool:
        said = dict(pool.map(cancel, sorted(cancelled)))
    for index, request in enumerate(requests):
        result = home.result(request)
        if index not in cancelled:
            assert (result.status_code, result.json().get("seed")) == (200, index), result.text
        elif said[index] == "ALREADY_COMPLETED":
            assert result.status_code == 200
        else:
            assert result.status_code in (200, 499)
    assert {"CANCELLATION_REQUESTED"} <= set(said.values())
    assert not home.leftovers()
