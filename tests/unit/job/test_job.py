"""The Python call: progress, cancelling, and no network access."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    Cancelled,
    ContextOptions,
    ControlFile,
    Curve,
    FrameSelection,
    Guidance,
    Guides,
    LoraEntry,
    ModelFiles,
    Request,
    SamplingSettings,
    load_files,
    video_to_video,
)
from animatediff_v2v.pipeline.models import MotionMasks
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.sampling import Control, StyleImages, sample
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.second_pass import SecondPass
from animatediff_v2v.pipeline.video import ControlFrameOptions, VideoReader, VideoWriter


@pytest.fixture(scope="module")
def files(weights):
    return ModelFiles(
        checkpoint=weights / "checkpoint.safetensors",
        motion_module=weights / "motion_module.safetensors",
        device="cpu",
    )


@pytest.fixture(scope="module")
def models(files):
    return load_files(files)


@pytest.fixture
def request_for(clip, tmp_path):
    def build(name="out.mp4", **settings):
        return Request(
            input=clip,
            output=tmp_path / name,
            prompt="a red box",
            sampling=SamplingSettings(**{"seed": 3, "steps": 2} | settings),
            selection=FrameSelection(select_every_nth_frame=2),
        )

    return build


def test_progress_rises_through_all_phases_to_one(request_for, models):
    seen, phases = [], []
    result = video_to_video(
        request_for(context=ContextOptions(length=6, overlap=2)),
        models,
        progress=seen.append,
        before_phase=phases.append,
    )
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert phases == ["encode", "sample", "decode_latents"]
    previews = [step.preview for step in seen if step.preview is not None]
    assert [tuple(preview.shape) for preview in previews] == [(10, 4, 8, 8)] * 2
    assert result.frame_count == 10


@pytest.mark.parametrize("phase", ["encode", "sample", "decode_latents"])
def test_cancelling_stops_in_every_phase_and_leaves_the_models_usable(
    phase, request_for, models, tmp_path
):
    reference = request_for("reference.mp4")
    video_to_video(reference, models)
    reached = []

    def watch(step):
        reached.append(step.phase)

    with pytest.raises(Cancelled):
        video_to_video(
            request_for("cancelled.mp4"), models, progress=watch,
            is_cancelled=lambda: phase in reached,
        )  # fmt: skip
    assert reached[-1] == phase
    again = request_for("again.mp4")
    video_to_video(again, models)
    assert again.output.read_bytes() == reference.output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.mp4", "reference.mp4"]


def test_an_error_in_a_callback_passes_through_and_leaves_nothing(request_for, models, tmp_path):
    def fail(_step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video_to_video(request_for(), models, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_written_while_the_next_are_decoded(request_for, models, monkeypatch):
    decode, write = models.codec.vae.decode, VideoWriter.write
    calls, next_one = [], threading.Event()

    def tell(latents):
        calls.append("decode")
        if len(calls) > 1:
            next_one.set()
        return decode(latents)

    def wait(writer, frames):
        assert next_one.wait(timeout=60), "the next frame is not decoded before this one is written"
        write(writer, frames)

    monkeypatch.setattr(models.codec.vae, "decode", tell)
    monkeypatch.setattr(VideoWriter, "write", wait)
    assert video_to_video(request_for(), models).frame_count == len(calls) == 10


@pytest.mark.parametrize("frame", [1, 10])
def test_an_error_of_the_writer_ends_the_job_and_leaves_nothing(
    frame, request_for, models, monkeypatch, tmp_path
):
    write = VideoWriter.write

    def fail(writer, frames):
        if writer.frame_count == frame - 1:
            raise AnimateDiffV2VError("The disk is full.")
        write(writer, frames)

    monkeypatch.setattr(VideoWriter, "write", fail)
    with pytest.raises(AnimateDiffV2VError, match="disk is full"):
        video_to_video(request_for(), models)
    assert list(tmp_path.iterdir()) == []


def test_loading_and_running_open_no_connection(files, request_for, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("something tried to open a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert video_to_video(request_for(), files).file_size > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip_skip": 0}, "clip_skip is 0; it must be from 1 to 12, 1 is the last layer"),
        ({"motion_scale": -1}, "motion_scale is -1; it must be from 0 to 10"),
        ({"dtype": "int4"}, "dtype is 'int4'; it can be auto, float32"),
    ],
)
def test_refused_model_options(options, sentence, weights):
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        ModelFiles(checkpoint=weights / "checkpoint.safetensors", **options)


@pytest.mark.parametrize(("nth", "is_few"), [(2, False), (4, True)])
def test_few_frames_are_told_in_the_log_and_as_progress(nth, is_few, request_for, models, caplog):
    seen = []
    selection = FrameSelection(select_every_nth_frame=nth)
    request = replace(request_for(steps=1), selection=selection)
    video_to_video(request, models, progress=seen.append)
    sentence = "5 frames are too few for a motion module"
    assert any(sentence in record.getMessage() for record in caplog.records) == is_few
    assert any(sentence in step.message for step in seen) == is_few


def test_loaded_guides_do_what_the_requests_files_do(request_for, models, weights, clip):
    path = weights / "controlnet.safetensors"
    with VideoReader(clip, selection=FrameSelection(select_every_nth_frame=2)) as reader:
        edges = [ControlFrameOptions(preprocessor="canny").of(frame) for frame in reader]
    control = Control(
        network=load_control_network(path, device=models.unet.device, dtype=models.unet.dtype),
        frames=torch.from_numpy(np.stack(edges)),
    )
    from_file = replace(request_for("file.mp4"), controls=(ControlFile(network=path),))
    results = [
        video_to_video(request_for("none.mp4"), models),
        video_to_video(from_file, models),
        video_to_video(request_for("loaded.mp4"), models, guides=Guides(controls=(control,))),
    ]
    none, expected, given = (result.path.read_bytes() for result in results)
    assert given == expected != none


def test_loaded_guides_are_refused_with_a_limit_of_memory(request_for, files):
    limited = replace(files, max_memory_gb=1.0)
    guides = Guides(styles=(StyleImages.__new__(StyleImages),))
    with pytest.raises(AnimateDiffV2VError, match="leave max_memory_gb out"):
        video_to_video(request_for(), limited, guides=guides)


def test_a_curve_beyond_the_video_is_refused_before_networks_are_loaded(request_for, weights):
    beyond = Curve("0: 0, 99: 1")
    files = ModelFiles(checkpoint=weights / "nothing.safetensors", motion_scale=beyond)
    for name, request in (
        ("motion_scale", request_for()),
        ("denoise", request_for(denoise=beyond)),
        ("guidance_scale", request_for(guidance=Guidance(scale=Curve("0: 1, 99: 7")))),
    ):
        says = rf"^{name}: In the curve .* frame 99 is beyond the video, whose 10 frames"
        with pytest.raises(AnimateDiffV2VError, match=says):
            video_to_video(request, files)


def test_curves_over_the_steps_fit_any_video(request_for, files, weights):
    over = Curve("0%: 1, 50%: 0.5")
    lora = LoraEntry(weights / "style_lora.safetensors", over, 0.0)
    files = replace(files, loras=(lora,), motion_scale=over, motion_effect=over)
    video_to_video(request_for(guidance=Guidance(scale=Curve("0%: 3, 90%: 1"))), files)


def test_a_curve_of_loaded_networks_beyond_the_video_is_refused_before_encoding(request_for, files):
    models = load_files(replace(files, motion_scale=Curve("0: 0, 99: 1")))
    done = []
    with pytest.raises(AnimateDiffV2VError, match=r"^motion_scale: .* frame 99 is beyond"):
        video_to_video(request_for(), models, progress=done.append)
    assert not done


def test_masks_of_the_motion_module_do_the_same_within_a_limit_on_memory(request_for, files):
    mask = torch.rand(10, 16, 16, generator=torch.Generator().manual_seed(1))
    context = ContextOptions(length=4, overlap=1)
    made = []
    for limit in (None, 1.0):
        models = load_files(replace(files, max_memory_gb=limit))
        models.unet.motion.set_masks(MotionMasks.of(mask[:1], mask))
        request = replace(request_for(f"{limit}.mkv", steps=1, context=context), format="mkv-ffv1")
        made.append(frames_of(video_to_video(request, models).path)[0])
    assert np.array_equal(*made)


def test_loras_with_a_curve_do_the_same_within_a_limit_on_memory(request_for, files, weights):
    # Frame 9 is in the last window alone.
    lora = LoraEntry(weights / "style_lora.safetensors", Curve("0: 0, 9: 1"), 0.0)
    files = replace(files, loras=(lora,), motion_scale=Curve("8: 1, 9: 1.5"))
    context = ContextOptions(length=4, overlap=1)
    made = []
    for limit in (None, 1.0):
        request = replace(request_for(f"{limit}.mkv", steps=1, context=context), format="mkv-ffv1")
        result = video_to_video(request, replace(files, max_memory_gb=limit))
        made.append(frames_of(result.path)[0])
    assert np.array_equal(*made)


def frames_of(path):
    with VideoReader(path) as reader:
        return np.stack(list(reader)), reader.frame_rate


@pytest.mark.parametrize(
    ("selection", "kept", "count"),
    [
        (FrameSelection(select_every_nth_frame=4), range(0, 20, 4), 20),
        (FrameSelection(select_every_nth_frame=3, skip_first_frames=1), range(0, 19, 3), 19),
        (FrameSelection(force_rate=5, duration_seconds=1.5), range(0, 15, 2), 15),
    ],
)
def test_restored_frames_lie_between_the_kept_ones(request_for, models, *, selection, kept, count):
    asked = replace(request_for("kept.mkv"), selection=selection, format="mkv-ffv1")
    video_to_video(asked, models)
    asked = replace(asked, output=asked.output.with_name("all.mkv"), restore_frames=True)
    result = video_to_video(asked, models)
    some, _ = frames_of(asked.output.with_name("kept.mkv"))
    every, rate = frames_of(asked.output)
    assert rate == 10  # the source's
    assert result.frame_count == len(every) == count
    assert (every[list(kept)] == some).all()
    assert not (every[1] == every[0]).all()


def test_restored_frames_keep_the_times_of_a_varying_rate(request_for, models, tmp_path):
    times = [Fraction(index * (index + 9), 400) for index in range(20)]
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, width=64, height=64, frame_rate=10) as writer:
        for index in range(len(times)):
            writer.write(np.full((1, 64, 64, 3), 10 * index, np.uint8))
        writer.frame_times += times
    asked = replace(request_for("all.mp4", steps=1), input=clip, restore_frames=True)
    assert video_to_video(asked, models).frame_count == len(times)
    with av.open(str(asked.output)) as container:
        shown = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert shown == pytest.approx([float(each) for each in times], abs=1e-3)


def test_without_dropped_frames_there_is_nothing_to_restore(request_for, models):
    asked = replace(request_for("a.mkv"), selection=FrameSelection(), restore_frames=True)
    assert video_to_video(asked, models).frame_count == 20


def refined(request_for, name, **fields):
    return replace(request_for(name, steps=1), refine=1.5, format="mkv-ffv1", **fields)


def test_a_second_pass_enlarges_the_frames(request_for, models):
    seen, phases = [], []
    result = video_to_video(
        refined(request_for, "a.mkv"), models, progress=seen.append, before_phase=phases.append
    )
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert phases == ["encode", "sample", "encode", "sample", "decode_latents"]
    with VideoReader(result.path) as reader:
        assert (reader.width, reader.height, len(list(reader))) == (96, 96, 10)


def test_a_second_pass_names_itself_and_repeats_no_warning(request_for, models, caplog):
    seen = []
    request = replace(refined(request_for, "a.mkv"), selection=FrameSelection(frame_load_cap=5))
    video_to_video(request, models, progress=seen.append)
    messages = [step.message for step in seen]
    steps = list(dict.fromkeys(each for each in messages if each.startswith("sampling")))
    assert steps == [f"sampling step 1 of 1, pass {number} of 2" for number in (1, 2)]
    assert "encoded 5 of 5 frames, pass 1 of 2" in messages
    for told in (messages, [record.getMessage() for record in caplog.records]):
        (warning,) = [each for each in told if "too few for a motion module" in each]
        assert warning.endswith("more of the video.")


def test_a_second_pass_warns_of_what_its_own_strength_brings(request_for, models, caplog):
    """At a denoise of 1, the first pass has no use for the source that the second loses."""
    context = ContextOptions(length=8, overlap=2, memory="NaiveReuse")
    sampling = SamplingSettings(seed=3, steps=1, denoise=1.0, context=context)
    video_to_video(refined(request_for, "a.mkv", sampling=sampling), models)
    assert sum("it is for a denoise of 1" in each.getMessage() for each in caplog.records) == 1


@pytest.mark.parametrize("upscale", ["image", "latent"])
def test_a_second_pass_is_the_same_within_a_limit_on_memory(upscale, request_for, files):
    made = []
    for limit in (None, 1.0):
        bounded = replace(files, max_memory_gb=limit)
        made_of = refined(request_for, f"{limit}.mkv", refine_upscale=upscale)
        result = video_to_video(made_of, bounded)
        with VideoReader(result.path) as reader:
            made.append(np.stack(list(reader)))
    assert np.array_equal(*made)


def test_a_second_pass_in_tiles_takes_masks_and_frames_that_are_restored(
    request_for, models, tmp_path, monkeypatch
):
    from PIL import Image

    mask = np.zeros((64, 64), np.uint8)
    Image.fromarray(mask).save(tmp_path / "black.png")
    phases = []

    def tile_on_card(_self, _networks):
        # A host has loaded the networks by then.
        assert phases == ["encode", "sample", "encode", "sample"]
        return 8, 8

    monkeypatch.setattr(SecondPass, "_tile_on_card", tile_on_card)
    made = refined(request_for, "a.mkv", source_mask=tmp_path / "black.png", restore_frames=True)
    result = video_to_video(made, models, before_phase=phases.append)
    with VideoReader(result.path) as reader:
        assert (reader.width, reader.height, len(list(reader))) == (96, 96, 20)


@pytest.mark.parametrize("mask", [None, 0, 128, 255])
def test_a_second_pass_enlarges_latents_without_decoding_them(
    mask, request_for, models, clip, monkeypatch
):
    """Nothing is denoised, so that the result is known: the enlarged latents of the source."""
    from PIL import Image

    sizes = []

    def decode(latents, decode=models.codec.vae.decode):
        sizes.append(tuple(latents.shape[-2:]))
        return decode(latents)

    monkeypatch.setattr(models.codec.vae, "decode", decode)
    given = {"refine": 1.5, "refine_denoise": 0.0, "refine_upscale": "latent"}
    made, share = replace(request_for("a.mkv", denoise=0.0), format="mkv-ffv1", **given), 1.0
    if mask is not None:
        path, share = made.output.with_name("mask.png"), mask / 255
        Image.fromarray(np.full((64, 64), mask, np.uint8)).save(path)
        made = replace(made, source_mask=path)
    result = video_to_video(made, models)
    assert sizes == [(12, 12)] * 10
    with VideoReader(clip, selection=made.selection) as reader:
        small = models.codec.encode(torch.from_numpy(np.stack(list(reader))))
    with VideoReader(clip, selection=made.selection, width=96, height=96) as reader:
        large = models.codec.encode(torch.from_numpy(np.stack(list(reader))))
    enlarged = torch.nn.functional.interpolate(small, (12, 12), mode="bicubic")
    wanted = torch.cat(list(models.codec.decode(torch.lerp(large, enlarged, share))))
    with VideoReader(result.path) as reader:
        shown = np.stack(list(reader)).astype(float)
    assert np.abs(shown - 255 * wanted.numpy()).max() <= 1.5


@pytest.mark.parametrize(("max_ram_gb", "may_stay"), [(None, True), (0.00001, False)])
def test_latents_that_fit_into_main_memory_may_stay_on_the_device(
    max_ram_gb, may_stay, request_for, models, monkeypatch
):
    """A model that is not the sampler's own keeps them in main memory."""
    made = []

    def sampling_device(run, _latents):
        made.append(run.make_guided is GuidedModel)
        return torch.device("cpu")

    monkeypatch.setattr(sample._Run, "_sampling_device", sampling_device)
    video_to_video(request_for("a.mkv", steps=1), models, max_ram_gb=max_ram_gb)
    assert made == [may_stay]
