"""Webhooks: contents, retries, receivers, and restarts."""

import asyncio
import builtins
import json
import sqlite3
import threading
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from animatediff_v2v.api.http.jwks import jwks_routes
from animatediff_v2v.api.net import addresses
from animatediff_v2v.api.queue import webhooks
from animatediff_v2v.api.queue.outbox import SCHEMA, Outbox
from animatediff_v2v.api.queue.signing import FILE_NAME, Signer
from animatediff_v2v.api.queue.webhooks import WebhookSender, delivery_of
from animatediff_v2v.api.storage.database import Database
from animatediff_v2v.api.wire.outcome import Answer
from animatediff_v2v.api.wire.problems import CANCELLED, RequestRefused
from animatediff_v2v.pipeline import AnimateDiffV2VError

from ..clients.verifier import is_genuine

OUTPUT = Answer(200, {"video": {"url": "http://h/v.mp4"}, "seed": 1})
WAIT_SECONDS = 10


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Signer.load(tmp_path_factory.mktemp("key"))


class Receiver:
    """A receiver that answers as configured, and keeps the webhooks that it gets."""

    def __init__(self, *statuses, delay=0.0, location=None):
        self.statuses, self.delay, self.location = list(statuses), delay, location
        self.received = []

    async def answer(self, request):
        self.received.append((dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay)
        status = self.statuses.pop(0) if self.statuses else 200
        headers = {"Location": self.location} if self.location else {}
        return web.Response(status=status, headers=headers)

    async def until(self, count):
        for _ in range(WAIT_SECONDS * 100):
            if len(self.received) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.received)} webhooks came, and not {count}")


@asynccontextmanager
async def served(receiver, signer):
    app = web.Application()
    app.router.add_post("/hook", receiver.answer)
    app.router.add_routes(jwks_routes(signer))
    async with TestServer(app) as server:
        yield server


def sender(folder, signer, **options):
    database = Database(folder / "api.sqlite", schema=SCHEMA, added={}, version=1)
    outbox = Outbox(database)
    return WebhookSender(outbox, signer, **({"allow_private_targets": True} | options))


async def deliver(sender, url, *answers, request_id="r"):
    """Add answers to the outbox, as the store does, and wake the sender."""
    for index, answer in enumerate(answers):
        name = request_id if len(answers) == 1 else f"{request_id}{index}"
        delivery = delivery_of(request_id=name, user_id="me", url=str(url), answer=answer)
        with sender._outbox._database.transaction() as connection:
            sender._outbox.insert(connection, delivery, now=sender._clock())
    sender.wake()


def rows(folder):
    with sqlite3.connect(folder / "api.sqlite") as database:
        return database.execute(
            "SELECT request_id, attempts, due IS NULL FROM webhooks ORDER BY request_id"
        ).fetchall()


async def until_over(folder, count=1):
    for _ in range(WAIT_SECONDS * 100):
        if sum(over for _, _, over in rows(folder)) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(rows(folder))


# --- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OUTPUT, {"status": "OK", "payload": OUTPUT.body}),
        (
            CANCELLED,
            {
                "status": "ERROR",
                "error": "Invalid status code: 499",
                "payload": {
                    "detail": "Request was cancelled",
                    "error_type": "request_cancelled",
                },
            },
        ),
        (
            Answer(422, {"detail": [{"loc": ["body"], "msg": "no", "type": "value_error"}]}),
            {
                "status": "ERROR",
                "error": "Invalid status code: 422",
                "payload": {"detail": [{"loc": ["body"], "msg": "no", "type": "value_error"}]},
            },
        ),
    ],
    ids=["output", "cancelled", "refused"],
)
def test_the_documented_verifier_accepts_webhooks(tmp_path, signer, answer, said):
    async def run():
        receiver, sending = Receiver(), sender(tmp_path, signer)
        async with served(receiver, signer) as server:
            await sending.start()
            await deliver(sending, server.make_url("/hook"), answer)
            await until_over(tmp_path)
            await sending.stop()
            ((headers, body),) = receiver.received
            assert json.loads(body) == {"request_id": "r", "gateway_request_id": "r"} | said
            assert headers["Content-Type"] == "application/json"
            assert headers["X-Fal-Webhook-Request-Id"] == "r"
            assert headers["X-Fal-Webhook-User-Id"] == "me"
            jwks = str(server.make_url("/.well-known/jwks.json"))

            def believed(headers, body):
                return asyncio.to_thread(is_genuine, headers, body, jwks)

            assert await believed(headers, body)
            assert not await believed(headers, body + b" ")
            for name, value in (("Request-Id", "s"), ("User-Id", "you"), ("Timestamp", "1")):
                assert not await believed(headers | {f"X-Fal-Webhook-{name}": value}, body)

    asyncio.run(run())


