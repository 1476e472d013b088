"""A server that ends while a request runs: the request runs again, at most three times in all."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from animatediff_v2v.api.intake import inputs
from animatediff_v2v.api.intake.inputs import Inputs
from animatediff_v2v.api.queue.queue_runner import MOST_ATTEMPTS
from animatediff_v2v.api.settings import Settings

from .parts import WAIT_SECONDS, Queue


async def life(queue, act):
    """One run of the server, which ends while its jobs are on hold."""
    queue.executor.hold = asyncio.Event()
    queue.executor._turn = asyncio.Lock()
    async with queue.running():
        return await act()


@pytest.mark.parametrize("interruptions", [1, 2, 3])
def test_running_requests_run_again(tmp_path, interruptions):
    queue = Queue(tmp_path)

    async def begin():
        requests = [await queue.submit() for _ in range(6)]
        await queue.until(lambda: queue.store.get(requests[0].id).attempts == 1)
        return requests

    requests = asyncio.run(life(queue, begin))

    for number in range(2, interruptions + 1):

        async def interrupted(number=number):
            await queue.until(lambda: queue.store.get(requests[0].id).attempts == number)

        asyncio.run(life(queue, interrupted))

    async def end():
        queue.executor.hold.set()
        ended = [await queue.end_of(each) for each in requests]
        await queue.until(lambda: len(queue.told) == len(requests))
        return ended

    queue.executor.ran.clear()
    first, *others = asyncio.run(life(queue, end))
    runs_again = interruptions < MOST_ATTEMPTS
    assert (queue.executor.ran[0] == requests[0].id) is runs_again
    assert queue.executor.ran.count(requests[0].id) == runs_again
    assert all(each.answer.is_ok for each in others)
    if interruptions < MOST_ATTEMPTS:
        assert first.answer.is_ok
        assert first.attempts == interruptions + 1
    else:
        assert first.answer.error_type == "runner_disconnected"
        assert first.answer.headers["X-Fal-Retryable"] == "true"
        assert first.attempts == MOST_ATTEMPTS
    assert sorted(queue.told) == sorted(each.id for each in requests)


@pytest.mark.parametrize("slow", ["left", "prepare"])
def test_interrupted_requests_run_before_waiting_ones(tmp_path, slow):
    """However long it takes to look for a finished video, or to fetch the files again."""
    queue = Queue(tmp_path)
    first = []

    async def begin():
        requests = [await queue.submit(is_low_priority=index == 0) for index in range(3)]
        await queue.until(lambda: queue.store.get(requests[0].id).attempts == 1)
        return requests

    async def prepare(request):
        if slow == "prepare" and request.id == first[0]:
            await asyncio.sleep(0.3)
        return await Queue._prepare(queue, request)

    def recover_output(request_id):
        if slow == "left" and request_id == first[0]:
            time.sleep(0.3)

    async def end():
        queue.executor.hold.set()
        requests.append(await queue.submit())
        for request in requests:
            await queue.end_of(request)

    requests = asyncio.run(life(queue, begin))
    first.append(requests[0].id)
    queue._prepare, queue.executor.recover_output = prepare, recover_output
    queue.executor.ran.clear()
    asyncio.run(life(queue, end))
    assert queue.executor.ran == [each.id for each in requests]


def test_a_request_recovered_at_a_restart_delays_no_other(tmp_path):
    """It waits for a full disk before it can end; the others run."""
    queue = Queue(tmp_path)

    async def begin():
        requests = [await queue.submit() for _ in range(2)]
        await queue.until(lambda: queue.store.get(requests[0].id).attempts == 1)
        (queue.executor.output_folder / f"{requests[0].id}.mp4").write_bytes(b"whole")
        return requests

    first, second = asyncio.run(life(queue, begin))

    async def publish(request, made):
        if request.id == first.id:
            await asyncio.Event().wait()
        return await Queue._publish(queue, request, made)

    async def end():
        queue.executor.hold.set()
        return await queue.end_of(second)

    queue._publish = publish
    assert asyncio.run(life(queue, end)).answer.is_ok


def test_a_complete_video_is_not_made_again(tmp_path):
    queue = Queue(tmp_path)

    async def begin():
        request = await queue.submit()
        await queue.until(lambda: queue.executor.ran == [request.id])
        (queue.executor.output_folder / f"{request.id}.mp4").write_bytes(b"whole")
        return request

    request = asyncio.run(life(queue, begin))
    done = asyncio.run(life(queue, lambda: queue.end_of(request)))
    assert done.answer.is_ok
    assert queue.executor.ran == [request.id]


def test_a_cancelled_request_does_not_run_again(tmp_path):
    queue = Queue(tmp_path)

    async def begin():
        request = await queue.submit()
        await queue.until(lambda: queue.executor.ran)
        queue.store.cancel(request.id)
        return request

    request = asyncio.run(life(queue, begin))
    assert asyncio.run(life(queue, lambda: queue.end_of(request))).answer.status == 499
    assert len(queue.executor.ran) == 1


@pytest.mark.parametrize("came_within_the_request", [True, False])
def test_a_stop_while_a_video_is_checked_keeps_the_only_copy(
    tmp_path, monkeypatch, came_within_the_request
):
    queue = Queue(tmp_path)
    video = queue.executor.input_folder / "video.mp4"

    looks, has_stopped = threading.Event(), threading.Event()

    class HeldInputs(Inputs):
        def _models(self, *_asked):
            return {}

        async def _video(self, *_asked):
            return video

    def check_video(*_asked):
        looks.set()
        has_stopped.wait(WAIT_SECONDS)

    async def stop():
        has_stopped.set()

    async def begin():
        video.write_bytes(b"video")
        await queue.submit(video_file=video.name if came_within_the_request else None)
        await queue.until(looks.is_set)

    monkeypatch.setattr(inputs, "check_video", check_video)
    queue._prepare = HeldInputs(Settings(), queue.executor, None, None, None, None).prepare
    queue.executor.stop = stop
    asyncio.run(life(queue, begin))
    assert video.is_file() is came_within_the_request
