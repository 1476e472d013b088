"""The command that serves the API."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from animatediff_v2v.api.http.listening import _Callers, bind
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.queue.local_executor import LocalExecutor
from animatediff_v2v.api.storage.data_folder import OWN
from animatediff_v2v.cli.main import main
from animatediff_v2v.pipeline import AnimateDiffV2VError

MINIATURE = Path(__file__).parents[3] / "demo/models/checkpoints/miniature.safetensors"


def test_a_missing_models_folder_is_refused(tmp_path, capsys):
    missing = tmp_path / "nope"
    assert main(["serve", str(tmp_path / "data"), "--models", str(missing)]) == 2
    assert f"{missing} is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--port", "{taken}"],
            "Port {taken} of 127.0.0.1 is in use: stop the program that uses it",
        ),
        (["--port", "99999"], "--port is 99999; it must be from 0 to 65535."),
        (["--port", "-1"], "--port is -1; it must be from 0 to 65535."),
        (
            ["--host", "nowhere.invalid"],
            "--host 'nowhere.invalid' is not an address or name of this",
        ),
        (["--host", "192.0.2.1"], "--host '192.0.2.1' is not an address of this machine"),
        (["--host", "."], "--host '.' is not an address or name of this machine"),
        (["--engine", "slurm"], "--engine is 'slurm'; it can be local, ray"),
        (["--workers", "-1"], "--workers is -1; it must be from 0 to 1000."),
        (["--workers", "2"], "--workers is 2, which needs --engine ray: leave it out, and repeat"),
        (
            ["--engine", "ray", "--device", "cuda:0", "--device", "cuda:1"],
            "--device is cuda:0, cuda:1, and Ray gives each worker its GPU: leave it out",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path, capsys, options, sentence):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        filled = [each.format(taken=port) for each in options]
        assert main(["serve", str(tmp_path / "data"), "--models", str(tmp_path), *filled]) == 2
    said = capsys.readouterr().err
    assert sentence.format(taken=port) in said
    assert "Traceback" not in said


def test_the_port_is_bound_before_the_server_answers():
    first = bind("127.0.0.1", 0)
    with pytest.raises(AnimateDiffV2VError, match="is in use"):
        bind("127.0.0.1", first[0].getsockname()[1])
    for each in first:
        each.close()


@pytest.mark.parametrize("outcome", ["starts", "refuses"])
def test_the_url_is_printed_once_it_answers(tmp_path, capsys, monkeypatch, outcome):
    """And nothing is left of a start that fails."""

    async def start(executor):
        assert capsys.readouterr().out == ""
        if outcome == "refuses":
            raise AnimateDiffV2VError("device is 'gpu'.")

    async def end(callers, server):
        raise web.GracefulExit

    monkeypatch.setattr(LocalExecutor, "start", start)
    monkeypatch.setattr(_Callers, "hang_up_on_silent", end)
    code = main(["serve", str(tmp_path / "data"), "--models", str(tmp_path), "--port", "0"])
    said = capsys.readouterr()
    if outcome == "starts":
        assert code == 0 and "http://127.0.0.1:" in said.out
        assert (tmp_path / "data").exists()
    else:
        assert (code, said.out) == (2, "") and "device is 'gpu'." in said.err
        assert not (tmp_path / "data").exists()


def test_keys_outlive_a_start_that_fails(tmp_path, monkeypatch):
    async def start(executor):
        KeyRing(tmp_path / "data" / OWN).add("laptop")
        raise AnimateDiffV2VError("device is 'gpu'.")

    monkeypatch.setattr(LocalExecutor, "start", start)
    assert main(["serve", str(tmp_path / "data"), "--models", str(tmp_path), "--port", "0"]) == 2
    assert KeyRing(tmp_path / "data" / OWN).names() == ["laptop"]


def test_the_help_shows_no_default_none(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    said = capsys.readouterr().out
    assert "default: None" not in said and "(default: 8187)" in said


@pytest.mark.parametrize("below", ["", "data"])
def test_a_folder_that_is_a_file_is_refused(tmp_path, capsys, below):
    file = tmp_path / "notes.txt"
    file.touch()
    assert main(["serve", str(file / below), "--models", str(tmp_path), "--port", "0"]) == 2
    assert "is a file, or below one: FOLDER must be a folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows asks the file, not this function")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_arguments: False)
    assert main(["serve", str(tmp_path / "data"), "--models", str(tmp_path)]) == 2
    assert f"{tmp_path / 'data'} is not writable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (b"\xef\xbb\xbf{oops", "api.json cannot be read as JSON"),
        ('{"enabled": true}'.encode("utf-16"), "api.json is not UTF-8"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(tmp_path, capsys, settings, sentence):
    (tmp_path / "api.json").write_bytes(settings)
    assert main(["serve", str(tmp_path), "--models", str(tmp_path), "--port", "0"]) == 2
    assert sentence in capsys.readouterr().err


def test_the_server_leaves_pytorch_to_its_workers():
    """It would take seconds to start and hundreds of megabytes."""
    script = (
        "import sys, animatediff_v2v.api.serve, animatediff_v2v.api.queue.worker\n"
        "from animatediff_v2v.pipeline.files.reading import read_header\n"
        f"assert read_header({str(MINIATURE)!r})\n"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
