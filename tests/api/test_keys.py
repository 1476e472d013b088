"""API keys: checking, adding and removing them."""

import json
import os
import subprocess
import sys

import pytest
from animatediff_v2v.api import keys
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.rate_limit import RateLimit
from animatediff_v2v.api.storage.data_folder import KEYS, OWN
from animatediff_v2v.cli import keys as cli_keys
from animatediff_v2v.cli.main import main


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path)


def test_a_valid_key_is_accepted(ring):
    key = ring.add("laptop")
    for header in (f"Key {key}", f"key  {key}", f"Bearer {key}"):
        caller = ring.check(header)
        assert (caller.name, caller.key_id) == ("laptop", key.split(":")[0])


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "Key",
        "Key ",
        "Key :",
        "Key {id}:",
        "Key :{secret}",
        "Key {id}",
        "Key {id}:{secret}x",
        "Key {id}:{other}",
        "Key x{id}:{secret}",
        "Key {secret}:{id}",
        "Key {id}:{hash}",
        "{id}:{secret}",
        "Basic {id}:{secret}",
        "Key {id}:{secret}" + "x" * 2000,
        "Key {id}:\udcff",
        "Key ü:ü",
    ],
)
def test_all_other_keys_are_refused(ring, wrong, tmp_path):
    key_id, secret = ring.add("laptop").split(":")
    other = ring.add("other").split(":")[1]
    hashed = json.loads((tmp_path / KEYS).read_text())[key_id]["hash"]
    parts = {"id": key_id, "secret": secret, "other": other, "hash": hashed}
    assert ring.check(wrong and wrong.format(**parts)) is None


def test_only_hashes_are_kept(ring, tmp_path):
    secret = ring.add("laptop").split(":")[1]
    path = tmp_path / KEYS
    assert secret not in path.read_text()
    assert len(secret) == 64
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_secrets_are_compared_in_constant_time(ring, monkeypatch):
    compared = []
    monkeypatch.setattr(
        keys.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or False
    )
    key = ring.add("laptop")
    for header in (f"Key {key}", "Key nobody:x", None):
        ring.check(header)
    assert compared == [(64, 64)] * 3


def test_a_settings_file_with_a_byte_order_mark_is_read(ring, tmp_path):
    """As editors on Windows write it."""
    key = ring.add("laptop")
    path = tmp_path / KEYS
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert KeyRing(tmp_path).check(f"Key {key}").name == "laptop"


def test_changes_take_effect_at_once(ring, tmp_path):
    key = KeyRing(tmp_path).add("laptop")
    assert ring.check(f"Key {key}").name == "laptop"
    KeyRing(tmp_path).remove("laptop")
    assert ring.check(f"Key {key}") is None
    (tmp_path / KEYS).unlink()
    assert ring.names() == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}', '{"a": {"name": "x"}}', "\x00"])
def test_a_damaged_key_file_refuses_all_calls(ring, tmp_path, damage, caplog):
    key = ring.add("laptop")
    (tmp_path / KEYS).write_text(damage)
    assert ring.check(f"Key {key}") is None
    assert "is damaged: delete it and add the keys again." in caplog.text
    with pytest.raises(ValueError, match="is damaged"):
        ring.add("other")


def test_the_command(tmp_path, capsys):
    place = ["keys", "--folder", str(tmp_path)]
    assert main([*place, "add", "my laptop"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("FAL_KEY=")
    key = shown.strip().removeprefix("FAL_KEY=")
    assert KeyRing(tmp_path / OWN).check(f"Key {key}").name == "my laptop"
    assert main([*place, "list"]) == 0
    assert capsys.readouterr().out == "my laptop\n"
    assert main(["keys", "remove", "my laptop", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "removed my laptop\n"
    assert main([*place, "list"]) == 0
    assert capsys.readouterr().out == f"There are no keys in {tmp_path}.\n"
    assert main(["keys", "list", "--folder", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert KeyRing(tmp_path / OWN).check(f"Key {key}") is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "laptop"], "There is a key 'laptop' already: remove it, or choose another name."),
        (["add", "a/b"], "'a/b' is not a name: use up to 60 letters, digits, . @ - and spaces."),
        (["remove", "phone"], "There is no key 'phone'; there are: laptop."),
    ],
)
def test_the_command_refuses(tmp_path, capsys, arguments, sentence):
    KeyRing(tmp_path).add("laptop")
    assert main(["keys", "--folder", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err == f"animatediff-v2v: {sentence}\n"


def test_the_command_finds_comfyui_from_the_packs_folder(tmp_path):
    """As documented: from custom_nodes, under the folder's name, whatever that is."""
    nodes = tmp_path / "ComfyUI" / "custom_nodes"
    nodes.mkdir(parents=True)
    pack = nodes / "animatediff-v2v"
    pack.symlink_to(cli_keys._PACK, target_is_directory=True)
    command = [sys.executable, "-m", "animatediff-v2v.cli", "keys", "add", "laptop"]
    done = subprocess.run(command, cwd=nodes, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    key = done.stdout.strip().removeprefix("FAL_KEY=")
    folder = tmp_path / "ComfyUI" / "user" / "animatediff_v2v" / OWN
    assert KeyRing(folder).check(f"Key {key}").name == "laptop"


def test_rate_limit():
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    assert [limit.allows("a") for _ in range(61)] == [True] * 60 + [False]
    assert limit.allows("b")  # nobody pays for another one
    now[0] = 1.0
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [limit.allows("a") for _ in range(61)] == [True] * 60 + [False]
