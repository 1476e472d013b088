"""The batch node in a running ComfyUI: clips, shots, a broken one, cancelling, going on."""

from __future__ import annotations

import json
import shutil

import pytest
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.plan import marked
from animatediff_v2v.pipeline.video import VideoReader

from .comfy_server import message
from .conftest import write_clip

NODE = "batch"
FOLDER = "clips"
# Inputs that the one node does not have.
OWN = ("clips", "output_folder")


def batch(**values):
    inputs = {
        "clips": FOLDER,
        "prompt": "a wave",
        "negative_prompt": "",
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "base_model": "checkpoint.safetensors",
        "motion_module": "motion_module.safetensors",
        "select_every_nth_frame": 2,
        "seed": 3,
        "output_folder": "many",
        "width": 64,
        "height": 64,
        "frame_load_cap": 4,
    }
    return {NODE: {"class_type": "ADV2V_Batch", "inputs": inputs | values}}


@pytest.fixture
def clips(server):
    """Two clips, and one that is none; afterwards they and their results are removed."""
    folder = server.folder / "input" / FOLDER
    (folder / "deep").mkdir(parents=True)
    write_clip(folder / "a.mp4")
    write_clip(folder / "deep" / "b.mp4", sound=False, phase=0.5)
    (folder / "broken.mp4").write_bytes(b"no video")
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(server.folder / "output" / "many", ignore_errors=True)


def frames_of(path):
    with VideoReader(path) as reader:
        return [frame.tobytes() for frame in reader]


def rows_of(folder):
    with Ledger(folder, read_only=True) as ledger:
        return {row.name: row for row in ledger.rows()}


def test_a_folder_is_restyled_once(server, clips):
    """Each clip comes out as the one node makes it; a broken clip is put aside."""
    out = server.folder / "output" / "many"
    with server.watched() as watcher:
        entry = server.wait(server.queue(batch(), client=watcher.client))
        shares = watcher.shares(NODE)
    assert entry["status"]["status_str"] == "success", entry["status"]
    results = server.files(entry)
    assert [path.relative_to(out).as_posix() for path in results] == ["a.mp4", "deep/b.mp4"]
    assert shares == sorted(shares) and shares[-1] == 1
    told = watcher.texts[NODE]
    assert told.startswith("2 of 3 clips are done, 1 failed\n\nbroken.mp4: ")
    one = {key: each for key, each in batch()[NODE]["inputs"].items() if key not in OWN}
    job = {"class_type": "ADV2V_VideoToVideo", "inputs": one | {"video": f"{FOLDER}/a.mp4"}}
    (alone,) = server.files(server.run({"job": job}))
    assert frames_of(alone) == frames_of(results[0])
    assert "broken.mp4" in (out / "index.html").read_text(encoding="utf-8")
    # Again: the same files, untouched, and no network is used.
    before = {path: path.stat().st_mtime_ns for path in results}
    attempts = {name: row.attempts for name, row in rows_of(out).items()}
    again = server.wait(server.queue(batch()))
    assert again["status"]["status_str"] == "success"
    assert {path: path.stat().st_mtime_ns for path in server.files(again)} == before
    now = {name: row.attempts for name, row in rows_of(out).items()}
    assert all(now[name] == attempts[name] for name in now if "broken" not in name)


def test_cancelled_it_goes_on(server, clips):
    (clips / "broken.mp4").unlink()
    out = server.folder / "output" / "many"
    slow = batch(num_inference_steps=24, shots="whole")
    with server.watched() as watcher:
        prompt_id = server.queue(slow, client=watcher.client)
        watcher.until(lambda: "clip 2 of 2: deep/b.mp4, sampling" in watcher.texts.get(NODE, ""))
        server.post("/interrupt", {})
        entry = server.wait(prompt_id)
    assert message(entry, "execution_interrupted")["node_id"] == NODE
    rows = rows_of(out)
    assert (rows["a.mp4"].state, rows["deep/b.mp4"].state) == ("done", "waiting")
    assert not list((out / "deep").iterdir())
    written = (out / "a.mp4").stat().st_mtime_ns
    assert len(server.files(server.run(slow))) == 2
    assert (out / "a.mp4").stat().st_mtime_ns == written
    assert marked(out / "deep" / "b.mp4") == rows["deep/b.mp4"].digest


def test_a_table_and_images_that_give_the_style(server, clips):
    table = clips / "table.csv"
    table.write_text(
        "input,output,prompt,steps,lora\na.mp4,red,a sun,1,style_lora.safetensors:0.5\n"
    )
    entry = server.run(batch(clips=f"{FOLDER}/table.csv"))
    (result,) = server.files(entry)
    assert result.name == "red.mp4"
    with Ledger(result.parent, read_only=True) as ledger:
        (unit,) = (each for each in ledger.units() if each.kind == "clip")
    assert (unit.request.prompt, unit.request.sampling.steps) == ("a sun", 1)
    assert [lora.model_strength for lora in unit.files.loras] == [0.5]
    assert json.loads(unit.request.metadata["prompt"])[NODE]["class_type"] == "ADV2V_Batch"


@pytest.mark.parametrize(
    ("values", "name", "said"),
    [
        ({"clips": ""}, "clips", "clips is empty; give a folder in ComfyUI's input folder"),
        ({"clips": "../output"}, "clips", "which is not in ComfyUI's input folder"),
        ({"output_folder": "../x"}, "output_folder", "give a folder in ComfyUI's output folder"),
        ({"output_folder": "."}, "output_folder", "give a folder in ComfyUI's output folder"),
        ({"base_model": "clip.mp4"}, "base_model", ""),
    ],
)
def test_wrong_inputs_are_refused_before_the_run(server, values, name, said):
    status, answer = server.post("/prompt", {"prompt": batch(**values)})
    assert status == 400
    (error,) = answer["node_errors"][NODE]["errors"]
    assert error["extra_info"]["input_name"] == name
    assert said in error["details"]


def refused(server, **values):
    entry = server.wait(server.queue(batch(**values)))
    return message(entry, "execution_error")["exception_message"].strip()


def test_what_stops_a_batch_is_told_in_a_sentence(server, clips):
    out = server.folder / "output" / "many"
    missing = refused(server, clips=f"{FOLDER}/none*.mp4")
    assert missing.startswith("No file matches ") and missing.endswith("check the pattern.")
    (clips / "table.jsonl").write_text('{"input": "a.mp4", "colour": "red"}')
    assert "line 1: the column colour means nothing to this node" in refused(
        server, clips=f"{FOLDER}/table.jsonl"
    )
    (clips / "table.jsonl").write_text('{"input": "../../../x.mp4"}')
    assert "is not in ComfyUI's input folder" in refused(server, clips=f"{FOLDER}/table.jsonl")
    assert refused(server, clips=f"{FOLDER}/broken.mp4").startswith("input: ")
    with Ledger(out):
        assert refused(server).startswith(f"Another process works on {out}: ")
    out.joinpath("a.mp4").write_bytes(b"somebody's own")
    assert "or choose another output_folder" in refused(server, clips=f"{FOLDER}/a.mp4")
    assert out.joinpath("a.mp4").read_bytes() == b"somebody's own"
    (out / "ledger.sqlite").write_bytes(b"x" * 5000)
    assert "run the graph again" in refused(server)
