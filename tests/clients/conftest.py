"""fal's own clients, installed as they were released, and servers for them to find."""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.api.keys import KeyRing
from animatediff_v2v.pipeline.video import VideoWriter

from ..host.comfy_server import PACK, ComfyServer
from ..host.conftest import PATHS
from .bare_server import BareServer

INSTALLED = PACK / ".venv-clients"
MODELS = {
    "checkpoint.safetensors": "checkpoints/cardosAnime_v20.safetensors",
    "motion_module.safetensors": "animatediff_models/mm_sd_v15_v2.safetensors",
    "style_lora.safetensors": "loras/style_lora.safetensors",
}


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


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Eight frames in a second."""
    path = tmp_path_factory.mktemp("clip") / "rocket.mp4"
    with VideoWriter(path, width=48, height=48, frame_rate=Fraction(8)) as writer:
        for level in range(0, 240, 30):
            writer.write(np.full((1, 48, 48, 3), level, np.uint8))
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("models")
    for name, place in MODELS.items():
        (folder / place).parent.mkdir()
        shutil.copy(weights / name, folder / place)
    return folder


class HostedApi:
    """A server with the API, wherever it runs."""

    def __init__(self, url, key):
        self.url, self.key = url, key


@pytest.fixture(scope="session", params=["bare", *PATHS], ids=lambda path: Path(path).name)
def home(request, tmp_path_factory, weights, models):
    """The API on a bare application, and in each ComfyUI that COMFYUI_PATH names."""
    folder = tmp_path_factory.mktemp("home")
    if request.param == "bare":
        with BareServer(folder, models) as server:
            yield HostedApi(server.url, server.key)
        return
    server = ComfyServer(request.param, folder / "base", weights)
    shutil.rmtree(server.folder / "models")
    shutil.copytree(models, server.folder / "models")
    data = server.folder / "user" / "animatediff_v2v"
    data.mkdir()
    (data / "api.json").write_text(json.dumps({"enabled": True, "private_webhooks": True}))
    key = KeyRing(data).add("test")
    with server:
        yield HostedApi(f"http://127.0.0.1:{server.port}", key)
    assert "Traceback" not in server.log(), server.log()
    assert key not in server.log()


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
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with BareServer(tmp_path, models, tls=context) as server:
        yield HostedApi(server.url, server.key)


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
    """What a script needs, and what may be looked at when it has run."""

    clip: Path
    receiver: http.server.ThreadingHTTPServer
    folder: Path

    def run(self, api, command, **environment):
        """Run a script of a client; give the JSON object that it printed."""
        known = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        completed = subprocess.run(
            [str(part) for part in command],
            env=known
            | {"FAL_LOCAL_URL": api.url, "FAL_KEY": api.key}
            | {"CLIP": str(self.clip), "WEBHOOK": self.receiver.url}
            # Whatever goes astray must not reach the hosted service.
            | {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
            | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return json.loads(completed.stdout.splitlines()[-1])

    def delivery(self):
        """Headers and body of the one webhook that comes."""
        until = time.monotonic() + 30
        while not self.receiver.received and time.monotonic() < until:
            time.sleep(0.05)
        (delivery,) = self.receiver.received
        return delivery


@pytest.fixture
def bench(clip, receiver, tmp_path):
    return Bench(clip, receiver, tmp_path)
