"""The command that serves the API."""

from __future__ import annotations

from animatediff_v2v.api.command import main


def test_a_models_folder_that_is_not_there_is_refused(tmp_path, capsys):
    missing = tmp_path / "nope"
    assert main(["serve", str(tmp_path / "data"), "--models", str(missing)]) == 2
    assert f"{missing} is no folder" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
