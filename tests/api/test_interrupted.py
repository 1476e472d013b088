"""A server that ends while a request runs: it runs again, three times in all at most."""

from __future__ import annotations

import asyncio

import pytest
from animatediff_v2v.api.queue_runner import MOST_ATTEMPTS

from .parts import Queue


async def life(queue, act):
    """One life of the server, which ends while what runs is held."""
    queue.executor.hold = asyncio.Event()
    queue.executor._turn = asyncio.Lock()
    async with queue.running():
        return await act()


@pytest.mark.parametrize("interruptions", [1, 2, 3])
def test_what_ran_runs_again(tmp_path, interruptions):
    queue = Queue(tmp_path)

    async def begin():
        requests = [await queue.submit() for _ in range(1)]
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

    first, *others = asyncio.run(life(queue, end))
    assert all(each.answer.is_ok for each in others)
    if interruptions < MOST_ATTEMPTS:
        assert first.answer.is_ok
        assert first.attempts == interruptions + 1
    else:
        assert first.answer.error_type == "runner_disconnected"
        assert first.answer.headers["X-Fal-Retryable"] == "true"
        assert first.attempts == MOST_ATTEMPTS
    assert sorted(queue.told) == sorted(each.id for each in requests)


def test_a_video_that_was_whole_is_not_made_again(tmp_path):
    queue = Queue(tmp_path)

    async def begin():
        request = await queue.submit()
        await queue.until(lambda: queue.store.get(request.id).state == "running")
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
        await queue.until(lambda: queue.store.get(request.id).state == "running")
        queue.store.cancel(request.id)
        return request

    request = asyncio.run(life(queue, begin))
    assert asyncio.run(life(queue, lambda: queue.end_of(request))).answer.status == 499
    assert len(queue.executor.ran) == 1
