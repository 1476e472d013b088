"""With `keyless_loopback`, this user's own programs need no key, and everybody else does."""

import asyncio
import os
import subprocess
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from animatediff_v2v.api.http import loopback
from animatediff_v2v.api.http.guard import Guard, caller_of
from animatediff_v2v.api.keys import KeyRing

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux shows the user of a connection"
)
NOBODY = 401


async def _who(request):
    return web.Response(text=caller_of(request).name)


def asked(tmp_path, *, head="", version="1.1", host="127.0.0.1:8187", listen="127.0.0.1", run=None):
    """Return the status of one call, or the result of `run` with the server's port."""

    async def story():
        guard = Guard(
            KeyRing(tmp_path), keyless_loopback=True, max_body_bytes=100, requests_per_minute=9
        )
        app = web.Application(middlewares=[guard.middleware])
        app.router.add_get("/fal/who", _who)
        async with TestServer(app, host=listen) as server:
            if run is not None:
                return await asyncio.to_thread(run, server.port)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET /fal/who HTTP/{version}\r\nHost: {host}\r\n{head}\r\n".encode())
            line = await reader.readline()
            writer.close()
            return int(line.split()[1])

    return asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1:8187", "localhost", "LOCALHOST.:1", "[::1]:2"])
def test_own_programs_need_no_key(tmp_path, host):
    assert asked(tmp_path, host=host) == 200


def test_another_user_needs_a_key_on_a_dual_stack_socket(tmp_path):
    assert asked(tmp_path, listen="::") == 200


@pytest.mark.parametrize("host", ["192.168.1.7", "10.0.0.1:8187", "[2a00:1450::1]"])
def test_a_host_name_that_is_not_loopback_is_not_an_own_call(tmp_path, host):
    assert asked(tmp_path, host=host) == NOBODY


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Real-IP",
        "Via",
        "CF-Connecting-IP",
        "cf-ray",
        "CDN-Loop",
        "True-Client-IP",
        "X-Original-URL",
        "X-Envoy-External-Address",
        "Tailscale-User-Login",
        "X-Amzn-Trace-Id",
        "Fly-Client-IP",
    ],
)
def test_calls_with_headers_of_proxies_are_no_own_calls(tmp_path, name):
    assert asked(tmp_path, head=f"{name}: 127.0.0.1\r\n") == NOBODY


def test_http_1_0_is_not_an_own_call(tmp_path):
    """A bare `proxy_pass` of nginx adds nothing, but speaks HTTP/1.0."""
    assert asked(tmp_path, version="1.0") == NOBODY


def test_a_socket_of_another_user_is_no_own_call(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert asked(tmp_path) == NOBODY


def test_a_program_of_another_user_needs_a_key(tmp_path):
    """By the kernel's tables, if this test may switch to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a program as another user")
    script = (
        "import os, socket, sys; os.setuid(int(sys.argv[2])); own = socket.socket(); "
        "own.connect(('127.0.0.1', int(sys.argv[1]))); "
        "own.sendall(b'GET /fal/who HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); "
        "print(str(own.recv(100)[9:12], 'ascii'))"
    )

    def run(port):
        command = [sys.executable, "-c", script, str(port)]
        done = (
            subprocess.run([*command, user], capture_output=True, text=True, check=True)
            for user in ("0", "12345")
        )
        return tuple(each.stdout.strip() for each in done)

    assert asked(tmp_path, run=run) == ("200", str(NOBODY))


def test_the_overflow_user_is_not_recognized(tmp_path, monkeypatch):
    user = int(loopback.OVERFLOW_USER.read_text())
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert loopback.unsupported() == "the server runs as a user id that stands for many users"


def test_other_systems_recognize_no_own_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert loopback.unsupported() == "only Linux shows which user a connection belongs to"
    assert asked(tmp_path) == NOBODY