def test_the_key_outlives_restarts_and_is_private(tmp_path):
    first, second = Signer.load(tmp_path).jwks(), Signer.load(tmp_path).jwks()
    assert first == second
    (key,) = first["keys"]
    assert (key["kty"], key["crv"], len(key["x"]), key["x"][-1]) == ("OKP", "Ed25519", 44, "=")
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0
    (tmp_path / FILE_NAME).write_text("nonsense")
    assert Signer.load(tmp_path).jwks() != first
    (kept,) = tmp_path.glob(f"{FILE_NAME}.damaged-*")
    assert kept.read_text() == "nonsense"


def test_without_the_package(tmp_path, monkeypatch):
    importing = builtins.__import__

    def imported(name, *arguments, **options):
        if name.startswith("cryptography"):
            raise ImportError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(AnimateDiffV2VError, match="python -m pip install cryptography"):
        Signer.load(tmp_path)
    with pytest.raises(RequestRefused) as error:
        asyncio.run(sender(tmp_path, None).check("https://example.com/"))
    (detail,) = error.value.answer.body["detail"]
    assert (error.value.answer.status, detail["type"]) == (422, "feature_not_supported")
    sentence = "Webhooks are signed, and this server lacks the Python package 'cryptography'"
    assert detail["msg"] == sentence


# --- how often ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "attempts"),
    [
        ([200], 1),
        ([204], 1),
        ([500, 200], 2),
        ([404, 403, 302, 200], 4),
        ([500] * 10, 10),
    ],
)
def test_a_delivery_is_repeated_until_it_succeeds(tmp_path, signer, statuses, attempts):
    async def run():
        receiver, sending = Receiver(*statuses), sender(tmp_path, signer)
        async with served(receiver, signer) as server:
            await sending.start()
            await deliver(sending, server.make_url("/hook"), OUTPUT)
            await until_over(tmp_path)
            await sending.stop()
        assert len(receiver.received) == attempts
        assert rows(tmp_path) == [("r", attempts, 1)]
        assert len({body for _, body in receiver.received}) == 1

    asyncio.run(run())


def test_the_pauses_double(tmp_path, signer, monkeypatch):
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_SECONDS", 14.0)
    now, dues = [1000.0], []

    async def run():
        sending = sender(tmp_path, signer, clock=lambda: now[0])
        await sending.start()
        await deliver(sending, "http://127.0.0.1:9/", OUTPUT)
        for attempt in range(1, 11):
            while (found := rows(tmp_path))[0][1] < attempt:
                await asyncio.sleep(0.01)
            if attempt < 10:
                with sqlite3.connect(tmp_path / "api.sqlite") as database:
                    ((due,),) = database.execute("SELECT due FROM webhooks").fetchall()
                dues.append(due - now[0])
                now[0] = due
                sending.wake()
        assert found == [("r", 10, 1)]
        await sending.stop()

    asyncio.run(run())
    assert dues == [14.0 * 2**attempt for attempt in range(9)]
    assert 7000 < sum(dues) < 7200  # within two hours, as fal's


