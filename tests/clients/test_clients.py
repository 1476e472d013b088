"""Scripts for the hosted model, run with fal's own clients against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request

import pytest
from animatediff_v2v.pipeline.video import probe_video

from ..host.comfy_server import PACK
from .conftest import INSTALLED
from .verifier import is_genuine

SCRIPTS = PACK / "tests" / "clients" / "scripts"
CLIENTS = PACK / "api" / "clients"
MEBIBYTE = 1 << 20
CANCELLED = {"detail": "Request was cancelled", "error_type": "request_cancelled"}

JAVASCRIPT = [
    ("@fal-ai/serverless-client", "preload", "full"),
    ("@fal-ai/serverless-client", "middleware", "short"),
    ("@fal-ai/serverless-client", "fetch", "stream"),
    ("@fal-ai/serverless-client", "browser", "short"),
    ("@fal-ai/client", "preload", "full"),
    ("@fal-ai/client", "middleware", "short"),
    ("@fal-ai/client", "fetch", "stream"),
    ("@fal-ai/client", "proxy", "full"),
    ("@fal-ai/client", "browser", "short"),
]


@pytest.mark.parametrize(("client", "configuration", "flow"), JAVASCRIPT)
def test_javascript(node, home, bench, *, client, configuration, flow):
    script = INSTALLED / "founding.mjs"  # packages are looked for beside the script
    script.write_bytes((SCRIPTS / "founding.mjs").read_bytes())
    preload = ["--require", CLIENTS / "fal-local.cjs"] if configuration == "preload" else []
    environment = {"CLIENT": client, "CONFIGURATION": configuration, "FLOW": flow}
    saw = bench.run(home, [node, *preload, script], **environment)
    assert set(saw["statuses"]) <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
    assert saw["statuses"][-1] == "COMPLETED"
    check_output(saw["subscribed"])
    if flow == "stream":  # each line once: the client itself joins the new lines
        assert len(saw["told"]) == len(set(saw["told"])) > 0
    if flow == "full":
        assert saw["completed"]["status"] == "COMPLETED"
        assert [each["status"] for each in saw["cancelled"]] == [499, 499]
        assert [each["body"] for each in saw["cancelled"]] == [CANCELLED, CANCELLED]
        assert saw["refused"]["name"] == "ValidationError"
        assert saw["uploaded"].endswith("/my_rocket_.mp4")
        check(saw, bench)
        check_webhook(saw, home, bench)


@pytest.mark.parametrize(("language", "mebibytes"), [("javascript", 91), ("python", 101)])
def test_large_files_come_in_parts(request, home, bench, language, mebibytes):
    if language == "javascript":
        node, script = request.getfixturevalue("node"), INSTALLED / "large.mjs"
        script.write_bytes((SCRIPTS / "large.mjs").read_bytes())
        command = [node, "--require", CLIENTS / "fal-local.cjs", script]
    else:
        python = request.getfixturevalue("python")
        command = [python, CLIENTS / "fal_local.py", SCRIPTS / "large.py"]
    url = bench.run(home, command)
    for index in (0, 9, 10, 57, mebibytes - 1):
        start = index * MEBIBYTE
        asked = urllib.request.Request(url, headers={"Range": f"bytes={start}-{start}"})
        with urllib.request.urlopen(asked) as answer:
            assert answer.read() == bytes([index])
            assert answer.headers["Content-Range"].endswith(f"/{mebibytes * MEBIBYTE}")


@pytest.mark.parametrize("configuration", ["runner", "addresses"])
def test_python(python, home, bench, configuration):
    runner = [CLIENTS / "fal_local.py"] if configuration == "runner" else []
    script = "founding.py" if configuration == "runner" else "addresses.py"
    saw = bench.run(home, [python, *runner, SCRIPTS / script], CONFIGURATION=configuration)
    check_python(saw)
    check(saw, bench)
    check_webhook(saw, home, bench)


def test_python_by_its_own_variables(python, tls_home, certificate, bench):
    """It needs no code, but it needs TLS, and videos as data URIs."""
    host = tls_home.url.removeprefix("https://")
    saw = bench.run(
        tls_home,
        [python, SCRIPTS / "founding.py"],
        CONFIGURATION="tls",
        FAL_RUN_HOST=f"{host}/fal/fal.run",
        FAL_QUEUE_RUN_HOST=f"{host}/fal/queue.fal.run",
        SSL_CERT_FILE=str(certificate),
    )
    check_python(saw)
    check(saw, bench)


def check_python(saw):
    assert set(saw["statuses"]) <= {"Queued", "InProgress", "Completed"}
    assert saw["statuses"][-1] == "Completed"
    assert [each["status"] for each in saw["cancelled"]] == [499, 499]
    assert [each["body"] for each in saw["cancelled"]] == [CANCELLED, CANCELLED]
    assert [each["type"] for each in saw["cancelled"]] == ["request_cancelled"] * 2


def check(saw, bench):
    """Check the results that are the same for every client."""
    check_output(saw["subscribed"])
    check_output(saw["result"])
    assert saw["subscribed"]["video"]["url"] != saw["result"]["video"]["url"]
    assert saw["range"] == {"status": 206, "text": "ftyp"}
    assert saw["completed"]["metrics"]["inference_time"] > 0
    lines = saw["completed"]["logs"]
    assert "sampling step 1 of 2" in [line["message"] for line in lines]
    assert set(lines[0]) == {"timestamp", "message", "level", "source", "labels"}
    assert saw["refused"]["status"] == 422
    (detail,) = saw["refused"]["detail"]
    assert detail["loc"] == ["body", "num_inference_steps"]
    assert (detail["type"], detail["ctx"]) == ("greater_than_equal", {"ge": 1})
    assert json.loads(bench.delivery()[1]) == {
        "request_id": saw["request_id"],
        "gateway_request_id": saw["request_id"],
        "status": "OK",
        "payload": saw["result"],
    }


def check_webhook(saw, home, bench):
    """Check that fal's documented verifier accepts the webhook, and no forgery."""
    headers, body = bench.delivery()
    assert headers["X-Fal-Webhook-Request-Id"] == saw["request_id"]
    for place in ("", "/fal/rest.fal.ai", "/fal/rest.alpha.fal.ai"):
        assert is_genuine(headers, body, f"{home.url}{place}/.well-known/jwks.json")
    assert not is_genuine(headers, body + b" ", f"{home.url}/.well-known/jwks.json")
    check_video(saw["result"]["video"], bench.folder)


