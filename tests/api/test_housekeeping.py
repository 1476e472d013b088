"""The retention of data by age and size, and deadlines that do not depend on the wall clock."""

from __future__ import annotations

import asyncio
import json
import os
import time
import tracemalloc

import pytest
from animatediff_v2v.api.housekeeping import SECONDS_PER_DAY, Housekeeper
from animatediff_v2v.api.intake.inputs import Inputs
from animatediff_v2v.api.intake.loras import LoraShelf
from animatediff_v2v.api.intake.room import Room
from animatediff_v2v.api.intake.uploads import UploadLimits, UploadStore
from animatediff_v2v.api.net.fetching import FetchLimits
from animatediff_v2v.api.queue.admission import Admission
from animatediff_v2v.api.queue.local_executor import ModelFolders
from animatediff_v2v.api.queue.outbox import Delivery
from animatediff_v2v.api.queue.outputs import Output
from animatediff_v2v.api.queue.records import NewRequest
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.queue.webhooks import WebhookSender
from animatediff_v2v.api.settings import Settings, load_settings
from animatediff_v2v.api.storage.clock import SteadyClock
from animatediff_v2v.api.storage.data_folder import INPUT_NAME
from animatediff_v2v.api.storage.disk import StorageFull
from animatediff_v2v.api.wire.endpoints import ENDPOINTS
from animatediff_v2v.api.wire.outcome import Answer
from animatediff_v2v.api.wire.problems import RequestRefused, validation_answer
from animatediff_v2v.api.wire.schemas import LONGEST_URL
from animatediff_v2v.pipeline import AnimateDiffV2VError
from pydantic import ValidationError

from .parts import ENDPOINT, Executor, Queue

DONE = Answer(200, {})
ID = "01234567-89ab-cdef-0123-4567{:08x}"


class House:
    """A housekeeper, and finished requests with videos of 100 bytes for it to keep."""

    def __init__(self, folder, *, is_comfyui=False, **settings):
        self.folder, self.settings = folder, Settings(**settings)
        self.store = Store(folder / "api.sqlite")
        self.now = self.store.now()
        self.store._now = lambda: self.now
        self.outputs = folder / "outputs"
        self.outputs.mkdir(exist_ok=True)
        uploads = UploadStore(folder / "uploads", clock=self.store.now)
        self.keeper = Housekeeper(
            settings=self.settings,
            store=self.store,
            uploads=uploads,
            loras=LoraShelf(
                ModelFolders(folder / "models"), uploads, FetchLimits(), folder=folder / "loras"
            ),
            webhooks=WebhookSender(self.store.outbox, None, clock=lambda: self.now),
            outputs=None if is_comfyui else self.outputs,
        )

    def finished(self, number, *, name="{}.mp4"):
        id_ = ID.format(number)
        request = NewRequest(
            id=id_, endpoint_id=ENDPOINT, owner="me", input={"prompt": "x"}, origin="http://h"
        )
        self.store.submit(request, most=10**6, most_of_owner=10**6)
        path = self.outputs / name.format(id_)
        path.write_bytes(b"x" * 100)
        token = self.store.outputs.add(id_, Output(path, "video/mp4"))
        self.store.finish(id_, DONE)
        self.now += 1
        return id_, path, token

    def sweep(self):
        self.keeper.sweep()


def test_videos_are_removed_with_their_requests(tmp_path):
    house = House(tmp_path, keep_days=10)
    old, old_path, _ = house.finished(1)
    house.now += 9 * SECONDS_PER_DAY
    new, new_path, token = house.finished(2)
    house.sweep()
    assert old_path.exists()
    house.now += 2 * SECONDS_PER_DAY
    house.sweep()
    assert (house.store.get(old), old_path.exists()) == (None, False)
    assert house.store.get(new) and new_path.exists() and house.store.outputs.find(token)


@pytest.mark.parametrize("is_comfyui", [True, False])
def test_in_comfyuis_folder_only_own_files_are_removed(tmp_path, is_comfyui):
    house = House(tmp_path, keep_days=1, is_comfyui=is_comfyui)
    _, ours, _ = house.finished(1, name="{}_00001_.mp4")
    _, renamed, _ = house.finished(2, name="best of {}.mp4")
    holiday, stray = house.outputs / "holiday.mp4", house.outputs / f"{ID.format(9)}.mp4"
    for path in (holiday, stray):
        path.write_bytes(b"x")
        os.utime(path, (1, 1))
    house.now += 2 * SECONDS_PER_DAY
    house.sweep()
    assert not ours.exists()
    assert renamed.exists() and holiday.exists()
    # A video of no request is only removed if the folder is the service's own.
    assert stray.exists() == is_comfyui