def test_a_request_is_delivered_once(tmp_path, signer):
    async def run():
        receiver, sending = Receiver(), sender(tmp_path, signer)
        async with served(receiver, signer) as server:
            await sending.start()
            for _ in range(3):
                await deliver(sending, server.make_url("/hook"), OUTPUT)
                await until_over(tmp_path)
            await sending.stop()
        assert len(receiver.received) == 1

    asyncio.run(run())


def test_a_restart_loses_no_webhook(tmp_path, signer):
    async def run():
        receiver = Receiver(500, 500)
        async with served(receiver, signer) as server:
            url = server.make_url("/hook")
            first = sender(tmp_path, signer)
            await first.start()
            await deliver(first, url, OUTPUT, OUTPUT)
            await receiver.until(2)
            await first.stop()
            second = sender(tmp_path, signer)
            await second.start()
            await until_over(tmp_path, 2)
            await second.stop()
        assert rows(tmp_path)[0][2] == rows(tmp_path)[1][2] == 1
        ids = [headers["X-Fal-Webhook-Request-Id"] for headers, _ in receiver.received]
        assert {"r0", "r1"} == set(ids[2:])

    asyncio.run(run())


def test_a_slow_receiver_delays_no_other(tmp_path, signer, monkeypatch):
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 1.0)

    async def run():
        slow, quick, sending = Receiver(delay=60), Receiver(), sender(tmp_path, signer)
        async with served(slow, signer) as slow_server, served(quick, signer) as server:
            await sending.start()
            await deliver(sending, slow_server.make_url("/hook"), OUTPUT, request_id="slow")
            await slow.until(1)
            await deliver(sending, server.make_url("/hook"), *[OUTPUT] * 20)
            await quick.until(20)
            assert len(slow.received) == 1
            await slow.until(2)  # given up after the timeout, and tried again
            await sending.stop()

    asyncio.run(run())


# --- to whom -----------------------------------------------------------------------------------

URL_REFUSED = "fal_webhook must be an http or https URL"
NOT_PUBLIC = (
    " is not on the public internet. The owner of the server can "
    "allow it: private_webhooks in api.json"
)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://example.com/hook?token=1", None),
        ("http://example.com:8080/", None),
        ("http://nowhere.test/", None),  # may be there when the request ends
        ("http://slow.test/", None),
        ("http://localhost:3000/hook", f"fal_webhook cannot be called: localhost{NOT_PUBLIC}"),
        ("http://LOCALHOST./", f"fal_webhook cannot be called: localhost{NOT_PUBLIC}"),
        ("http://app.localhost/", f"fal_webhook cannot be called: app.localhost{NOT_PUBLIC}"),
        ("http://nas.local/", f"fal_webhook cannot be called: nas.local{NOT_PUBLIC}"),
        ("http://inside.test/", f"fal_webhook cannot be called: inside.test{NOT_PUBLIC}"),
        ("http://mixed.test/", f"fal_webhook cannot be called: mixed.test{NOT_PUBLIC}"),
        ("", URL_REFUSED),
        ("example.com/hook", URL_REFUSED),
        ("ftp://example.com/", URL_REFUSED),
        ("file:///etc/passwd", URL_REFUSED),
        ("http://", URL_REFUSED),
        ("http://[bad/", URL_REFUSED),
        ("http://h:0/", URL_REFUSED),
        ("http://h/" + "x" * 4000, URL_REFUSED),
        ("http://127.0.0.1:8188/prompt", f"fal_webhook cannot be called: 127.0.0.1{NOT_PUBLIC}"),
        ("http://[::1]/", f"fal_webhook cannot be called: ::1{NOT_PUBLIC}"),
        ("http://169.254.169.254/", f"fal_webhook cannot be called: 169.254.169.254{NOT_PUBLIC}"),
    ],
)
def test_targets(tmp_path, signer, url, sentence, monkeypatch):
    monkeypatch.setattr(addresses, "_addresses", looked_up)
    monkeypatch.setattr(addresses, "LOOKUP_SECONDS", 0.05)
    checking = sender(tmp_path, signer, allow_private_targets=False)
    if sentence is None:
        asyncio.run(checking.check(url))
        return
    with pytest.raises(RequestRefused) as error:
        asyncio.run(checking.check(url))
    (detail,) = error.value.answer.body["detail"]
    assert error.value.answer.status == 422
    assert (detail["loc"], detail["msg"]) == (["query", "fal_webhook"], sentence)


