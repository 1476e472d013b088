"""Request bodies: large ones are parsed outside the event loop, slow ones are refused."""

import asyncio
import base64
import json
import threading

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from animatediff_v2v.api.http.guard import Guard, needs_no_key
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.api.net.fetching import DATA_URI_PIECE, FetchLimits, fetch
from animatediff_v2v.api.wire import bodies
from animatediff_v2v.api.wire.bodies import BodySlots, Parser, read_json

LARGE = json.dumps({"video_url": "A" * (2 << 20)})
STALLED = "The body did not arrive in time, or is shorter than its Content-Length"


def served(tmp_path, story, *, slots=None):
    """Run a scenario with the port of a server that reports where it parsed a body."""
    parser, slots = Parser(), slots or BodySlots(1)

    @needs_no_key
    async def where(request):
        async with slots.one_for(request):
            name, _ = await parser.read(
                request, max_bytes=1 << 30, check=lambda _body: threading.current_thread().name
            )
        return web.json_response(name)

    @needs_no_key
    async def read(request):
        body, data_uris = await parser.read(request, max_bytes=1 << 30, check=lambda body: body)
        video = body.get("video_url")
        if video in data_uris:
            body["video_url"] = bytes(data_uris[video]).decode()
        return web.json_response([body, bool(data_uris)])

    @needs_no_key
    async def small(request):
        return web.json_response(await read_json(request, max_bytes=100))

    async def run():
        guard = Guard(KeyRing(tmp_path), max_body_bytes=100, requests_per_minute=9)
        app = web.Application(middlewares=[guard.middleware])
        app.router.add_post("/fal/where", where)
        app.router.add_post("/fal/read", read)
        app.router.add_post("/fal/small", small)
        server = TestServer(app)
        await server.start_server(lingering_time=0.1)
        async with TestClient(server) as client:
            return await story(client)

    try:
        return asyncio.run(run())
    finally:
        parser.close()


async def posted(client, path, data):
    async with client.post(path, data=data) as answer:
        return answer.status, await answer.json()


def test_large_bodies_are_not_parsed_on_the_loop(tmp_path):
    async def story(client):
        return [(await posted(client, "/fal/where", each))[1] for each in ("{}", LARGE)]

    small, large = served(tmp_path, story)
    assert small == threading.main_thread().name
    assert large.startswith("bodies")


def test_a_large_body_that_is_no_json_is_refused(tmp_path):
    async def story(client):
        return await posted(client, "/fal/where", LARGE[:-1])

    status, body = served(tmp_path, story)
    assert (status, body["detail"]) == (400, "The body is not valid JSON")


def test_only_so_many_large_bodies_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.05)

    class Taken(BodySlots):
        def __init__(self):
            super().__init__(0)

    async def story(client):
        return [await posted(client, "/fal/where", each) for each in ("{}", LARGE)]

    small, large = served(tmp_path, story, slots=Taken())
    assert small[0] == 200
    assert (large[0], large[1]["error_type"]) == (503, "too_many_bodies")


LONG = "A" * (1 << 20)


@pytest.mark.parametrize(
    ("body", "is_cut_out"),
    [
        (f'{{"video_url": "data:video/mp4;base64,{LONG}", "prompt": "a \\"fox\\""}}', True),
        (f'{{"prompt":"x","video_url"\n:\t"DATA:video/mp4;base64,{LONG}"}}', True),
        (f'{{"video_url": "data:video/mp4,{LONG}%41"}}', True),
        (f'{{"video_url": "data:video\\/mp4;base64,{LONG}"}}', False),  # as PHP writes slashes
        (f'{{"video_url": "https://example.com/{LONG}"}}', False),
        (f'{{"prompt": "\\"video_url\\": \\"data:{LONG}"}}', False),
        (f'{{"prompt": "data:{LONG}", "video_url": 1}}', False),
        (f'{{"prompt": "{LONG}"}}', False),
        ('{"video_url": "data:video/mp4;base64,AAAA"}', False),  # small
    ],
)
def test_a_large_data_uri_is_not_parsed(tmp_path, body, is_cut_out):
    async def story(client):
        return await posted(client, "/fal/read", body)

    assert served(tmp_path, story) == (200, [json.loads(body), is_cut_out])


@pytest.mark.parametrize(
    "other",
    [
        f'"about": {{"video_url": "data:video/mp4;base64,{LONG}"}}',
        f'"a\\"video_url": "data:video/mp4;base64,{LONG}"',
    ],
    ids=["within", "in a longer name"],
)
def test_a_data_uri_of_another_field_is_not_taken_for_the_video(tmp_path, other):
    async def story(client):
        sent = f'{{{other}, "video_url": "data:video/mp4;base64,OWN="}}'
        return (await posted(client, "/fal/read", sent))[1][0]["video_url"]

    assert served(tmp_path, story) == "data:video/mp4;base64,OWN="


@pytest.mark.parametrize("tail", ['"', '", "prompt": }', ""])
def test_a_body_with_a_data_uri_that_is_no_json_is_refused(tmp_path, tail):
    async def story(client):
        return await posted(client, "/fal/read", f'{{"video_url": "data:video/mp4,{LONG}{tail}')

    assert served(tmp_path, story)[0] == 400


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 50\r\n\r\n{",  # stalls, or was told longer than it is
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ],
)
def test_a_stalled_body_is_refused(tmp_path, monkeypatch, sent):
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.05)

    async def story(client):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"POST /fal/small HTTP/1.1\r\nHost: localhost\r\n" + sent)
        answer = await asyncio.wait_for(reader.read(), 30)  # to the end: it is closed
        writer.close()
        return answer

    answer = served(tmp_path, story)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert STALLED.encode() in answer


def test_a_body_that_arrives_too_slowly_is_refused(tmp_path, monkeypatch):
    """Each byte arrives in time, but the whole body never would."""
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.3)

    async def story(client):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = b"POST /fal/small HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n"
        writer.write(head)
        for _ in range(90):
            writer.write(b" ")
            await asyncio.sleep(0.02)
            if reader._buffer:
                break
        answer = await reader.readline()
        writer.close()
        return answer

    assert served(tmp_path, story).startswith(b"HTTP/1.1 400 ")


PIECE = base64.b64encode(bytes(range(256)) * 2000)  # 683 kB, several pieces


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("sign", ["", "\n", "%0A", "%2B%2b++", " \t"])
def test_data_uris_are_decoded_in_pieces(tmp_path, shift, sign):
    """Wherever one piece ends and the next one begins."""
    text = PIECE.decode()
    place = DATA_URI_PIECE - shift
    text = text[:place] + sign + text[place:]
    plain = (
        text.replace("%2B", "+")
        .replace("%2b", "+")
        .replace("%0A", "")
        .translate({10: None, 32: None, 9: None})
    )
    found = asyncio.run(
        fetch(f"data:video/mp4;base64,{text}", tmp_path, limits=FetchLimits(max_bytes=1 << 20))
    )
    assert found.path.read_bytes() == base64.b64decode(plain + "=" * (-len(plain) % 4))


@pytest.mark.parametrize("shift", range(4))
def test_percent_encoded_data_uris_are_decoded(tmp_path, shift):
    text = "x" * (DATA_URI_PIECE - shift) + "%41%42" + "y" * 10
    found = asyncio.run(fetch(f"data:video/mp4,{text}", tmp_path, limits=FetchLimits()))
    expected = b"x" * (DATA_URI_PIECE - shift) + b"AB" + b"y" * 10
    assert found.path.read_bytes() == expected
