"""Situations of ComfyUI's queue that are rare in a real one: lost flags, lost events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from animatediff_v2v.api.intake.model_choice import sparsectrl_for
from animatediff_v2v.api.queue import rendering
from animatediff_v2v.api.queue.executor import ApiJob, WorkerOptions
from animatediff_v2v.api.wire.problems import RequestRefused
from animatediff_v2v.nodes.hosted_api import executor as comfy_executor
from animatediff_v2v.nodes.hosted_api.executor import ComfyExecutor
from animatediff_v2v.nodes.hosted_api.graph import OUTPUT_NODE, graph
from animatediff_v2v.nodes.hosted_api.keyframe_pictures import crop_keyframes
from animatediff_v2v.nodes.queue_numbers import number_in_front_of
from animatediff_v2v.pipeline import AnimateDiffV2VError, Cancelled, ContextOptions
from animatediff_v2v.pipeline.curve import Curve
from PIL import Image

TIMINGS = {"total": 1.0}
SHOWN = {"filename": "a.mp4", "subfolder": "s", "type": "output"}


def job(request_id="1", **values):
    return ApiJob(
        **{
            "request_id": request_id,
            "video": Path("in/clip.mp4"),
            "prompt": "p",
            "negative_prompt": "n",
            "steps": 1,
            "guidance_scale": 1.0,
            "seed": 0,
            "sampler": "euler",
            "scheduler": "normal",
            "denoise": 0.7,
            "checkpoint": "c",
            "motion_module": "m",
        }
        | values
    )


class FakeQueue:
    """A fake of ComfyUI's queue: the test advances prompts and sends events."""

    def __init__(self, folder):
        self.folder, self.folders = folder, [folder]
        self.runs, self.waits, self.interrupted, self.remembered = [], [], [], {}
        self.errors = None
        self.prompts = {}

    def input_folder(self, name):
        return self.folder / name

    def output_folder(self, name):
        return self.folder / "out" / name

    def shown_file(self, shown):
        return Path(shown["type"]) / shown["subfolder"] / shown["filename"]

    async def submit(self, prompt, *, prompt_id, client_id, is_low_priority, before):
        await asyncio.sleep(0)  # ComfyUI checks the prompt, and others come meanwhile
        self.prompts[prompt_id] = prompt
        if self.errors is None:
            place = self.waits.index(before) if before else len(self.waits)
            self.waits.insert(place, prompt_id)
        return self.errors

    def running(self):
        return self.runs

    def waiting(self):
        return self.waits

    def remove(self, prompt_id):
        there = prompt_id in self.waits
        if there:
            self.waits.remove(prompt_id)
        return there

    def interrupt(self, prompt_id):
        if prompt_id in self.runs:
            self.interrupted.append(prompt_id)
        return prompt_id in self.runs

    def history(self, prompt_id):
        return self.remembered.get(prompt_id)

    def listen(self, client_id, hear):
        self.hear = hear

    def stop_listening(self, client_id):
        self.hear = None

    def begin(self, prompt_id):
        self.waits.remove(prompt_id)
        self.runs = [prompt_id]

    def tell(self, event, prompt_id, **data):
        self.hear(event, {"prompt_id": prompt_id, **data})


class Notes:
    def __init__(self):
        self.told = []

    async def started(self):
        self.told.append("started")

    async def on_message(self, message):
        self.told.append(message)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy_executor, "SECONDS_BETWEEN_CHECKS", 0.01)
    return FakeQueue(tmp_path)


def play(queue, story, **values):
    """Run a job during a scenario; return its result and the recorded messages."""

    async def play_it():
        executor, notes = ComfyExecutor(queue), Notes()
        await executor.start()
        running = asyncio.create_task(executor.run(job(**values), notes))
        await asyncio.sleep(0)
        telling = asyncio.create_task(story(executor))
        try:
            return await asyncio.wait_for(running, 5), notes.told
        finally:
            await telling
            await executor.stop()

    return asyncio.run(play_it())


def succeed(queue, prompt_id="1"):
    output = {"images": [SHOWN], "animated": [True], "timings": [TIMINGS]}
    queue.tell("executed", prompt_id, node=OUTPUT_NODE, output=output)
    queue.tell("execution_success", prompt_id)


