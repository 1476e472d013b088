"""The files that requests made, as a browser's player requests them."""

from __future__ import annotations

import sys

import av
import pytest

from .homes import QUEUE, V2V
from .test_uploads import REST


@pytest.fixture(scope="module")
def made(home):
    video = home.result(home.submit()).json()["video"]
    return video["url"], home.get(video["url"], key=None).content


def test_no_key_is_needed_and_the_type_is_told(home, made):
    url, content = made
    answer = home.get(url, key=None)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = home.call("HEAD", url, key=None)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        ("0-99", 0, 99),
        ("100-", 100, None),
        ("-10", -10, None),
        ("5-10000000", 5, None),
    ],
)
def test_ranges(home, made, asked, first, last):
    url, content = made
    answer = home.get(url, key=None, headers={"Range": f"bytes={asked}"})
    part = content[first:] if last is None else content[first : last + 1]
    assert (answer.status_code, answer.content) == (206, part)
    start = first % len(content)
    assert (
        answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    )


def test_a_range_beyond_the_end(home, made):
    url, content = made
    answer = home.get(url, key=None, headers={"Range": f"bytes={len(content)}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_the_stream_sends_only_changes(home, made):
    url, _ = made
    etag = home.get(url, key=None).headers["ETag"]
    assert home.get(url, key=None, headers={"If-None-Match": etag}).status_code == 304


def test_a_deleted_file_is_answered_with_404(home):
    video = home.result(home.submit()).json()["video"]
    next(home.outputs.glob(f"{video['file_name']}")).unlink()
    answer = home.get(video["url"], key=None)
    assert (answer.status_code, answer.json()["error_type"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["../api.sqlite", "%2e%2e/api.json", "..%2f..%2fapi.json"])
def test_no_other_file_is_served(home, made, name):
    url, content = made
    answer = home.get(url.rpartition("/")[0] + "/" + name, key=None)
    # The token alone counts: the name behind it is decoration.
    assert answer.status_code in (401, 404) or answer.content == content


def test_an_output_can_be_the_next_input(home):
    """As at fal, where it can be fetched; here it is read from disk, with its owner's rights."""
    first = home.result(home.submit())
    url = first.json()["video"]["url"]
    again = home.result(home.submit(video_url=url, select_every_nth_frame=1))
    assert again.status_code == 200, again.text
    assert again.headers["X-Animatediff-Checkpoint"] == "cardosAnime_v20.safetensors"
    assert again.headers["X-Animatediff-Motion-Module"] == "mm_sd_v15_v2.safetensors"
    assert home.leftovers() == []
    path = f"{QUEUE}{V2V}"
    refused = home.post(path, home.wish(video_url=url), key=home.other_key)
    assert refused.status_code == 422
    (detail,) = refused.json()["detail"]
    assert (detail["loc"], detail["type"]) == (["body", "video_url"], "file_download_error")
    assert "It is an output of another key" in detail["msg"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_an_output_belongs_to_its_key(home):
    video = home.result(home.submit()).json()["video"]
    (path,) = home.outputs.glob(video["file_name"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_logs_name_the_models(home):
    lines = home.wait(home.submit(endpoint=f"{V2V}/turbo", num_inference_steps=4))["logs"]
    said = [(each["level"], each["message"]) for each in lines]
    models = "checkpoint cardosAnime_v20.safetensors, motion module mm_sd_v15_v2.safetensors"
    assert said[0] == ("INFO", models)
    assert said[1][0] == "WARN"
    assert said[1][1].startswith("turbo needs AnimateLCM or AnimateDiff-Lightning")


def test_a_lora_from_a_request(home, models, tmp_path):
    """It acts like the installed one, is not listed, and no video contains its path."""
    begun = home.post(f"{REST}/upload/initiate", {"file_name": "my.safetensors"}).json()
    content = (models / "loras" / "style_lora.safetensors").read_bytes()
    assert home.call("PUT", begun["upload_url"], key=None, data=content).status_code == 200
    pictures = []
    for loras in ([], [{"path": "style_lora"}], [{"path": begun["file_url"]}]):
        result = home.result(home.submit(loras=loras))
        assert result.status_code == 200, result.text
        video = home.get(result.json()["video"]["url"], key=None).content
        assert str(home.data).encode() not in video
        path = tmp_path / "made.mp4"
        path.write_bytes(video)
        with av.open(path) as file:
            pictures.append([frame.to_ndarray().tobytes() for frame in file.decode(video=0)])
    plain, installed, brought_in = pictures
    assert brought_in == installed != plain
    (kept,) = (home.data / "loras").glob("*.safetensors")
    assert kept.read_bytes() == content
    if home.is_comfyui:
        lists = home.get("/object_info", key=None).text
        assert "style_lora.safetensors" in lists and kept.name not in lists
