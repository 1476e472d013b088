"""A disk that is full, and has room again: nothing is lost, and nothing waits forever."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys

import pytest
from animatediff_v2v.api.queue import patient_writer, queue_runner
from animatediff_v2v.api.queue.executor import WorkerDied
from animatediff_v2v.api.storage.disk import StorageFull, is_disk_full
from animatediff_v2v.api.wire.problems import RequestRefused, error_response
from animatediff_v2v.pipeline import AnimateDiffV2VError

from .parts import Queue

SAID = "out.mp4 was not written: the disk is full; free some space or choose another folder."


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(patient_writer, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patient_writer, "LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(queue_runner, "LONGEST_PAUSE_SECONDS", 0.02)


def run(queue, test):
    async def inner():
        async with queue.running():
            return await test(queue)

    return asyncio.run(inner())


# --- what is written ---------------------------------------------------------------------------


def test_a_commit_that_failed_does_not_block_the_next_one(tmp_path):
    async def test(queue):
        queue.disk.is_full = True
        with pytest.raises(StorageFull) as error:
            await queue.submit()
        assert error.value.answer.status == 507
        assert error.value.answer.headers["X-Fal-Retryable"] == "true"
        assert error.value.answer.body["error_type"] == "storage_full"
        queue.disk.is_full = False
        assert (await queue.end_of(await queue.submit())).answer.is_ok

    run(Queue(tmp_path), test)


def test_a_job_continues_on_a_full_disk_and_its_end_is_stored_later(tmp_path):
    async def test(queue):
        queue.executor.hold = asyncio.Event()
        request = await queue.submit()
        await queue.until(lambda: queue.executor.ran)
        queue.disk.is_full = True
        queue.executor.hold.set()
        await asyncio.sleep(0.2)
        assert queue.store.get(request.id).state == "running"
        assert queue.told == []
        queue.disk.is_full = False
        ended = await queue.end_of(request)
        assert ended.answer.is_ok and ended.attempts == 1
        await queue.until(lambda: queue.told == [request.id])
        assert queue.executor.ran == [request.id]

    run(Queue(tmp_path), test)


def test_a_start_that_could_not_be_stored_is_stored_with_the_end(tmp_path):
    async def test(queue):
        queue.executor.hold = asyncio.Event()
        first, second = await queue.submit(), await queue.submit()
        await queue.until(lambda: queue.store.get(first.id).state == "running")
        queue.disk.is_full = True
        queue.executor.hold.set()
        await queue.until(lambda: len(queue.executor.ran) == 2)
        queue.disk.is_full = False
        for request in (first, second):
            ended = await queue.end_of(request)
            assert ended.answer.is_ok
            assert 0 <= ended.inference_seconds < 20

    run(Queue(tmp_path), test)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "waiting"])
def test_cancelling_helps(tmp_path, is_running):
    async def test(queue):
        queue.executor.hold = asyncio.Event()
        requests = [await queue.submit() for _ in range(2)]
        await queue.until(lambda: queue.executor.ran)
        request = requests[0 if is_running else 1]
        queue.disk.is_full = True
        assert await queue.runner.cancel(request.id) == "CANCELLATION_REQUESTED"
        queue.disk.is_full = False
        assert (await queue.end_of(request)).answer.status == 499
        queue.executor.hold.set()
        assert (await queue.end_of(requests[1 if is_running else 0])).answer.is_ok

    run(Queue(tmp_path), test)


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota"), AnimateDiffV2VError(SAID)],
    ids=["disk", "quota", "said"],
)
def test_a_video_that_could_not_be_written_is_made_again(tmp_path, error):
    async def test(queue):
        queue.executor.errors = [error, error]
        request = await queue.submit()
        assert (await queue.end_of(request)).answer.is_ok
        assert queue.executor.ran == [request.id] * 3
        assert "the disk is full; the request waits for room" in queue.messages(request)

    run(Queue(tmp_path), test)


def test_a_video_that_never_fits_fails_in_the_end(tmp_path):
    async def test(queue):
        queue.executor.errors = [AnimateDiffV2VError(SAID)] * 3
        request = await queue.submit()
        answer = (await queue.end_of(request)).answer
        assert (answer.status, answer.error_type) == (507, "storage_full")

    run(Queue(tmp_path), test)


def test_a_download_that_failed_on_a_full_disk_is_repeated(tmp_path):
    """Other requests, which need no room, run first."""

    async def test(queue):
        queue.prepare_errors = [StorageFull()] * 4
        requests = [await queue.submit() for _ in range(3)]
        for request in requests:
            assert (await queue.end_of(request)).answer.is_ok

    run(Queue(tmp_path, fetched_ahead=1), test)


@pytest.mark.parametrize(
    "error", [AnimateDiffV2VError("The prompt is wrong."), OSError(errno.EACCES, "not yours")]
)
def test_other_errors_are_not_a_full_disk(tmp_path, error):
    async def test(queue):
        queue.executor.errors = [error]
        assert not (await queue.end_of(await queue.submit())).answer.is_ok
        assert len(queue.executor.ran) == 1

    run(Queue(tmp_path), test)


def test_a_name_with_the_words_of_a_full_disk_is_no_full_disk():
    assert not is_disk_full(RequestRefused(error_response(422, SAID, "file_download_error")))
    assert is_disk_full(AnimateDiffV2VError(SAID))


# --- workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("deaths", "status"), [(1, 200), (2, 500)])
def test_a_request_runs_once_more_after_its_worker_died(tmp_path, deaths, status):
    async def test(queue):
        queue.executor.errors = [WorkerDied("gone")] * deaths
        request = await queue.submit()
        answer = (await queue.end_of(request)).answer
        assert answer.status == status
        assert queue.executor.ran == [request.id] * 2
        assert answer.headers.get("X-Fal-Retryable") == (None if status == 200 else "true")

    run(Queue(tmp_path), test)


# --- a real one --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    if sys.platform != "linux":
        pytest.skip("file systems in memory are mounted on Linux alone")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this user may mount nothing: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_disk_of_four_mebibytes(small_disk):
    """It fills twice while requests run; all end once, with a video each."""

    async def test(queue):
        requests, refused = [], 0
        for round_ in range(2):
            requests += [await queue.submit() for _ in range(20)]
            queue.executor.hold = asyncio.Event()
            filler = small_disk / f"filler{round_}"
            with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            queue.executor.hold.set()
            for _ in range(20):
                try:
                    requests.append(await queue.submit())
                except StorageFull:
                    refused += 1
            await asyncio.sleep(0.1)
            filler.unlink()
        for request in requests:
            assert (await queue.end_of(request)).answer.is_ok
        await queue.until(lambda: len(queue.told) == len(requests))
        assert sorted(queue.told) == sorted(each.id for each in requests)
        made = {path.name for path in queue.executor.output_folder.iterdir()}
        assert made == {f"{each.id}.mp4" for each in requests}
        assert refused > 0
        assert not list(queue.executor.input_folder.iterdir())

    run(Queue(small_disk), test)