def looked_up(host):
    """Resolve names as the system would, in a separate thread."""
    assert threading.current_thread() is not threading.main_thread()
    if host == "slow.test":
        time.sleep(0.2)
    if host == "nowhere.test":
        raise OSError("unknown")
    inside = {"inside.test": ["192.168.1.7"], "mixed.test": ["8.8.8.8", "10.0.0.1"]}
    return inside.get(host, ["8.8.8.8"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
def test_no_private_address_is_called(tmp_path, signer, host):
    async def run():
        receiver = Receiver()
        sending = sender(tmp_path, signer, allow_private_targets=False)
        async with served(receiver, signer) as server:
            await sending.start()
            await deliver(sending, f"http://{host}:{server.port}/hook", OUTPUT)
            await until_over(tmp_path)
            await sending.stop()
        assert receiver.received == []
        assert rows(tmp_path) == [("r", 10, 1)]

    asyncio.run(run())


def test_redirects_are_not_followed(tmp_path, signer, monkeypatch):
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")

    async def run():
        inside = Receiver()
        async with served(inside, signer) as private:
            outside = Receiver(*[307] * 9, location=str(private.make_url("/hook")))
            sending = sender(tmp_path, signer, allow_private_targets=False)
            async with served(outside, signer) as server:
                await sending.start()
                await deliver(sending, server.make_url("/hook"), OUTPUT)
                await until_over(tmp_path)
                await sending.stop()
        assert (len(outside.received), len(inside.received)) == (10, 0)

    asyncio.run(run())


def test_logs_hold_no_secrets(tmp_path, signer, caplog):
    async def run():
        receiver, sending = Receiver(500), sender(tmp_path, signer)
        async with served(receiver, signer) as server:
            await sending.start()
            await deliver(sending, f"{server.make_url('/hook')}?token=secret", OUTPUT)
            await until_over(tmp_path)
            await sending.stop()

    asyncio.run(run())
    said = [each.getMessage() for each in caplog.records if each.name == webhooks.__name__]
    assert said == ["The webhook of request r answered 500; again in 0 s."]


def test_webhooks_wait_when_they_cannot_be_signed(tmp_path, signer):
    async def run():
        receiver = Receiver()
        async with served(receiver, signer) as server:
            unsigned = sender(tmp_path, None)
            await unsigned.start()
            await deliver(unsigned, server.make_url("/hook"), OUTPUT)
            await asyncio.sleep(0.1)
            await unsigned.stop()
            assert (receiver.received, rows(tmp_path)) == ([], [("r", 0, 0)])
            signed = sender(tmp_path, signer)
            await signed.start()
            await receiver.until(1)
            await signed.stop()

    asyncio.run(run())


def test_a_bug_does_not_repeat_a_delivery_at_once(tmp_path, signer, monkeypatch, caplog):
    monkeypatch.setattr(webhooks, "FIRST_PAUSE_SECONDS", 60)

    async def fail(*_arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr(WebhookSender, "_call", fail)

    async def run():
        sending = sender(tmp_path, signer)
        await sending.start()
        await deliver(sending, "http://127.0.0.1:9/", OUTPUT)
        await asyncio.sleep(0.2)
        await sending.stop()

    asyncio.run(run())
    said = [each.getMessage() for each in caplog.records if each.name == webhooks.__name__]
    assert said == ["The webhook of request r failed."]
