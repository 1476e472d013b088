"""Plan, ledger, run and join, with a renderer that needs no networks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from animatediff_v2v.batch.digests import MARK
from animatediff_v2v.batch.documents import document, restored
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.ledger import LEDGER, Ledger
from animatediff_v2v.batch.local import _Engine
from animatediff_v2v.batch.plan import marked, plan
from animatediff_v2v.batch.render import Renderer, check_unchanged
from animatediff_v2v.batch.report import frames_in_words
from animatediff_v2v.batch.run import FOUND, BatchRun
from animatediff_v2v.batch.summary import summarize
from animatediff_v2v.batch.unit import (
    FilesChanged,
    Unit,
    unit_document,
    unit_restored,
    with_ram_share,
)
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    ContextOptions,
    ControlFile,
    FrameSelection,
    Guidance,
    LoraEntry,
    ModelFiles,
    Request,
    SamplingSettings,
    StyleFile,
)
from animatediff_v2v.pipeline.curve import Curve
from animatediff_v2v.pipeline.errors import Cancelled, DiskFull
from animatediff_v2v.pipeline.prompts import PromptSchedule
from animatediff_v2v.pipeline.video import probe_video

from .conftest import frames_of, times_of, write_clip


def planned(jobs, out, *, read_only=False, **options):
    with Ledger(out) as ledger:
        return plan(jobs, out, store=ledger, has_sources=False, **options)


def worked(jobs, out, render, *, overwrite=False, **options):
    """Run a batch and return the rows by name."""
    with Ledger(out) as ledger:
        units = plan(jobs, out, store=ledger, has_sources=False, **options)
        run_inline(BatchRun(ledger, units, overwrite=overwrite), render, worker="w")
        return {row.name: row for row in ledger.rows()}


def test_a_clip_is_cut_at_its_scenes_and_long_shots_into_parts(tmp_path, job):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (70, 200)])
    units = planned([job(clip)], tmp_path / "out", part_frames=48)
    assert [(unit.name, unit.kind, unit.frames) for unit in units] == [
        ("a.mp4#1", "part", 20), ("a.mp4#2", "part", 43), ("a.mp4#3", "part", 43),
        ("a.mp4", "join", 90),
    ]  # fmt: skip
    assert [(span.start, span.stop, span.overlap) for span in units[-1].spans] == [
        (0, 20, 0), (20, 63, 0), (47, 90, 16),
    ]  # fmt: skip
    whole = planned([job(clip)], tmp_path / "out", shots="whole")
    assert [(unit.kind, unit.frames) for unit in whole] == [("clip", 90)]


def test_a_shot_with_a_memory_of_its_ContextRef_is_not_cut(tmp_path, job):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (70, 200)])
    sampling = SamplingSettings(seed=1, context=ContextOptions(memory="ContextRef"))
    units = planned([job(clip, sampling=sampling)], tmp_path / "out", part_frames=48)
    assert [(unit.kind, unit.frames) for unit in units] == [
        ("part", 20),
        ("part", 70),
        ("join", 90),
    ]


@pytest.mark.parametrize(
    ("selection", "options", "words"),
    [
        ({}, {}, "90 of 90, in 2 parts"),
        ({}, {"shots": "whole"}, "90 of 90"),
        ({"select_every_nth_frame": 2}, {"shots": "whole"}, "45 of 90, every 2nd"),
        (
            {"select_every_nth_frame": 3, "skip_first_frames": 10, "frame_load_cap": 7},
            {},
            "7 of 90, without the first 10, every 3rd, at most 7",
        ),
        (
            {"force_rate": 5, "start_time_seconds": 1.5, "duration_seconds": 2},
            {},
            "10 of 90, resampled to 5 frames/s, from 1.5 s on, within 2 s",
        ),
    ],
)
def test_the_page_says_which_frames_were_chosen(tmp_path, job, selection, options, words):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (70, 200)])
    jobs = [job(clip, selection=FrameSelection(**selection))]
    assert frames_in_words(planned(jobs, tmp_path / "out", **options)[-1]) == words


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_schedule": PromptSchedule("0: a fox")},
        {"sampling": SamplingSettings(seed=1, denoise=Curve("0: 0.2, 24: 1"))},
        {"arrangement": "travel"},
        {"arrangement": "per_window"},
        {"selection": FrameSelection(frame_load_cap=31)},
    ],
)
def test_what_depends_on_frame_numbers_or_is_short_stays_whole(tmp_path, job, settings):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (20, 200)])
    if "arrangement" in settings:
        style = StyleFile(adapter=clip, vision_model=clip, images=(clip,), **settings)
        settings = {"styles": (style,)}
    (unit,) = planned([job(clip, **settings)], tmp_path / "out")
    assert unit.kind == "clip"


def test_what_changes_over_the_steps_does_not_depend_on_frame_numbers(tmp_path, job):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (20, 200)])
    guidance = Guidance(scale=Curve("0%: 7, 50%: 2"))
    units = planned(
        [job(clip, sampling=SamplingSettings(seed=1, guidance=guidance))], tmp_path / "out"
    )
    assert [unit.kind for unit in units] != ["clip"]


def test_the_joined_clip_has_every_frame_and_the_sound(tmp_path, job, inverter):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (70, 200)], sound=True)
    rows = worked([job(clip)], tmp_path / "out", inverter, part_frames=48)
    assert {row.state for row in rows.values()} == {"done"}
    result = tmp_path / "out" / "a.mp4"
    assert probe_video(result).has_audio and probe_video(result).frame_count == 90
    difference = frames_of(result).astype(int) - (255 - frames_of(clip).astype(int))
    assert np.abs(difference).mean() < 3  # encoded once
    assert marked(result) == rows["a.mp4"].digest
    assert not (tmp_path / "out" / ".parts").exists()


def test_frames_are_restored_in_the_joined_clip_at_their_times(tmp_path, job, inverter):
    steps = [Fraction(milliseconds, 1000) for milliseconds in (40, 100, 160)]
    times = [sum(steps[n % 3] for n in range(index)) for index in range(100)]
    clip = write_clip(tmp_path / "a.mp4", [(40, 30), (60, 200)], sound=True, times=times)
    every_2nd = FrameSelection(select_every_nth_frame=2)
    restoring = job(clip, selection=every_2nd, restore_frames=True)
    rows = worked([restoring], tmp_path / "out", inverter)
    assert {row.kind for row in rows.values()} == {"part", "join"}
    result = tmp_path / "out" / "a.mp4"
    assert times_of(result) == pytest.approx([float(each) for each in times], abs=1e-3)
    difference = frames_of(result).astype(int) - (255 - frames_of(clip).astype(int))
    assert np.abs(difference).mean(axis=(1, 2, 3)).max() < 8  # at the cut too


def test_parts_of_one_clip_or_another_cut_are_equal_to_the_bit(tmp_path, job, inverter):
    """Overlapping parts of the same frames blend into those frames."""
    clip = write_clip(tmp_path / "a.mp4", [(90, 30)])
    lossless = [job(clip, output=tmp_path / each / "a.mkv") for each in ("one", "two")]
    worked([lossless[0]], tmp_path / "one", inverter)
    worked([lossless[1]], tmp_path / "two", inverter, part_frames=40)
    first, second = (frames_of(tmp_path / each / "a.mkv") for each in ("one", "two"))
    assert np.array_equal(first, second)


def test_a_second_run_does_nothing_and_a_change_is_done_anew(tmp_path, job, inverter):
    clips = [write_clip(tmp_path / f"{name}.mp4", [(5, 90)]) for name in "ab"]
    jobs = [job(clip) for clip in clips]
    worked(jobs, tmp_path / "out", inverter)
    assert inverter.rendered == ["a.mp4", "b.mp4"]
    worked(jobs, tmp_path / "out", inverter)
    assert inverter.rendered == ["a.mp4", "b.mp4"]
    write_clip(clips[0], [(6, 90)])
    worked(jobs, tmp_path / "out", inverter)
    assert inverter.rendered == ["a.mp4", "b.mp4", "a.mp4"]
    other = replace(jobs[1], request=replace(jobs[1].request, prompt="a wolf"))
    worked([jobs[0], other], tmp_path / "out", inverter)
    assert inverter.rendered[3:] == ["b.mp4"]
    jobs[0].files.checkpoint.write_bytes(b"other weights")
    worked([jobs[0], other], tmp_path / "out", inverter)
    assert inverter.rendered[4:] == ["a.mp4", "b.mp4"]
    (tmp_path / "out" / "b.mp4").unlink()
    worked([jobs[0], other], tmp_path / "out", inverter)
    assert inverter.rendered[6:] == ["b.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".webp", ""])
def test_without_its_ledger_a_batch_finds_its_results(tmp_path, job, inverter, suffix):
    clip = write_clip(tmp_path / "a.mp4", [(20, 30), (20, 200)])
    jobs = [job(clip, output=tmp_path / "out" / f"a{suffix}")]
    before = worked(jobs, tmp_path / "out", inverter)
    (tmp_path / "out" / LEDGER).unlink()
    done = list(inverter.rendered)
    after = worked(jobs, tmp_path / "out", inverter)
    assert inverter.rendered == done
    assert {row.worker for row in after.values()} == {FOUND}
    name = f"a{suffix}"
    assert after[name].result_digest == before[name].result_digest


def test_numbers_are_alike_however_they_are_written(tmp_path, job):
    clip = write_clip(tmp_path / "a.mp4", [(5, 90)])
    digests = set()
    for scale in (7, 7.0):
        sampling = SamplingSettings(seed=1, guidance=Guidance(scale=scale))
        (unit,) = planned([job(clip, sampling=sampling)], tmp_path / "out")
        digests.add(unit.digest)
    assert len(digests) == 1


def test_results_do_not_depend_on_paths(tmp_path, job, inverter):
    clip = write_clip(tmp_path / "a.mp4", [(5, 90)])
    moved = tmp_path / "else" / "b.mp4"
    moved.parent.mkdir()
    shutil.copy(clip, moved)
    jobs = [job(clip), job(moved, output=tmp_path / "other" / "c.mp4")]
    rows = [
        *worked(jobs[:1], tmp_path / "out", inverter).values(),
        *worked(jobs[1:], tmp_path / "other", inverter).values(),
    ]
    assert rows[0].digest == rows[1].digest
    assert rows[0].result_digest == rows[1].result_digest


def test_failures_are_put_aside_with_their_sentence_and_the_rest_goes_on(tmp_path, job, inverter):
    cut = write_clip(tmp_path / "a.mp4", [(20, 30), (20, 200)])
    fine = write_clip(tmp_path / "b.mp4", [(5, 90)])
    broken = tmp_path / "c.mp4"
    broken.write_text("no video")
    jobs = [job(each) for each in (broken, cut, fine, tmp_path / "gone.mp4")]
    inverter.fails = {"a.mp4#2": 3, "b.mp4": 2}
    rows = worked(jobs, tmp_path / "out", inverter)
    assert rows["b.mp4"].state == "done" and rows["b.mp4"].attempts == 3
    assert rows["a.mp4#2"].sentence == "a.mp4#2 cannot be inverted."
    assert rows["a.mp4"].sentence.startswith("a.mp4#2 has failed: a.mp4#2 cannot")
    assert "cannot be read as a video" in rows["c.mp4"].sentence
    assert "there is no file" in rows["gone.mp4"].sentence
    assert summarize(list(rows.values())).clips_failed == 3
    # Given again, what has failed is tried again, and of the cut clip only what is missing.
    inverter.rendered.clear()
    rows = worked(jobs, tmp_path / "out", inverter)
    assert inverter.rendered == ["a.mp4#2", "a.mp4"]


def test_files_of_others_stay_unless_they_may_be_replaced(tmp_path, job, inverter):
    clip = write_clip(tmp_path / "a.mp4", [(5, 90)])
    foreign = write_clip(tmp_path / "out" / "a.mp4", [(3, 10)])
    before = foreign.read_bytes()
    rows = worked([job(clip)], tmp_path / "out", inverter)
    assert "is not of a batch" in rows["a.mp4"].sentence and foreign.read_bytes() == before
    rows = worked([job(clip)], tmp_path / "out", inverter, overwrite=True)
    assert rows["a.mp4"].state == "done" and foreign.read_bytes() != before


def test_a_lost_write_is_done_again(tmp_path, job, inverter):
    clip = write_clip(tmp_path / "a.mp4", [(5, 90)])
    losses = iter([True, False])

    def losing(unit, *arguments):
        result = inverter(unit, *arguments)
        if next(losses):
            unit.target.unlink()
        return result

    assert worked([job(clip)], tmp_path / "out", losing)["a.mp4"].state == "done"
    assert len(inverter.rendered) == 2


@pytest.mark.parametrize("error", [DiskFull("The disk is full."), FilesChanged("It has changed.")])
def test_what_concerns_all_units_stops_the_batch(tmp_path, job, inverter, error):
    clips = [write_clip(tmp_path / f"{name}.mp4", [(5, 90)]) for name in "ab"]

    def stopping(unit, *arguments):
        if unit.name == "b.mp4":
            raise error
        return inverter(unit, *arguments)

    with pytest.raises(type(error)):
        worked([job(clip) for clip in clips], tmp_path / "out", stopping)
    with Ledger(tmp_path / "out", read_only=True) as ledger:
        assert [row.state for row in ledger.rows()] == ["done", "waiting"]


def test_a_unit_refuses_files_that_have_changed_since_the_plan(tmp_path, job):
    clip = write_clip(tmp_path / "a.mp4", [(5, 90)])
    (unit,) = planned([job(clip)], tmp_path / "out")
    assert set(unit.stamps) == {str(clip), str(unit.files.checkpoint)}
    check_unchanged(unit)
    unit.files.checkpoint.write_bytes(b"other weights")
    with pytest.raises(FilesChanged, match=r"checkpoint.safetensors has changed since the batch"):
        Renderer("cpu").render(unit)
    clip.unlink()
    with pytest.raises(AnimateDiffV2VError, match="there is no file"):
        check_unchanged(unit)


def test_one_process_at_a_time_works_on_a_folder(tmp_path):
    with (
        Ledger(tmp_path),
        pytest.raises(AnimateDiffV2VError, match="Another process works on"),
        Ledger(tmp_path),
    ):
        pass
    with Ledger(tmp_path):
        pass


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"no database", "is damaged"), (b"", "has the format 0")],
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path, content, sentence):
    (tmp_path / LEDGER).write_bytes(content)
    with pytest.raises(AnimateDiffV2VError, match=sentence):
        Ledger(tmp_path, read_only=True)
    (tmp_path / LEDGER).unlink()
    with pytest.raises(AnimateDiffV2VError, match="holds no batch"):
        Ledger(tmp_path, read_only=True)


def test_units_survive_the_ledger_with_every_setting(tmp_path):
    request = Request(
        input=tmp_path / "a.mp4",
        output=tmp_path / "out.mp4",
        prompt="",
        prompt_schedule=PromptSchedule("0: a fox", "best", "grain"),
        sampling=SamplingSettings(
            seed=2**64 - 1, context=None, denoise=Curve("0: 0.2, 24: 1", start=0.0)
        ),
        selection=FrameSelection(force_rate="29.97"),
        controls=(ControlFile(network=tmp_path / "c.pth", source=tmp_path / "edges.mp4"),),
        styles=(
            StyleFile(
                adapter=tmp_path / "ip.pth",
                vision_model=tmp_path / "v.pth",
                images=(tmp_path / "s.png",),
                weights={0: 1.0, 24: 0.0},
            ),
        ),
        metadata={MARK: "1"},
    )
    files = ModelFiles(
        checkpoint=tmp_path / "m.ckpt",
        loras=(
            LoraEntry(tmp_path / "l.pt", Curve("0: 1", end=0.5)),
            LoraEntry(tmp_path / "m.pt", 0.5),
        ),
    )
    unit = Unit(
        name="out.mp4", kind="join", clip="out.mp4", request=request, files=files,
        parts=(tmp_path / "1.mkv",), stamps={"a.mp4": (1, 2)},
    )  # fmt: skip
    assert unit_restored(unit_document(unit)) == unit
    assert restored(Request, document(request)) == request


def test_guides_that_are_loaded_are_part_of_what_is_done(tmp_path, job, inverter):
    clip, out = write_clip(tmp_path / "a.mp4", [(20, 30), (20, 200)]), tmp_path / "out"
    plain = job(clip)
    guided = replace(plain, guides="style images")
    assert {row.state for row in worked([guided], out, inverter).values()} == {"done"}
    (first, *_), (again, *_) = planned([guided], out), planned([plain], out)
    assert first.digest != again.digest
    whole = planned([replace(guided, is_whole=True)], out)
    assert [(unit.kind, unit.frames) for unit in whole] == [("clip", 40)]
    with pytest.raises(AnimateDiffV2VError, match="style images that ComfyUI has loaded"):
        Renderer("cpu").render(first)


@pytest.mark.parametrize("calls", [0, 1, 12])
def test_a_plan_is_stopped_between_clips_and_within_them(tmp_path, job, calls):
    clips = [write_clip(tmp_path / f"{name}.mp4", [(20, 30), (20, 200)]) for name in "ab"]
    asked = iter([False] * calls)
    with pytest.raises(Cancelled):
        planned(map(job, clips), tmp_path / "out", is_cancelled=lambda: next(asked, True))
    looked = []
    planned(map(job, clips), tmp_path / "out", on_clip=looked.append)
    assert looked == [1, 2]


@pytest.mark.parametrize(("limit", "workers"), [(None, 1), (None, 4), (0.5, 4)])
def test_the_workers_of_a_machine_share_its_default_memory(tmp_path, job, limit, workers):
    with Ledger(tmp_path / "out") as ledger:
        made = replace(job(write_clip(tmp_path / "a.mp4", [(4, 30)])), max_ram_gb=limit)
        engine, sent = _Engine(BatchRun(ledger, plan([made], tmp_path / "out", store=ledger))), []
        for name in range(workers):
            connection = SimpleNamespace(send=sent.append)
            engine._workers[str(name)] = SimpleNamespace(
                name=str(name), units=[], is_ready=True, connection=connection
            )
        engine._supply(engine._workers["0"])
    whole = with_ram_share(replace(sent[0], max_ram_gb=None), workers=1).max_ram_gb
    assert sent[0].max_ram_gb == (limit or whole / workers)
    assert whole > 0.1