def test_the_oldest_videos_are_removed_beyond_the_share(tmp_path):
    share = 350
    house = House(tmp_path, max_disk_bytes=2**20, disk_shares={"outputs": share / 2**20})
    made = [house.finished(number) for number in range(6)]
    house.sweep()
    assert [path.exists() for _, path, _ in made] == [False] * 3 + [True] * 3
    assert [house.store.outputs.find(token) is not None for *_, token in made] == [False] * 3 + [
        True
    ] * 3
    assert all(house.store.get(id_) for id_, *_ in made)


def test_the_oldest_requests_are_removed_from_a_full_database(tmp_path):
    house = House(tmp_path)
    for number in range(600):
        house.finished(number)
    house.store._max_bytes = house.store._database.size() - 10_000
    assert house.store.is_large()
    with pytest.raises(RequestRefused):
        house.finished(1000)
    house.sweep()
    assert not house.store.is_large()
    assert house.store.get(ID.format(0)) is None and house.store.get(ID.format(599))
    house.finished(1001)


def test_a_file_that_cannot_be_removed_does_not_stop_the_sweep(tmp_path, caplog, monkeypatch):
    house = House(tmp_path, keep_days=1)
    id_, *_ = house.finished(1)
    house.now += 2 * SECONDS_PER_DAY

    def fail(_uploads):
        raise PermissionError("not yours")

    monkeypatch.setattr(UploadStore, "sweep", fail)
    house.sweep()
    assert house.store.get(id_) is None
    assert "Some old files could not be removed: not yours" in caplog.text


# --- the budget --------------------------------------------------------------------------------


def test_shares_are_of_one_budget(tmp_path):
    (tmp_path / "api.json").write_text(
        '{"max_disk_bytes": 10000000, "disk_shares": {"loras": 0.1}}'
    )
    settings = load_settings(tmp_path)
    kinds = ("uploads", "inputs", "outputs", "loras", "database")
    assert [settings.share(kind) for kind in kinds] == [2e6, 2e6, 3.5e6, 1e6, 5e5]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"outputs": 0.9}, "the shares add up to 1.55; the limit is 1"),
        ({"outputs": 0}, "greater than 0"),
        ({"videos": 0.1}, "there is no setting disk_shares.videos"),
    ],
)
def test_invalid_shares_are_refused(tmp_path, shares, said):
    (tmp_path / "api.json").write_text(json.dumps({"disk_shares": shares}))
    with pytest.raises(AnimateDiffV2VError) as error:
        load_settings(tmp_path)
    assert said in str(error.value)


def test_input_videos_have_a_share(tmp_path):
    executor = Executor(tmp_path)
    executor.input_folder.mkdir()
    (executor.input_folder / "holiday.mp4").write_bytes(b"x" * 2**21)
    settings = Settings(max_disk_bytes=2**20, disk_shares={"inputs": 0.001})
    share = settings.share("inputs")
    room = Room(executor.input_folder, INPUT_NAME, most_bytes=share)
    inputs = Inputs(settings, executor, None, None, None, room)
    uri = "data:video/mp4;base64," + "AAAA" * 200
    name = asyncio.run(inputs.unpack(uri))
    with pytest.raises(RequestRefused) as error:
        asyncio.run(inputs.unpack(uri))
    assert error.value.answer.status == 507
    (executor.input_folder / name).unlink()
    name = asyncio.run(inputs.unpack(uri))
    (executor.input_folder / name).unlink()
    too_large = "data:video/mp4;base64," + "AAAA" * 400
    with pytest.raises(RequestRefused) as error:  # it never will have room
        asyncio.run(inputs.unpack(too_large))
    assert error.value.answer.body["detail"][0]["type"] == "file_too_large"


def test_videos_being_downloaded_count(tmp_path):
    executor = Executor(tmp_path)
    executor.input_folder.mkdir()
    room = Room(executor.input_folder, INPUT_NAME, most_bytes=2_000)
    inputs = Inputs(Settings(), executor, None, None, None, room)
    uri = "data:video/mp4;base64," + "AAAA" * 200

    async def test():
        return await asyncio.gather(*(inputs.unpack(uri) for _ in range(9)), return_exceptions=True)

    outcomes = asyncio.run(test())
    assert {type(each) for each in outcomes} == {str, StorageFull}
    assert sum(path.stat().st_size for path in executor.input_folder.iterdir()) <= 2_000


def test_a_cancelled_download_frees_its_room(tmp_path):
    async def test():
        room = Room(tmp_path, INPUT_NAME, most_bytes=10)

        async def fetch():
            async with room.granted(10):
                await asyncio.Event().wait()

        task = asyncio.create_task(fetch())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with room.granted(20) as most:
            assert most == 10

    asyncio.run(test())


