"""The route behind the button "Get the miniature"."""

from __future__ import annotations

import pytest

from .comfy_server import PACK

ROUTE = "/animatediff_v2v/miniature"
DEMO = PACK / "demo"
FILES = {
    "models/checkpoints/miniature.safetensors": DEMO / "models/checkpoints/miniature.safetensors",
    "models/loras/miniature_outlined.safetensors": DEMO
    / "models/loras/miniature_outlined.safetensors",
    "input/miniature_clip.mp4": DEMO / "clip.mp4",
}
LORA = "models/loras/miniature_outlined.safetensors"


@pytest.fixture
def lora(server):
    """A miniature file in ComfyUI, which is put back."""
    path = server.folder / LORA
    yield path
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    assert server.post(ROUTE, {})[0] == 200


def test_the_files_come_and_are_listed(server):
    for name in FILES:
        (server.folder / name).unlink()
    status, answer = server.post(ROUTE, {})
    assert status == 200
    assert {"checkpoints/miniature.safetensors", "input/miniature_clip.mp4"} <= set(answer["files"])
    for name, source in FILES.items():
        assert (server.folder / name).read_bytes() == source.read_bytes()
    node = server.get("/object_info/ADV2V_VideoToVideo")["ADV2V_VideoToVideo"]
    combos = {**node["input"]["required"], **node["input"]["optional"]}
    for name, file in (
        ("base_model", "miniature.safetensors"),
        ("motion_module", "miniature_motion.safetensors"),
        ("video", "miniature_clip.mp4"),
    ):
        kind, options = combos[name]
        assert file in (kind if isinstance(kind, list) else options["options"])
    # What is there already stays.
    assert server.post(ROUTE, {}) == (200, answer)


def test_a_file_with_other_content_is_kept(server, lora):
    lora.unlink()
    lora.write_bytes(b"somebody's own")
    status, answer = server.post(ROUTE, {})
    assert status == 400
    assert answer["error"] == (
        f"{LORA} exists already: it has other content. Rename it or move it away, and press the "
        "button again."
    )
    assert lora.read_bytes() == b"somebody's own"


def test_a_file_that_cannot_be_written_is_named(server, lora):
    lora.unlink()
    lora.mkdir()
    status, answer = server.post(ROUTE, {})
    assert status == 400
    assert answer["error"].startswith(f"{LORA} cannot be written: ")
    assert str(server.folder) not in answer["error"]
