"""A file's fingerprint depends on its content."""

import os
from itertools import pairwise

import pytest
from animatediff_v2v.nodes.fingerprint import BLOCK_BYTES, BLOCKS, block_offsets, file_fingerprint
from hypothesis import given
from hypothesis import strategies as st

WHOLE = BLOCK_BYTES * BLOCKS


def test_time_and_name_do_not_count(tmp_path):
    (tmp_path / "a").write_bytes(b"frames")
    (tmp_path / "b").write_bytes(b"frames")
    os.utime(tmp_path / "b", (0, 0))
    assert file_fingerprint(tmp_path / "a") == file_fingerprint(tmp_path / "b")


@pytest.mark.parametrize("position", [0, 70_000, 199_999])
def test_every_byte_of_a_small_file_counts(tmp_path, position):
    data = bytearray(200_000)
    (tmp_path / "a").write_bytes(data)
    data[position] = 1
    (tmp_path / "b").write_bytes(data)
    assert file_fingerprint(tmp_path / "a") != file_fingerprint(tmp_path / "b")


def test_a_longer_file_is_another_one(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(11))
    assert file_fingerprint(tmp_path / "a") != file_fingerprint(tmp_path / "b")


@given(st.integers(1, WHOLE))
def test_blocks_cover_small_files(size):
    offsets = block_offsets(size)
    assert offsets == [i * BLOCK_BYTES for i in range(len(offsets))]
    assert offsets[-1] < size <= offsets[-1] + BLOCK_BYTES


@given(st.integers(WHOLE + 1, 10**11))
def test_blocks_of_large_files_reach_from_end_to_end(size):
    offsets = block_offsets(size)
    assert len(offsets) == BLOCKS
    assert offsets[0] == 0 and offsets[-1] == size - BLOCK_BYTES
    assert all(later - earlier >= BLOCK_BYTES for earlier, later in pairwise(offsets))


def test_missing_file(tmp_path):
    with pytest.raises(OSError):
        file_fingerprint(tmp_path / "gone")