def test_old_webhooks_are_removed_while_the_server_runs(tmp_path):
    house = House(tmp_path)
    outbox, database = house.store.outbox, house.store._database

    def add(name):
        with database.transaction() as connection:
            outbox.insert(connection, Delivery(name, "me", "http://h/", b"{}"), now=house.now)

    for name in "abc":
        add(name)
    outbox.attempted("a", 1, due=None)
    house.now += 31 * SECONDS_PER_DAY
    outbox.attempted("b", 1, due=house.now)
    add("d")
    outbox.attempted("d", 1, due=None)
    house.sweep()
    left = [row[0] for row in database.rows("SELECT request_id FROM webhooks ORDER BY request_id")]
    assert left == ["b", "c", "d"]  # two are still to be delivered, one is new


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=list(ENDPOINTS))
def test_no_url_is_longer_than_urls_are(endpoint):
    def asked(url):
        return endpoint.input.model_validate({"video_url": url, "prompt": "x"})

    longest = "http://h/" + "a" * (LONGEST_URL - 9)
    asked(longest)
    asked("data:video/mp4;base64," + "A" * 100_000)
    with pytest.raises(ValidationError) as error:
        asked(longest + "a")
    (detail,) = validation_answer(error.value).body["detail"]
    assert (detail["loc"], detail["type"]) == (["body", "video_url"], "sequence_too_long")
    assert detail["ctx"] == {"max_length": LONGEST_URL}
    assert "input" not in detail


def test_an_input_that_is_too_long_is_not_stored(tmp_path):
    store = Store(tmp_path / "api.sqlite")
    long = {"prompt": "x" * 2**21}
    request = NewRequest(id="1", endpoint_id=ENDPOINT, owner="me", input=long, origin="http://h")
    with pytest.raises(ValueError, match="bytes long; the limit is 1048576"):
        store.submit(request, most=1, most_of_owner=1)
    store.close()


# --- uploads -----------------------------------------------------------------------------------


def foreign_directory(path):
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"expires": "never"}'),
        lambda path: path.write_text(
            '{"content_type": 1, "file_name": "a", "secret_hash": "", "expires": 9e99}'
        ),
        lambda path: path.write_text("[" * 100_000),
        foreign_directory,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["empty", "bytes", "list", "fields", "types", "deep", "folder", "link"],
)
def test_a_damaged_entry_does_not_affect_other_uploads(tmp_path, spoil):
    store = UploadStore(tmp_path / "uploads", limits=UploadLimits(kept_seconds=3600))
    first, *_ = store.initiate(content_type="video/mp4", file_name="a.mp4")
    damaged = tmp_path / "uploads" / f"{first}.json"
    damaged.unlink()
    spoil(damaged)
    for name in ("thesis.txt", "folder"):
        spoil(tmp_path / "uploads" / name)
    second, *_, path = store.initiate(content_type="video/mp4", file_name="b.mp4")
    store.sweep()
    assert store.resolve(f"http://h/fal/uploads/{first}/a.mp4") is None
    assert store.find(first) is None
    assert store._entry(second) is not None and path
    assert os.path.lexists(tmp_path / "uploads" / "thesis.txt")
    assert os.path.lexists(damaged), "it may be whole: it is kept as long as it could be"


def test_a_damaged_entry_is_removed_when_it_would_have_expired(tmp_path):
    store = UploadStore(tmp_path / "uploads", limits=UploadLimits(kept_seconds=3600))
    first, *_ = store.initiate(content_type="video/mp4", file_name="a.mp4")
    damaged = tmp_path / "uploads" / f"{first}.json"
    damaged.write_bytes(b"")
    old = time.time() - 3700
    os.utime(damaged, (old, old))
    store.sweep()
    assert not damaged.exists()


# --- the queue ---------------------------------------------------------------------------------


def test_only_a_few_requests_have_their_files_before_they_run(tmp_path):
    async def test():
        queue = Queue(tmp_path, fetched_ahead=3)
        async with queue.running():
            queue.executor.hold = asyncio.Event()
            requests = [await queue.submit() for _ in range(20)]
            await queue.until(lambda: len(queue.prepared) == 4)
            await asyncio.sleep(0.1)
            assert queue.prepared == [each.id for each in requests[:4]]
            assert len(list(queue.executor.input_folder.iterdir())) == 4
            assert queue.runner.queue_position(requests[10]) == 6  # behind those that wait here
            queue.executor.hold.set()
            for request in requests:
                assert (await queue.end_of(request)).answer.is_ok
            assert queue.executor.ran == [each.id for each in requests]

    asyncio.run(test())


def test_low_priority_files_do_not_delay_normal_requests(tmp_path):
    async def test():
        queue = Queue(tmp_path, fetched_ahead=2)
        async with queue.running():
            queue.executor.hold = asyncio.Event()
            low = [await queue.submit(is_low_priority=True) for _ in range(6)]
            await queue.until(lambda: len(queue.prepared) == 3)
            urgent = await queue.submit()
            await queue.until(lambda: urgent.id in queue.prepared)
            queue.executor.hold.set()
            for request in (*low, urgent):
                assert (await queue.end_of(request)).answer.is_ok

    asyncio.run(test())


