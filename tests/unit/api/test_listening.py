"""Connections that keep a server waiting, and how long it waits."""

import asyncio

import pytest
from aiohttp import web
from animatediff_v2v.api.http import listening
from animatediff_v2v.api.wire import bodies
from animatediff_v2v.api.wire.bodies import read_json
from animatediff_v2v.api.wire.problems import RequestRefused

GET = b"GET /now HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: localhost\r\n"


async def _now(_request):
    return web.Response(text="now")


async def _later(_request):
    await asyncio.sleep(4 * listening.SECONDS_OF_SILENCE)
    return web.Response(text="later")


async def _body(request):
    try:
        return web.json_response(await read_json(request, max_bytes=1000))
    except RequestRefused as refused:
        return web.Response(status=refused.answer.status)


@pytest.fixture
def answered(monkeypatch):
    """Return a function that sends bytes to a server and returns its whole answer."""
    monkeypatch.setattr(listening, "SECONDS_OF_SILENCE", 0.2)
    monkeypatch.setattr(listening, "SECONDS_BETWEEN_CALLS", 0.2)
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.2)

    async def exchange(sent):
        app = web.Application()
        app.add_routes([web.get("/now", _now), web.get("/later", _later), web.post("/body", _body)])
        sockets = listening.bind("127.0.0.1", 0)
        ready = asyncio.Event()
        serving = asyncio.create_task(listening._answer(app, sockets, ready.set))
        await asyncio.wait_for(ready.wait(), 30)
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
            serving.cancel()
            await asyncio.wait([serving])

    return lambda sent: asyncio.run(exchange(sent))


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"GET /now HT", GET, GET + b"X-Half: of a hea", b"\x16\x03\x01\x02\x00\x01"],
    ids=["nothing", "an empty line", "half a line", "half a head", "half a field", "TLS"],
)
def test_a_connection_without_a_request_is_closed(answered, sent):
    assert b"now" not in answered(sent)


@pytest.mark.parametrize("sent", [b"", GET, GET + b"X-Half: of a hea"], ids=["", "head", "field"])
def test_a_connection_is_closed_when_no_second_request_follows(answered, sent):
    answer = answered(GET + b"\r\n" + sent)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"now") == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 50\r\n\r\n",
        b'Content-Length: 50\r\n\r\n{"a": ',
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["no body", "half a body", "no chunk", "half a chunk"],
)
def test_a_body_that_stalls_is_refused_and_the_connection_closed(answered, sent):
    assert answered(POST + sent).startswith(b"HTTP/1.1 400 ")


def test_a_connection_that_waits_for_an_answer_stays_open(answered):
    sent = GET.replace(b"/now", b"/later") + b"Connection: close\r\n\r\n"
    assert answered(sent).endswith(b"later")
