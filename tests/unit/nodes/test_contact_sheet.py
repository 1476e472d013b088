"""Contact sheets of Encode Video: which frames they show, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from animatediff_v2v.nodes.contact_sheet import contact_sheet, sheet_path


@pytest.mark.parametrize(
    ("count", "size", "sheet", "shown"),
    [
        (1, (40, 80), (128, 256), [0]),
        (3, (40, 80), (128, 3 * 260 - 4), [0, 1, 2]),
        (5, (64, 64), (2 * 260 - 4, 4 * 260 - 4), [0, 1, 2, 3, 4]),
        (31, (64, 64), (4 * 260 - 4, 4 * 260 - 4), list(range(0, 31, 2))),
    ],
)
def test_frames_stand_in_rows(count, size, sheet, shown):
    levels = torch.arange(count).float() / max(1, count)
    images = levels.view(-1, 1, 1, 1).expand(count, *size, 3)
    made = contact_sheet(images)
    assert made.shape == (*sheet, 3)
    height = sheet[0] if len(shown) <= 4 else 256
    for place, frame in enumerate(shown):
        row, column = divmod(place, 4)
        middle = made[row * (height + 4) + height // 2, column * 260 + 128]
        assert torch.allclose(middle, levels[frame].expand(3), atol=1 / 255)


def test_the_file_stands_beside_the_video(tmp_path):
    assert sheet_path(Path("a/clip_00001.mp4")) == Path("a/clip_00001_contact_sheet.png")
    (tmp_path / "clip.v2_00001").mkdir()
    beside = sheet_path(tmp_path / "clip.v2_00001")
    assert beside == tmp_path / "clip.v2_00001_contact_sheet.png"