def test_a_cancelled_request_leaves_the_admission():
    async def test():
        admission = Admission(1)
        await admission.enter("a", (False, 1, 1))
        waiting = [
            asyncio.create_task(admission.enter(name, (False, 1, place)))
            for place, name in enumerate("bc", 2)
        ]
        await asyncio.sleep(0)
        waiting[0].cancel()
        admission.leave("a")
        admission.leave("a")
        await asyncio.wait_for(waiting[1], 5)

    asyncio.run(test())


def test_memory_is_flat(tmp_path):
    """The queue forgets what has ended; benchmarks/api_memory.py measures a whole server."""

    async def test():
        queue = Queue(tmp_path)
        async with queue.running():
            sizes = []
            for _ in range(4):
                requests = [
                    await queue.submit(start_before=queue.store.now() + 10**6) for _ in range(50)
                ]
                for request in requests:
                    await queue.end_of(request)
                await queue.until(lambda: not queue.runner._unfinished)
                for each in (queue.told, queue.prepared, queue.executor.ran):
                    each.clear()
                queue.executor._stops.clear()
                del requests, request
                sizes.append(tracemalloc.get_traced_memory()[0])
            return sizes

    tracemalloc.start()
    try:
        sizes = asyncio.run(test())
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 100_000, sizes


# --- the clock ---------------------------------------------------------------------------------

DAY = 86_400


class Clocks:
    """A wall clock that can be set, and a monotonic one."""

    def __init__(self, monkeypatch):
        self.wall, self.steady = 1.8e9, 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr("animatediff_v2v.api.storage.clock.time.monotonic", lambda: self.steady)

    def pass_(self, seconds, *, jump=0):
        self.wall += seconds + jump
        self.steady += seconds


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_setting_the_clock_moves_no_deadline(tmp_path, monkeypatch, jump):
    clocks = Clocks(monkeypatch)
    store = Store(tmp_path / "api.sqlite")
    limits = UploadLimits(write_seconds=600, kept_seconds=600)
    uploads = UploadStore(tmp_path / "uploads", limits=limits, clock=store.now)
    upload_id, *_ = uploads.initiate(content_type="video/mp4", file_name="a.mp4")
    request = NewRequest(id="1", endpoint_id=ENDPOINT, owner="", input={}, origin="")
    stored = store.submit(request, most=1, most_of_owner=1)
    store.start("1")
    clocks.pass_(10, jump=jump)
    assert uploads._entry(upload_id) is not None
    store.finish("1", DONE)
    done = store.get("1")
    assert done.finished - stored.created == pytest.approx(10, abs=0.01)
    assert done.inference_seconds == pytest.approx(10, abs=0.01)
    assert store.finished_before(store.now() - 60, most=1) == []
    clocks.pass_(595)
    assert uploads._entry(upload_id) is None
    assert store.finished_before(store.now() - 60, most=1) == ["1"]
    store.close()


def test_the_clock_continues_after_being_set_back_between_runs(tmp_path, monkeypatch):
    clocks = Clocks(monkeypatch)
    store = Store(tmp_path / "api.sqlite")
    before = store.now()
    request = NewRequest(id="1", endpoint_id=ENDPOINT, owner="", input={}, origin="")
    store.submit(request, most=1, most_of_owner=1)
    store.close()
    clocks.pass_(10, jump=-DAY)
    again = Store(tmp_path / "api.sqlite")
    assert again.now() == pytest.approx(before, abs=0.01)
    again.close()


def test_the_steady_clock_advances(monkeypatch):
    clocks = Clocks(monkeypatch)
    clock = SteadyClock()
    assert clock() == pytest.approx(1.8e9)
    clocks.pass_(5, jump=-DAY)
    assert clock() == pytest.approx(1.8e9 + 5)


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_request_waits_until_its_start_timeout(tmp_path, monkeypatch, jump):
    wall = time.time

    async def test():
        queue = Queue(tmp_path)
        async with queue.running():
            queue.executor.hold = asyncio.Event()
            await queue.submit()
            patient = await queue.submit(start_before=queue.store.now() + 3600)
            hurried = await queue.submit(start_before=queue.store.now() + 0.3)
            monkeypatch.setattr(time, "time", lambda: wall() + jump)
            assert (await queue.end_of(hurried)).answer.status == 504
            assert queue.store.get(patient.id).state == "queued"
            queue.executor.hold.set()
            ended = await queue.end_of(patient)
            assert ended.answer.is_ok and ended.inference_seconds < 60

    asyncio.run(test())