def check_output(output):
    assert set(output) == {"video", "seed", "timings"}
    assert set(output["video"]) == {"url", "content_type", "file_name", "file_size"}
    assert output["video"]["content_type"] == "video/mp4"
    assert output["seed"] == 42


def check_video(video, folder):
    """Check that every second of eight frames is kept, at half the rate."""
    path = folder / "result.mp4"
    with urllib.request.urlopen(video["url"]) as answer:
        path.write_bytes(answer.read())
    info = probe_video(path)
    assert path.stat().st_size == video["file_size"]
    assert (info.frame_count, info.frame_rate) == (4, 4)


@pytest.mark.parametrize("key", [{}, {"FAL_KEY": "a:b"}])
@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_missing_key_is_told(request, tmp_path, language, key):
    if language == "python":
        script, runner = tmp_path / "script.py", [CLIENTS / "fal_local.py"]
        script.write_text("print('ran')")
    else:
        script = tmp_path / "script.cjs"
        script.write_text("console.log('ran')")
        runner = ["--require", CLIENTS / "fal-local.cjs"]
    interpreter = request.getfixturevalue("python" if language == "python" else "node")
    known = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    done = subprocess.run(
        [str(each) for each in (interpreter, *runner, script)],
        env=known | key,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ran\n"
    assert ("FAL_KEY is not set" in done.stderr and "add NAME" in done.stderr) == (not key)
    assert len(done.stderr.splitlines()) == (not key)


def test_a_server_that_does_not_answer_is_named(python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import httpx\nhttpx.get('http://127.0.0.1:1')")
    done = subprocess.run(
        [str(python), str(CLIENTS / "fal_local.py"), str(script)],
        env=os.environ | {"FAL_KEY": "a:b", "FAL_LOCAL_URL": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "fal_local: nothing answers at http://127.0.0.1:1: start ComfyUI or" in done.stderr