@pytest.mark.parametrize(
    ("ready", "queued"),
    [
        (["2", "1", "3"], ["tab", "1", "2", "3"]),
        (["3", "2", "1"], ["tab", "1", "2", "3"]),
        (["low 1", "2", "low 3", "1"], ["tab", "low 1", "1", "2", "low 3"]),
        (["low 3", "low 1", "2"], ["tab", "low 1", "low 3", "2"]),
    ],
    ids=" ".join,
)
def test_requests_keep_their_order_whichever_is_prepared_first(queue, ready, queued):
    """The fake queue itself puts low priority at the end, like all others."""

    async def play_it():
        executor, tasks = ComfyExecutor(queue), []
        queue.waits.append("tab")
        for name in ready:
            is_low, sequence = name.startswith("low"), int(name[-1])
            each = job(name, sequence=sequence, is_low_priority=is_low)
            tasks.append(asyncio.create_task(executor.run(each, Notes())))
        while len(queue.waits) <= len(ready):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(play_it(), 5))
    assert queue.waits == queued


WAITING = [(3, "a"), (3.5, "b"), (4, "c"), (9, "d"), (10**9 + 1, "low")]


@pytest.mark.parametrize(
    ("prompt_id", "number"),
    [
        ("a", 2.5),
        ("b", 3.25),
        ("c", 3.75),
        ("d", 8.5),
        ("low", 10**9 + 0.5),
        ("gone", None),
        (None, None),
    ],
)
def test_a_number_lies_in_front_of_a_prompt_and_behind_the_one_before(prompt_id, number):
    assert number_in_front_of(prompt_id, WAITING) == number
    assert number_in_front_of(prompt_id, []) is None


def test_a_successful_job(queue):
    async def story(_executor):
        queue.begin("1")
        queue.tell("execution_start", "1")
        queue.hear("status", {"status": {}})
        queue.hear("said", {"message": "sampling step 1 of 1"})
        succeed(queue)

    made, told = play(queue, story)
    assert (made.path, made.timings) == (Path("output/s/a.mp4"), TIMINGS)
    assert told == ["started", "sampling step 1 of 1"]
    assert queue.prompts["1"][OUTPUT_NODE]["inputs"]["video"] == "animatediff_v2v_api/clip.mp4"


def test_an_interrupt_that_comes_too_early_is_repeated(queue):
    """Each prompt clears the flag when it starts: a cancel just before that would be lost."""

    async def story(executor):
        queue.begin("1")
        await executor.cancel("1")
        assert queue.interrupted == ["1"]
        queue.tell("execution_start", "1")
        assert queue.interrupted == ["1", "1"]
        queue.tell("execution_interrupted", "1")

    with pytest.raises(Cancelled):
        play(queue, story)


def test_cancelling_never_stops_the_next_job(queue):
    async def story(executor):
        queue.begin("1")
        queue.tell("execution_start", "1")
        succeed(queue)
        queue.runs = ["neighbour"]
        await executor.cancel("1")
        queue.tell("execution_start", "neighbour")

    play(queue, story)
    assert queue.interrupted == []


def test_cancelling_while_the_prompt_is_being_queued(queue):
    async def scene():
        executor = ComfyExecutor(queue)
        arrived, submit = asyncio.Event(), queue.submit

        async def slow_submit(*arguments, **options):
            await arrived.wait()
            return await submit(*arguments, **options)

        queue.submit = slow_submit
        await executor.start()
        running = asyncio.create_task(executor.run(job(), Notes()))
        await asyncio.sleep(0)
        await executor.cancel("1")
        arrived.set()
        with pytest.raises(Cancelled):
            await asyncio.wait_for(running, 5)
        await executor.stop()

    asyncio.run(scene())
    assert queue.waits == []


def test_a_prompt_removed_by_a_user_is_cancelled(queue):
    async def story(_executor):
        queue.waits.clear()

    with pytest.raises(Cancelled):
        play(queue, story)


def test_a_missed_end_is_looked_up_in_the_history(queue):
    """Another client may replace the listener by using the same id."""
    output = {"images": [SHOWN], "timings": [TIMINGS]}
    messages = [["execution_start", {"prompt_id": "1"}], ["execution_success", {"prompt_id": "1"}]]

    async def story(_executor):
        queue.remembered["1"] = {
            "outputs": {OUTPUT_NODE: output},
            "status": {"status_str": "success", "messages": messages},
        }
        queue.waits.clear()

    made, told = play(queue, story)
    assert made.timings == TIMINGS
    assert told == ["started"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("/packs/animatediff-v2v.pipeline.errors.AnimateDiffV2VError", AnimateDiffV2VError),
        ("torch.OutOfMemoryError", RuntimeError),
    ],
)
def test_failures(queue, kind, expected):
    async def story(_executor):
        sentence = f"{queue.folder}/models/x.safetensors is none.\n"
        queue.tell(
            "execution_error", "1", exception_type=kind, exception_message=sentence, node_id="1"
        )

    with pytest.raises(expected) as caught:
        play(queue, story)
    if expected is AnimateDiffV2VError:
        assert str(caught.value) == "models/x.safetensors is none."


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("custom_validation_failed", AnimateDiffV2VError), ("value_not_in_list", RuntimeError)],
)
def test_prompts_that_comfyui_refuses(queue, kind, expected):
    error = {"type": kind, "message": "Custom validation failed", "details": "no frame is kept"}
    queue.errors = {"error": {"type": "x"}, "node_errors": {OUTPUT_NODE: {"errors": [error]}}}

    async def story(_executor):
        """Nothing more happens."""

    with pytest.raises(expected):
        play(queue, story)


