"""The limits on a request's video, and URLs of this server's own files in requests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from animatediff_v2v.api.intake.own_files import OwnFiles
from animatediff_v2v.api.intake.uploads import UploadStore
from animatediff_v2v.api.intake.video_checks import check_video
from animatediff_v2v.api.net.fetching import InputRefused
from animatediff_v2v.api.queue.outputs import Output
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.settings import Settings
from animatediff_v2v.api.wire.problems import RequestRefused
from animatediff_v2v.api.wire.schemas import AnimateDiffV2VInput, FastInput
from animatediff_v2v.pipeline.video import VideoWriter

from .test_store import request

WISH = {"video_url": "x", "prompt": "p"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds at 8 frames a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, width=48, height=48, frame_rate=Fraction(8)) as writer:
        writer.write(np.zeros((24, 48, 48, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("asked", "limits", "said"),
    [
        (AnimateDiffV2VInput(**WISH), {"max_frames": 12}, None),
        (AnimateDiffV2VInput(**WISH), {"max_frames": 11}, "makes 12 frames; the limit is 11: send"),
        (AnimateDiffV2VInput(**WISH, guidance_scale="0%: 7, 50%: 3"), {}, None),
        (AnimateDiffV2VInput(**WISH, select_every_nth_frame=3), {"max_frames": 8}, None),
        (AnimateDiffV2VInput(**WISH, select_every_nth_frame=1), {"max_frames": 23}, "24 frames"),
        (FastInput(**WISH, first_n_seconds=2, fps=16), {"max_frames": 32}, None),
        (FastInput(**WISH, first_n_seconds=2, fps=16), {"max_frames": 31}, "32 frames"),
        (FastInput(**WISH, first_n_seconds=100), {"max_frames": 24}, None),
        (AnimateDiffV2VInput(**WISH), {"max_seconds": 3}, None),
        (
            AnimateDiffV2VInput(**WISH),
            {"max_seconds": 2.5},
            "3.0 seconds of video; the limit is 2.5",
        ),
        (FastInput(**WISH, first_n_seconds=2.5), {"max_seconds": 2.5}, None),
        (AnimateDiffV2VInput(**WISH), {}, None),
    ],
)
def test_requests_beyond_the_limits_are_refused(clip, asked, limits, said):
    if said is None:
        check_video(clip, asked, Settings(**limits))
        return
    with pytest.raises(RequestRefused, match=said) as caught:
        check_video(clip, asked, Settings(**limits))
    (detail,) = caught.value.answer.body["detail"]
    assert (detail["loc"], detail["type"]) == (["body", "video_url"], "video_duration_too_long")


@pytest.fixture
def own(tmp_path):
    """Own files, with the URL path of a result of the key "one"."""
    store = Store(tmp_path / "api.sqlite")
    stored = store.submit(request(owner="one"), most=9, most_of_owner=9)
    made = tmp_path / "made.mp4"
    made.touch()
    token = store.outputs.add(stored.id, Output(made, "video/mp4"))
    own = OwnFiles(UploadStore(tmp_path / "uploads"), store)
    yield own, made, f"/animatediff-v2v/files/{token}/made.mp4"
    store.close()


@pytest.mark.parametrize(
    "origin",
    ["http://127.0.0.1:8187", "http://localhost:8188/api", "https://studio.example"],
)
def test_an_output_is_found_under_every_name_of_the_server(own, origin):
    own, made, path = own
    assert own.find(origin + path, owner="one") == made


def test_outputs_of_other_keys_and_removed_ones_are_refused(own):
    own, made, path = own
    with pytest.raises(InputRefused, match="an output of another key"):
        own.find(f"http://h{path}", owner="two")
    made.unlink()
    with pytest.raises(InputRefused, match="has been removed"):
        own.find(f"http://h{path}", owner="one")


@pytest.mark.parametrize(
    "url",
    [
        "data:video/mp4;base64,AAAA",
        "http://h/animatediff-v2v/files/unknown/made.mp4",
        "http://h/animatediff-v2v/files/",
        "http://h/x.mp4",
        "http://[bad",
    ],
)
def test_other_urls_are_not_uploads(own, url):
    assert own[0].find(url, owner="one") is None
