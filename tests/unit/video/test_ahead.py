"""Working ahead in a thread ends when it is told to, and hides no error."""

import threading

import pytest
from animatediff_v2v.pipeline.video import VideoReader
from animatediff_v2v.pipeline.video.ahead import Ahead


def counting(made, *, end=None, error=None):
    try:
        number = 0
        while end is None or number < end:
            made.append(number)
            yield number
            number += 1
        if error is not None:
            raise error
    finally:
        made.append("closed")


def test_all_items_come_in_order():
    made = []
    assert list(Ahead(counting(made, end=100), depth=3)) == list(range(100))
    assert made[-1] == "closed"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_comes_after_the_items_before_it(error):
    seen = []
    with pytest.raises(type(error)):
        for item in Ahead(counting([], end=5, error=error), depth=2):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_stopping_ends_the_thread_and_the_generator(taken):
    made = []
    ahead = Ahead(counting(made), depth=2)
    for item, _ in zip(ahead, range(taken), strict=False):
        assert item <= taken
    ahead.stop()
    assert made[-1] == "closed"
    assert len(made) <= taken + 2 + 3
    assert not ahead._thread.is_alive()


def test_a_reader_left_half_way_leaves_no_thread(tmp_path, clips):
    path = clips.numbered_clip(tmp_path / "a.mp4", frames=60)
    before = threading.active_count()
    with VideoReader(path) as reader:
        for _ in reader:
            break
    assert threading.active_count() == before


def test_stopping_from_another_thread_wakes_the_reader():
    ahead = Ahead(counting([]), depth=2)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(ahead), daemon=True)
    reader.start()
    ahead.stop()
    reader.join(timeout=10)
    assert not reader.is_alive()
