"""`animatediff-v2v batch` and `work`, with workers that need no networks."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from animatediff_v2v.batch.clips import Clip
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.cli import batch_run
from animatediff_v2v.cli.batch import _jobs, _row_parser, _with_row
from animatediff_v2v.cli.main import _parser, main
from animatediff_v2v.pipeline.errors import DiskFull

from .conftest import MODELS


class Videos(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        if tag == "video":
            self.sources.append(unquote(dict(attributes)["src"]))

    def handle_data(self, data):
        self.text += data


def test_a_batch_writes_its_results_and_a_page(workers, batch, tmp_path, capsys):
    assert batch("--seed=3", "--select-every-nth-frame=1") == 0
    told = capsys.readouterr()
    out = tmp_path / "out"
    assert told.out.strip() == f"{out / 'index.html'}: 2 of 2 clips"
    lines = [line.partition(" (")[0].partition(": ")[2] for line in told.err.splitlines()]
    assert lines == [
        "looking at 2 clips", "restyling 2 clips",
        "restyling a.mp4", "a.mp4 is done", "restyling b.mp4", "b.mp4 is done",
    ]  # fmt: skip
    assert "a.mp4 is done (1 of 2 clips" in told.err
    page = Videos()
    text = (out / "index.html").read_text(encoding="utf-8")
    page.feed(text)
    assert page.sources == ["sources/a.mp4.mp4", "a.mp4", "sources/b.mp4.mp4", "b.mp4"]
    assert text.count('<input type="range"') == text.count("<button>Divider</button>") == 2
    assert all((out / source).is_file() for source in page.sources)
    for fact in ("a <fox>", "25 steps, euler", "checkpoint.safetensors", "2 of 2 clips"):
        assert fact in page.text
    assert "http" not in text  # it opens without a server
    assert batch("--seed=3", "--select-every-nth-frame=1") == 0
    assert "2 of 2 clips are done already\n" in capsys.readouterr().err
    (out / "a.mp4").unlink()
    assert batch("--seed=3", "--select-every-nth-frame=1") == 0
    assert "1 of 2 clips are done already; restyling 1\n" in capsys.readouterr().err
    assert len(workers.rendered) == 5
    with pytest.raises(SystemExit):
        main(["batch", "--status", str(out)])
    assert f"{out}: not running, 2 of 2 clips" in capsys.readouterr().out


def test_what_failed_is_on_the_page_and_in_the_status(workers, batch, tmp_path, capsys):
    (tmp_path / "in" / "c.mp4").write_text("no video")
    workers.fails = {"a.mp4": 3}
    assert batch("--json") == 1
    told = capsys.readouterr()
    lines = [json.loads(line) for line in told.out.splitlines()]
    states = [line["state"] for line in lines if line["unit"] == "a.mp4"]
    assert states == ["again", "again", "put aside"]
    assert "c.mp4 is put aside: INPUT: " in told.err
    assert "0 of 3 clips are done already, 1 failed; restyling 2\n" in told.err
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Failed: a.mp4 cannot be inverted." in text and "Failed: input: " in text
    for name in ("a.mp4", "c.mp4"):
        assert f'href="#{name}"' in text and f'<section id="{name}">' in text
    # What all clips have in common is said once.
    assert text.count("<dt>Models</dt>") == text.count("<dt>Seed</dt>") == 1
    with pytest.raises(SystemExit):
        main(["batch", "--status", str(tmp_path / "out")])
    assert "a.mp4 has failed: a.mp4 cannot be inverted." in capsys.readouterr().out


def test_a_full_disk_stops_the_batch_with_a_sentence(workers, batch, monkeypatch, capsys):
    def full(run, **_):
        raise DiskFull("a.mp4 was not written: the disk is full; free some space.")

    monkeypatch.setattr(batch_run, "run_here", full)
    assert batch() == 2
    assert "the disk is full; free some space." in capsys.readouterr().err


def test_an_interrupted_batch_says_what_is_done(workers, batch, monkeypatch, capsys):
    def interrupted(run, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_run, "run_here", interrupted)
    assert batch() == 130
    assert "interrupted; 0 of 2 clips are done, and the same command" in capsys.readouterr().err


def test_shards_do_their_share_and_the_command_finds_it(
    workers, batch, tmp_path, monkeypatch, capsys
):
    assert batch("--plan-only") == 0
    assert "2 clips, 2 units planned" in capsys.readouterr().out
    monkeypatch.setattr(
        "animatediff_v2v.batch.render.Renderer.render", lambda _, unit: workers(unit, lambda *_: 0)
    )
    out = str(tmp_path / "out")
    for number, name in enumerate(("a.mp4", "b.mp4")):
        assert main(["work", out, f"--shard={number}/2"]) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["unit"], line["state"]) == (name, "done")
    assert main(["work", out]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in lines] == ["skipped", "skipped"]
    assert batch() == 0
    assert workers.rendered == ["a.mp4", "b.mp4", "a.mp4#source", "b.mp4#source"]
    with Ledger(tmp_path / "out", read_only=True) as ledger:
        assert {row.worker for row in ledger.rows()} == {"found", "cpu-0"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["work", "{out}", "--shard=2/2"], "--shard is '2/2'; it must be I/N with I from 0"),
        (["work", "{out}"], "holds no batch"),
        (["batch", "{out}"], "Give at least one INPUT"),
        (["batch", "gone.mp4", "{out}"], "there is no file gone.mp4"),
        (["batch", "{in}", "{in}/a.mp4"], "is a file; give a folder for the results"),
        (["batch", "{in}", "{out}", "--workers=-1"], "--workers is -1; it must be from 0"),
        (
            ["batch", "{in}", "{out}", "--shots=cuts"],
            "--shots is 'cuts'; it can be scenes, whole, transnetv2.",
        ),
        (["batch", "{in}", "{out}", "--engine=spark"], "--engine is 'spark'; it can be local, ray"),
        (["batch", "{in}", "{out}", "--part-frames=8"], "--part-frames is 8; it must be more than"),
        (["batch", "{in}", "{out}", "--devices=cpu,cpu", "--workers=2"], "and --workers is 2"),
        (["batch", "{in}", "{out}", "--devices=cpu,cpu", "--engine=ray"], "give --engine local"),
        (["batch", "{in}", "{out}", "--devices=cpu", "--device=cpu"], "--devices is given as well"),
        (["batch", "{in}", "{out}", "--steps=0"], "--steps is 0"),
        (["batch", "{in}", "{out}", "--max-ram=0"], "--max-ram is 0"),
        (["batch", "{in}", "{out}", "--checkpoint=gone.ckpt"], "--checkpoint: there is no file"),
        (["batch", "{table}", "{out}"], "t.csv, line 2: --steps is 0"),
        (["batch", "--status", "{out}"], "There is no folder"),
    ],
)
def test_errors_are_sentences(batch, models, tmp_path, capsys, arguments, sentence):  # noqa: PLR0917
    table = tmp_path / "t.csv"
    table.write_text("input,steps\nin/a.mp4,0\n")
    places = {"in": tmp_path / "in", "out": tmp_path / "out", "table": table}
    if arguments[0] == "batch" and "--status" not in arguments:
        arguments = [*arguments[:3], f"--checkpoint={models.checkpoint}", *MODELS, "--prompt=x",
                     *arguments[3:]]  # fmt: skip
    assert main([each.format(**places) for each in arguments]) == 2
    told = capsys.readouterr().err.replace(str(tmp_path / "gone.mp4"), "gone.mp4")
    assert sentence in told or sentence.replace("gone.mp4", "") in told


def test_rows_of_a_table_replace_the_options_of_the_command():
    base = _parser().parse_args(
        ["batch", "in", "out", "--checkpoint=c.ckpt", "--motion-module=m.ckpt", "--lora=x",
         "--prompt=a fox", "--steps=4"]
    )  # fmt: skip
    rows = _row_parser()
    row = _with_row(base, rows, {"seed": 5, "lora": ["y:0.5", "z"], "no_audio": True})
    assert (row.seed, row.lora, row.no_audio, row.steps) == (5, ["y:0.5", "z"], True, 4)
    assert base.lora == ["x"]
    row = _with_row(base, rows, {"prompt_schedule": "0: b"})
    assert (row.prompt, row.prompt_schedule) == (None, "0: b")
    silent = _with_row(base, rows, {"no_audio": True})
    assert _with_row(silent, rows, {"no_audio": "false"}).no_audio is False
    assert _with_row(silent, rows, {}).no_audio is True


@pytest.mark.parametrize(
    "sentence",
    [
        "usage: animatediff-v2v batch [options] INPUT... OUT\n"
        "       animatediff-v2v batch --status OUT\n",
        "--seed SEED 0 to 2^64-1, as in ComfyUI; 0 for all clips if absent",
        "Stable Diffusion 1.5 checkpoint; required",
        "each frame on its own; required",
        "--max-ram GB main memory of each worker",
        "all workers of a machine share a quarter of its memory",
        "png; mp4-h264 if absent",
    ],
)
def test_the_help_says_what_batch_does(capsys, sentence):
    with pytest.raises(SystemExit):
        main(["batch", "--help"])
    told = capsys.readouterr().out
    assert sentence in (told if "\n" in sentence else " ".join(told.split()))


def test_the_memory_of_a_worker_goes_with_its_units(batch, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("input,max_ram\nin/a.mp4,0.5\nin/b.mp4,\n")
    assert batch("--plan-only", "--max-ram=2", inputs=[table]) == 0
    with Ledger(tmp_path / "out", read_only=True) as ledger:
        units = ledger.units()
    assert {unit.clip: unit.max_ram_gb for unit in units} == {"a.mp4": 0.5, "b.mp4": 2}


def test_the_folder_is_named_without_detours(workers, batch, tmp_path, monkeypatch, capsys):
    """A link is followed before `..` goes up, as the system does."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    page = tmp_path / "far" / "out" / "index.html"
    assert batch(out=tmp_path / "link" / ".." / "out") == 0
    assert capsys.readouterr().out.strip() == f"{page}: 2 of 2 clips"
    assert page.is_file()


def test_results_go_into_the_folder_by_name_and_format(tmp_path):
    parsed = _parser().parse_args(
        ["batch", "in", "out", "--checkpoint=c.ckpt", "--motion-module=none", "--prompt=x",
         "--format=gif"]
    )  # fmt: skip
    clips = [Clip(Path("in/v1.final.mp4"), Path("deep/v1.final"))]
    (job,) = _jobs(clips, parsed, tmp_path)
    assert job.request.output == tmp_path / "deep" / "v1.final.gif"
    assert job.request.sampling.seed == 0