def test_loras_from_requests_are_not_listed_in_comfyui():
    """They are the value of the socket, in their order, without the folder that is in the video."""
    loras = (("style.safetensors", 0.5), (str(Path("0f.safetensors").absolute()), 1.0))
    nodes = graph(job(loras=loras), video="a.mp4")
    assert set(nodes) == {OUTPUT_NODE}
    assert nodes[OUTPUT_NODE]["inputs"]["lora_stack"] == {
        "__value__": [["style.safetensors", 0.5, 0.5], ["0f.safetensors", 1.0, 1.0]]
    }


def test_curves_over_the_steps_are_nodes(tmp_path):
    over = Curve("0%: 9, 50%: 4")
    nodes = graph(job(guidance_scale=over), video="a.mp4")
    assert nodes["curve_guidance"]["inputs"]["curve"] == "0%: 9, 50%: 4"
    assert ApiJob.from_json(job(guidance_scale=over).as_json()).guidance_scale == over


def test_curves_are_nodes_or_text(tmp_path):
    """In a stack, whose value is JSON, a curve is its text."""
    rising, falling = Curve("0: 0, 8: 1 ease"), Curve("0: 1, -1: 0")
    loras = (("a.safetensors", rising), ("b.safetensors", 0.5))
    asked = job(loras=loras, guidance_scale=falling, denoise=rising)
    nodes = graph(asked, video="a.mp4")
    assert nodes["curve_denoise"] == {
        "class_type": "ADV2V_StrengthCurve",
        "inputs": {"curve": "0: 0, 8: 1 ease", "start": 0.0, "end": 1.0},
    }
    inputs = nodes[OUTPUT_NODE]["inputs"]
    assert inputs["denoise"] == ["curve_denoise", 0]
    assert inputs["guidance_scale"] == ["curve_guidance", 0]
    stack = nodes["loras0"]["inputs"]
    assert (stack["model_strength_1"], stack["clip_strength_1"]) == (["curve_lora1", 0], 0.0)
    assert (stack["model_strength_2"], stack["clip_strength_2"]) == (0.5, 0.5)
    downloaded = str(Path("0f.safetensors").absolute())
    inputs = graph(job(loras=((downloaded, rising),)), video="a.mp4")[OUTPUT_NODE]["inputs"]
    assert inputs["lora_stack"] == {"__value__": [["0f.safetensors", "0: 0, 8: 1 ease", 0.0]]}
    renderer = rendering.Renderer(WorkerOptions(models=tmp_path, device="cpu"))
    read = ApiJob.from_json(json.loads(json.dumps(asked.as_json())))
    assert read == asked
    sampling = renderer._request(read, Path("b.mp4")).sampling
    assert (sampling.denoise, sampling.guidance.scale) == (rising, falling)
    files = renderer._files(read).loras
    assert [(each.model_strength, each.clip_strength) for each in files] == [
        (rising, 0.0),
        (0.5, 0.5),
    ]


def test_the_memory_of_windows_reaches_both_executors():
    asked = job(context_memory="ContextRef", context_memory_end=0.25)
    nodes = graph(asked, video="a.mp4")
    assert nodes[OUTPUT_NODE]["inputs"]["context_options"] == ["windows", 0]
    inputs = nodes["windows"]["inputs"]
    assert ContextOptions(**inputs) == ContextOptions(memory="ContextRef", memory_end=0.25)
    assert rendering._request(asked, Path("b.mp4")).sampling.context == ContextOptions(**inputs)
    assert "windows" not in graph(job(), video="a.mp4")


@pytest.mark.parametrize("wanted", [False, True])
def test_a_request_for_all_frames_reaches_the_node(wanted):
    nodes = graph(job(restore_frames=wanted), video="a.mp4")
    assert nodes[OUTPUT_NODE]["inputs"]["restore_frames"] is wanted


def test_what_a_second_pass_enlarges_reaches_the_node():
    nodes = graph(job(refine=1.5, refine_upscale="latent"), video="a.mp4")
    assert nodes[OUTPUT_NODE]["inputs"]["refine_upscale"] == "latent"


