"""HDR comes in as SDR: known levels, no clipped whites, hues kept."""

import numpy as np
import pytest
from animatediff_v2v.pipeline.video import VideoReader, hdr, probe_video

# Published points of SMPTE ST 2084 (ITU-R BT.2408, table 1): nits and signal.
PQ_POINTS = [(0, 0.0), (100, 0.508), (203, 0.5807), (1000, 0.7518), (4000, 0.9026), (10000, 1.0)]


@pytest.mark.parametrize(("nits", "signal"), PQ_POINTS)
def test_pq(nits, signal):
    assert hdr.nits_to_pq(nits) == pytest.approx(signal, abs=5e-4)
    assert hdr.pq_to_nits(hdr.nits_to_pq(nits)) == pytest.approx(nits, rel=1e-6, abs=1e-6)


def test_the_roll_off_rises_and_ends_at_white():
    nits = np.linspace(0, 1000, 2001)
    rolled = hdr.eetf(nits)
    assert (np.diff(rolled) >= 0).all()
    assert rolled[-1] == pytest.approx(hdr.WHITE_NITS, rel=1e-6)
    assert rolled[nits < 87] == pytest.approx(nits[nits < 87], rel=1e-6)
    assert hdr.eetf(4000.0) == pytest.approx(hdr.WHITE_NITS, rel=1e-6)


def pq_picture(nits):
    """A 2 x 2 grey PQ picture of a brightness."""
    return np.full((2, 2, 3), round(float(hdr.nits_to_pq(nits)) * 65535), np.uint16)


@pytest.mark.parametrize("nits", [0, 1, 5, 20, 50, 86])
def test_what_is_not_bright_keeps_its_light(nits):
    mapped = hdr.tone_map(pq_picture(nits), transfer=hdr.PQ)
    shown = 255 * (nits / hdr.WHITE_NITS) ** (1 / 2.4)
    assert np.abs(mapped - shown).max() <= 1.5


def test_brighter_stays_brighter_and_grey_stays_grey():
    levels = [hdr.tone_map(pq_picture(nits), transfer=hdr.PQ)[0, 0] for nits in range(0, 1001, 50)]
    assert all(np.ptp(level.astype(int)) <= 1 for level in levels)
    assert (np.diff([int(level[0]) for level in levels]) >= 0).all()
    assert levels[-1].min() >= 254


def test_hlg_white_and_black():
    signal = np.array([0, 0.5, 0.75, 1.0])
    picture = np.repeat(np.rint(signal * 65535).astype(np.uint16)[None, :, None], 3, axis=2)
    nits = hdr.hlg_nits(picture)[0, :, 1]
    # ITU-R BT.2408: 75 % is diffuse white, 203 nits; 50 % is about 50.
    assert nits == pytest.approx([0, 50.7, 203, 1000], rel=0.02, abs=0.01)
    mapped = hdr.tone_map(picture, transfer=hdr.HLG)[0, :, 0]
    assert mapped[0] == 0
    assert (np.diff(mapped.astype(int)) > 0).all()
    assert mapped[-1] >= 254


@pytest.mark.parametrize(("transfer", "number"), [("smpte2084", hdr.PQ), ("arib-std-b67", hdr.HLG)])
def test_an_hdr_clip(tmp_path, clips, transfer, number):
    path = tmp_path / "clip.mp4"
    ramp = np.repeat(np.linspace(0, 48000, 320)[None, :, None], 3, axis=2)
    data = np.repeat(ramp, 192, axis=0).astype("<u2").tobytes() * 2
    source = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "320x192", "-r", "25", "-i", "-"]
    filters = "scale=out_color_matrix=bt2020:out_range=limited,format=yuv420p10le,"
    filters += f"setparams=colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    codec = ["-c:v", "libx265", "-x265-params", "log-level=error", "-crf", "4"]
    clips.ffmpeg(*source, "-vf", filters, *codec, path, data=data)
    assert probe_video(path).colour_transfer == number
    with VideoReader(path) as reader:
        frame = next(iter(reader)).astype(int)
    expected = hdr.tone_map(ramp.astype(np.uint16), transfer=number)[0].astype(int)
    middle = frame[96, 8:-8]
    assert np.abs(middle - expected[8:-8]).max() <= 3
    assert np.ptp(middle, axis=1).max() <= 2
