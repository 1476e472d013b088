"""fal's own clients, as they were released, and servers for them to call."""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ..api.conftest import HOMES, clip, make_home, models
from ..host.comfy_server import PACK
from .tls_server import TlsServer

__all__ = ["clip", "make_home", "models"]

INSTALLED = PACK / ".venv-clients"


@pytest.fixture(scope="session")
def node():
    """The command and folder of Node with both JavaScript clients."""
    if not (INSTALLED / "node_modules" / "@fal-ai" / "client").is_dir():
        pytest.skip("fal's JavaScript clients are not installed: run `make clients`, with npm")
    return shutil.which("node")


@pytest.fixture(scope="session")
def python():
    """The interpreter that has fal's Python client."""
    found = [path for path in INSTALLED.glob("*/python*") if path.stem == "python"]
    if not found:
        pytest.skip("fal's Python client is not installed: run `make clients`")
    return str(found[0])


@pytest.fixture(scope="session", params=HOMES, ids=lambda path: Path(path).name)
def home(request, make_home):
    """The API on a bare application, and in each ComfyUI that COMFYUI_PATH names."""
    with make_home(request.param) as running:
        yield running
    assert "Traceback" not in running.log(), running.log()
    assert running.key not in running.log()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "home")])
    now = datetime.now(timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "home.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_home(tmp_path, models, certificate):
    """The API on a bare application behind TLS."""
    with TlsServer(tmp_path, models, certificate) as server:
        yield server


@pytest.fixture
def receiver():
    """A receiver of webhooks: `url`, and `received`, pairs of headers and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.received.append((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received = []
    server.url = f"http://127.0.0.1:{server.server_port}/hook?token=1&b=2"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Bench:
    """The environment of a script, and its results for inspection."""

    clip: Path
    receiver: http.server.ThreadingHTTPServer
    folder: Path

    def run(self, api, command, **environment):
        """Run a script of a client; return the JSON object that it printed."""
        known = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        completed = subprocess.run(
            [str(part) for part in command],
            env=known
            | {"FAL_LOCAL_URL": api.url, "FAL_KEY": api.key}
            | {"CLIP": str(self.clip), "WEBHOOK": self.receiver.url}
            # A misdirected call must not reach the hosted service.
            | {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
            | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return json.loads(completed.stdout.splitlines()[-1])

    def delivery(self):
        """Return headers and body of the one webhook that arrives."""
        until = time.monotonic() + 30
        while not self.receiver.received and time.monotonic() < until:
            time.sleep(0.05)
        (delivery,) = self.receiver.received
        return delivery


@pytest.fixture
def bench(clip, receiver, tmp_path):
    return Bench(clip, receiver, tmp_path)