def test_keyframes_reach_both_executors(tmp_path):
    pictures = tuple((Path(f"in/{name}.png"), frame) for name, frame in (("a", 0), ("b", 8)))
    given = {"sparsectrl": "s.ckpt", "keyframe_strength": 0.5}
    one, two = (job(keyframes=pictures[:count], **given) for count in (1, 2))
    nodes = graph(one, video="api/a.mp4")
    assert nodes["picture0"]["inputs"] == {"image": "api/a.png"}
    assert nodes["keyframes"]["inputs"]["images"] == ["picture0", 0]
    assert nodes[OUTPUT_NODE]["inputs"]["control"] == ["keyframes", 0]
    nodes = graph(two, video="api/a.mp4")
    images = {"image1": ["picture0", 0], "image2": ["picture1", 0]}
    assert nodes["pictures1"] == {"class_type": "ImageBatch", "inputs": images}
    expected = {"sparsectrl": "s.ckpt", "images": ["pictures1", 0], "frames": "0, 8"}
    assert nodes["keyframes"]["inputs"] == expected | {"strength": 0.5, "start": 0.0, "end": 1.0}
    assert "control" not in graph(job(), video="api/a.mp4")[OUTPUT_NODE]["inputs"]
    renderer = rendering.Renderer(WorkerOptions(models=tmp_path, device="cpu"))
    (keyframes,) = renderer._request(two, Path("b.mp4")).keyframes
    assert keyframes.network == tmp_path / "controlnet" / "s.ckpt"
    assert (keyframes.pictures, keyframes.frames) == (tuple(p for p, _ in pictures), (0, 8))
    assert keyframes.strength == 0.5 and renderer._request(job(), Path("b.mp4")).keyframes == ()


def test_keyframes_are_cropped_to_the_shape_of_the_video(tmp_path):
    def saved(name, width, height):
        path, pixels = tmp_path / name, np.zeros((height, width, 3), np.uint8)
        pixels[:, width // 4 : width - width // 4] = 200
        Image.fromarray(pixels).save(path)
        return path

    video, upload = saved("v.gif", 16, 32), saved("upload.png", 64, 64)
    wide, right = tmp_path / "wide.png", saved("right.png", 32, 64)
    wide.hardlink_to(upload)
    before = right.read_bytes()
    crop_keyframes(job(video=video, keyframes=((wide, 0), (right, 4))))
    cropped = np.asarray(Image.open(wide))
    assert cropped.shape == (64, 32, 3) and (cropped == 200).all(), "the middle"
    assert Image.open(upload).size == (64, 64) and right.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["v3_sd15_sparsectrl_scribble.ckpt", "v3_sd15_sparsectrl_rgb.ckpt", "canny.pth"],
         "v3_sd15_sparsectrl_rgb.ckpt"),
        (["miniature_sparsectrl.safetensors"], "miniature_sparsectrl.safetensors"),
        (["control_v11p_sd15_canny.pth"], None),
    ],
)  # fmt: skip
def test_the_model_of_keyframes_is_found_by_its_name(names, chosen):
    library = SimpleNamespace(names=lambda _folder: names)
    if chosen is not None:
        assert sparsectrl_for(library) == chosen
        return
    with pytest.raises(RequestRefused) as caught:
        sparsectrl_for(library)
    (detail,) = json.loads(json.dumps(caught.value.answer.body))["detail"]
    assert detail["loc"] == ["body", "keyframes"] and "v3_sd15_sparsectrl_rgb" in detail["msg"]


def test_many_loras_are_chained():
    loras = tuple((f"l{index}", index / 10) for index in range(12))
    motions = (("zoom", 1.0), ("pan", 0.5))
    nodes = graph(job(loras=loras, motion_loras=motions), video="a.mp4")
    assert nodes["loras0"]["inputs"]["lora_10"] == "l9"
    assert nodes["loras10"]["inputs"] == {
        "lora_1": "l10", "model_strength_1": 1.0, "clip_strength_1": 1.0,
        "lora_2": "l11", "model_strength_2": 1.1, "clip_strength_2": 1.1,
        "lora_stack": ["loras0", 0],
    }  # fmt: skip
    assert nodes["motion1"]["inputs"]["motion_lora_stack"] == ["motion0", 0]
    inputs = nodes[OUTPUT_NODE]["inputs"]
    assert inputs["lora_stack"] == ["loras10", 0]
    assert inputs["motion_lora_stack"] == ["motion1", 0]


@pytest.mark.parametrize(("preset", "interval"), [("exact", 1), ("fast", 2)])
def test_a_preset_for_speed_reaches_both_executors(preset, interval):
    asked = job(preset=preset)
    (node,) = graph(asked, video="a.mp4").values()
    assert node["inputs"].get("preset", "exact") == preset
    assert rendering._request(asked, Path("b.mp4")).sampling.speed.deep_cache_interval == interval
