"""Results of Load Video and Select Frames, and the route that predicts them."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from urllib.parse import urlencode

import av
import numpy as np
import pytest
from animatediff_v2v.pipeline.video import (
    Audio,
    FrameSelection,
    VideoReader,
    VideoWriter,
    read_audio,
)
from PIL import Image

from .comfy_server import message
from .conftest import FRAME_RATE, FRAMES, SAMPLE_RATE, SIZE
from .test_behaviour import encode_video, failure, load_video, one_node, refusal

SELECTIONS = [
    {},
    {"select_every_nth_frame": 3},
    {"start_time": 0.25, "duration": 0.5},
    {"start_time": 0.5, "select_every_nth_frame": 1, "skip_first_frames": 1, "frame_load_cap": 3},
    {"width": 64, "height": 64, "fit": "crop"},
    {"width": 64, "height": 64, "fit": "pad"},
    {"width": 64, "height": 64, "fit": "stretch"},
]
NATIVE = {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}}


def names(selection):
    return "-".join(f"{key}={value}" for key, value in selection.items()) or "defaults"


def select_frames(**values):
    node = load_video(**values)
    return {"class_type": "ADV2V_SelectFrames", "inputs": node["inputs"] | {"video": ["native", 0]}}


def trimmed(video, start, duration):
    inputs = {"video": video, "start_time": start, "duration": duration, "strict_duration": False}
    return {"class_type": "Video Slice", "inputs": inputs}


def results(server, load, **more):
    """Return frames, seconds of sound and rate of a loading node, written without loss."""
    encode = encode_video(["load", 0], audio=["load", 1], fps=["load", 2], format="mkv-ffv1")
    entry = server.run({"load": load, "encode": encode, **more})
    with av.open(str(server.files(entry)[-1])) as container:
        rate = container.streams.video[0].average_rate
        frames = np.stack([each.to_ndarray(format="rgb24") for each in container.decode(video=0)])
        container.seek(0)
        samples = sum(each.samples for each in container.decode(audio=0))
    return frames, samples / SAMPLE_RATE, rate


def expected(server, *, start_time=0, duration=0, width=0, height=0, fit="crop", **selection):
    chosen = FrameSelection(
        **{"select_every_nth_frame": 2} | selection,
        start_time_seconds=start_time,
        duration_seconds=duration,
    )
    path = server.folder / "input" / "clip.mp4"
    with VideoReader(path, selection=chosen, width=width, height=height, fit=fit) as reader:
        return np.stack(list(reader)), reader.time_span[1], reader.frame_rate


def check(given, wanted):
    assert np.array_equal(given[0], wanted[0])
    assert given[1] == pytest.approx(wanted[1], abs=0.01)
    assert given[2] == pytest.approx(wanted[2], rel=0.001)


@pytest.mark.parametrize("selection", SELECTIONS, ids=names)
def test_load_video(server, selection):
    check(results(server, load_video(**selection)), expected(server, **selection))


@pytest.mark.parametrize("selection", SELECTIONS, ids=names)
def test_select_frames_gives_the_same_of_a_native_video(server, selection):
    given = results(server, select_frames(**selection), native=NATIVE)
    check(given, expected(server, **selection))


@pytest.mark.parametrize(
    ("trim", "selection", "same_as"),
    [
        ((0.25, 0.5), {}, {"start_time": 0.25, "duration": 0.5}),
        ((0.25, 0.5), {"start_time": 0.25}, {"start_time": 0.5, "duration": 0.25}),
        ((0.25, 0.5), {"duration": 0.25}, {"start_time": 0.25, "duration": 0.25}),
        ((-0.5, 0.25), {}, {"start_time": 0.5, "duration": 0.25}),
    ],
)
def test_select_frames_stays_inside_a_trimmed_video(server, trim, selection, same_as):
    whole = {"whole": NATIVE, "native": trimmed(["whole", 0], *trim)}
    given = results(server, select_frames(**selection), **whole)
    check(given, expected(server, **same_as))


def test_a_start_beyond_a_trimmed_video_gives_a_sentence(server):
    whole = {"whole": NATIVE, "native": trimmed(["whole", 0], 0.25, 0.5)}
    load = select_frames(start_time=0.5)
    prompt = {"load": load, "encode": encode_video(["load", 0]), **whole}
    assert "the trimmed video ends after 0.5 s" in failure(server, prompt)


def test_select_frames_of_a_video_made_of_images_loses_nothing(server):
    video = {"images": ["source", 0], "audio": ["source", 1], "fps": ["source", 2]}
    native = {"class_type": "CreateVideo", "inputs": video}
    source = load_video(select_every_nth_frame=1)
    given = results(server, select_frames(), source=source, native=native)
    check(given, expected(server))


def test_select_frames_of_a_video_in_memory_leaves_no_file(server):
    """Trimming a VIDEO made of images keeps it in memory, as an mp4."""
    video = {"images": ["source", 0], "fps": ["source", 2]}
    made = {"class_type": "CreateVideo", "inputs": video}
    graph = {
        "source": load_video(select_every_nth_frame=1),
        "made": made,
        "native": trimmed(["made", 0], 0.0, 0.5),
        "load": select_frames(),
        "encode": encode_video(["load", 0], format="mkv-ffv1"),
    }
    entry = server.wait(server.queue(graph))
    if entry["status"]["status_str"] == "error":
        # ComfyUI's own node fails there in its older versions.
        assert message(entry, "execution_error")["node_type"] == "Video Slice"
        pytest.skip("this ComfyUI cannot keep a video in memory")
    (path,) = server.files(entry)[-1:]
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES / 4
    assert not list((server.folder / "temp").glob("animatediff_v2v_*"))


def test_mask_is_where_the_clip_is_transparent(server):
    alpha = np.zeros((4, 32, 48, 4), dtype=np.uint8)
    alpha[:, :, :24] = 255
    with VideoWriter(
        server.folder / "input" / "alpha.mkv", width=48, height=32, frame_rate=8, format="mkv-ffv1"
    ) as writer:
        writer.write(alpha)
    for video, size, left, right in (
        ("alpha.mkv", (48, 32), 0, 255),
        ("clip.mp4", SIZE, 0, 0),
    ):
        prompt = {
            "load": load_video(video=video),
            "picture": {"class_type": "MaskToImage", "inputs": {"mask": ["load", 5]}},
            "encode": encode_video(["picture", 0], format="mkv-ffv1"),
        }
        with av.open(str(server.files(server.run(prompt))[-1])) as container:
            frames = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
        assert len(frames) == (2 if video == "alpha.mkv" else FRAMES // 2)
        for frame in frames:
            assert frame.shape == (size[1], size[0], 3)
            assert (frame[:, : size[0] // 2] == left).all()
            assert (frame[:, size[0] // 2 :] == right).all()


@pytest.mark.parametrize(("channels", "held"), [(8, 8), (16, 2)])
def test_sound_of_many_channels_comes_through(server, channels, held):
    tones = np.tile(np.sin(np.arange(SAMPLE_RATE) * 0.1) * 0.3, (channels, 1)).astype(np.float32)
    path = server.folder / "input" / f"{channels}.mov"
    audio = Audio(tones, SAMPLE_RATE)
    options = {"width": 48, "height": 32, "frame_rate": 8, "format": "mov-prores"}
    with VideoWriter(path, **options, audio=audio) as writer:
        writer.write(np.zeros((8, 32, 48, 3), np.uint8))
    encode = encode_video(["load", 0], audio=["load", 1], fps=["load", 2], format="mkv-ffv1")
    entry = server.run({"load": load_video(video=path.name), "encode": encode})
    heard = read_audio(server.files(entry)[-1], start_seconds=0, duration_seconds=1)
    assert heard.waveform.shape == (held, SAMPLE_RATE)
    assert (np.abs(heard.waveform).max(axis=1) > 0.2).all()


def test_wrong_values_are_refused_before_running(server):
    def refused(**values):
        return refusal(server, {"load": load_video(**values), "encode": encode_video(["load", 0])})

    assert "No frame of" in refused(start_time=5.0)["start_time"]
    told = refused(start_time=-1.0)["start_time"]
    assert told.endswith("start_time is -1; it must be from 0 to 1000000, 0 is the beginning.")
    assert "duration" in refused(duration=-1.0)
    assert "not in" in refused(fit="bend")["fit"]


@pytest.mark.parametrize(
    ("number", "name", "sentence"),
    [
        (-1.0, "duration", "duration is -1; it must be from 0 to 1000000"),
        (200.0, "fps", "fps is 200; gif takes more than 0 and up to 50 frames per second."),
        (0, "num_inference_steps", "num_inference_steps is 0; it must be from 1 to 1000."),
        (-1.0, "one_duration", "duration is -1; it must be from 0 to 1000000"),
    ],
)
def test_wrong_linked_values_are_told_by_the_names_of_inputs(server, number, name, sentence):
    """They are not known before the graph runs."""
    kind = "PrimitiveInt" if isinstance(number, int) else "PrimitiveFloat"
    linked = {"number": {"class_type": kind, "inputs": {"value": number}}}
    encode = encode_video(["load", 0])
    graphs = {
        "duration": {"load": load_video(duration=["number", 0]), "encode": encode},
        "fps": {
            "load": load_video(),
            "encode": encode_video(["load", 0], fps=["number", 0], format="gif"),
        },
        "num_inference_steps": one_node(num_inference_steps=["number", 0]),
        "one_duration": one_node(duration=["number", 0]),
    }
    assert failure(server, graphs[name] | linked).strip().startswith(sentence)


def test_graphs_without_the_later_inputs_still_run(server):
    assert not {"start_time", "duration", "fit"} & set(load_video()["inputs"])
    server.run({"load": load_video(), "encode": encode_video(["load", 0])})


def ask(server, **query):
    """Return status and JSON of the selection route."""
    address = f"http://127.0.0.1:{server.port}/api/animatediff_v2v/selection?{urlencode(query)}"
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("selection", SELECTIONS, ids=names)
def test_selection_is_told_before_running(server, selection):
    query = {"video": "clip.mp4", "select_every_nth_frame": 2} | selection
    status, told = ask(server, **query)
    frames, seconds, rate = expected(server, **selection)
    assert status == 200
    assert told["frame_count"] == len(frames)
    assert told["frame_rate"] == float(rate)
    assert told["duration_seconds"] == pytest.approx(seconds)
    assert (told["height"], told["width"]) == frames.shape[1:3]
    assert len(told["thumbnails"]) == min(6, len(frames))
    assert told["thumbnails"][0]["seconds"] == pytest.approx(
        selection.get("start_time", 0) + selection.get("skip_first_frames", 0) / FRAME_RATE
    )
    for each in told["thumbnails"]:
        kind, data = each["src"].split(",")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert kind == "data:image/jpeg;base64" and picture.height == 160


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gone.mp4",
        "../../../../../../../../etc/passwd",
        "..\\..\\windows\\win.ini",
        "/etc/passwd",
        "C:\\windows\\win.ini",
        "../models/checkpoints/checkpoint.safetensors",
        "../secret.mp4",
        "../input/../secret.mp4",
        "link.mp4",
        "secret.mp4 [output]",
        "secret.mp4 [temp]",
        "../secret.mp4 [input]",
        "clip.mp4\0.txt",
        "http://127.0.0.1/clip.mp4",
        "concat:clip.mp4",
        "a" * 5000,
    ],
)
def test_only_the_input_folder_is_told_of(server, name):
    """A clip lies outside of it, and in ComfyUI's other folders; none is told from no clip."""
    clip = (server.folder / "input" / "clip.mp4").read_bytes()
    for folder in (".", "output", "temp"):
        (server.folder / folder / "secret.mp4").write_bytes(clip)
    link = server.folder / "input" / "link.mp4"
    if not link.is_symlink():
        link.symlink_to(server.folder / "secret.mp4")
    status, told = ask(server, video=name)
    assert status == 400
    sentence = (
        f"There is no video {name!r} in ComfyUI's input folder: upload one, or choose another."
        if name
        else "No video is chosen: choose a file to upload, or press Get the miniature in a "
        "template."
    )
    assert told == {"error": sentence}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"select_every_nth_frame": "two"}, "select_every_nth_frame is 'two'; give 0 to 1000000."),
        ({"select_every_nth_frame": 0}, "1 keeps every frame"),
        ({"force_rate": "nan"}, "force_rate is 'nan'"),
        ({"start_time": "1e300"}, "start_time is '1e300'"),
        ({"start_time": 99}, "No frame of clip.mp4 is selected"),
        ({"start_time": 99}, ", start_time is 99 and skip_first_frames is 0; lower them."),
        ({"skip_first_frames": "9" * 5000}, "skip_first_frames is '9999"),
        ({"width": 9000}, "width is 9000; it must be from 0 to 8192"),
        ({"fit": "bend"}, "fit is 'bend'"),
        ({"video": "words.mp4"}, "cannot be read as a video"),
    ],
)
def test_wrong_values_are_told_in_a_sentence(server, query, sentence):
    (server.folder / "input" / "words.mp4").write_text("These are words." * 100)
    before = len(server.log())
    status, told = ask(server, **{"video": "clip.mp4"} | query)
    assert status == 400
    assert sentence in told["error"]
    assert str(server.folder) not in told["error"]
    assert "Traceback" not in server.log()[before:]


def test_script_is_served_once(server):
    scripts = [each for each in server.get("/extensions") if each.endswith("selection_strip.js")]
    assert scripts == ["/extensions/animatediff-v2v/js/selection_strip.js"]
    assert b"registerExtension" in server.get(scripts[0])
