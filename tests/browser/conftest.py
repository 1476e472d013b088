"""A real ComfyUI, tiny models under the names that templates ask for, and Chromium.

COMFYUI_PATH names the ComfyUI, as for tests/host (the first, where there are several);
COMFYUI_FRONTEND, if set, the `static` folder of another comfyui-frontend-package; CHROMIUM the
browser's program where it is not called chromium.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from ..host.comfy_server import MODEL_FOLDERS, PACK, ComfyServer
from ..host.conftest import write_clip
from .frontend import Frontend

COMFYUI = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0]
FRONTEND = os.environ.get("COMFYUI_FRONTEND")
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
SHOTS = Path(__file__).parent / "shots"
TEMPLATES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# A whole page, or a run on a CPU, may take long on a busy machine.
MOST_MILLISECONDS = 600_000
# The widths of the network that a node of tests/host/probe draws.
NARROW = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2}


@pytest.fixture(scope="session")
def server(tmp_path_factory, random_weights):
    if not COMFYUI:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    if CHROMIUM is None:
        pytest.skip("there is no program called chromium: set CHROMIUM to the browser's")
    pytest.importorskip("playwright", reason="playwright is not installed: make test-browser")
    weights = tmp_path_factory.mktemp("weights")
    random_weights.write_weights(weights)
    flags = ["--front-end-root", FRONTEND] if FRONTEND else []
    folder = tmp_path_factory.mktemp("comfyui") / "base"
    with ComfyServer(COMFYUI, folder, weights, flags=flags) as running:
        write_clip(running.folder / "input" / "clip.mp4")
        demo = PACK / "demo" / "clip.mp4"
        source = demo if demo.exists() else running.folder / "input" / "clip.mp4"
        shutil.copy(source, running.folder / "input" / "picture.mp4")
        # ComfyUI comes with one.
        example = Image.new("RGB", (256, 256), "#9338bd")
        ImageDraw.Draw(example).ellipse((48, 64, 176, 192), fill="#f2de38")
        example.save(running.folder / "input" / "example.png")
        models = running.folder / "models"
        _name_as_templates_do(models, weights)
        narrow = models / "animatediff_models" / "narrow_motion.safetensors"
        save_file(random_weights.motion_module(NARROW), narrow)
        yield running


def _name_as_templates_do(models, weights):
    """Put a tiny file under each file name to which a template links."""
    tiny = {folder: weights / name for name, folder in MODEL_FOLDERS.items()}
    for path in (PACK / "workflows").glob("*.json"):
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            for model in node["properties"].get("models", ()):
                target = models / model["directory"] / model["name"]
                target.parent.mkdir(exist_ok=True)
                if target.suffix == ".ckpt":
                    torch.save(load_file(tiny[model["directory"]]), target)
                else:
                    # Kinds without a tiny model are only listed, not loaded.
                    source = tiny.get(model["directory"], tiny["checkpoints"])
                    shutil.copy(source, target)
    motion_loras = models / "animatediff_motion_lora"
    motion_loras.mkdir(exist_ok=True)
    shutil.copy(weights / "style_lora.safetensors", motion_loras / "v2_lora_ZoomIn.ckpt")
    # Only listed, not loaded.
    sparsectrl = models / "controlnet" / "v3_sd15_sparsectrl_rgb.ckpt"
    shutil.copy(weights / "controlnet.safetensors", sparsectrl)


@pytest.fixture(scope="session")
def chromium(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=["canvas", "nodes 2.0"])
def page(request, chromium, server):
    """Open ComfyUI's page in one of its two renderers."""
    for setting, value in (
        ("Comfy.VueNodes.Enabled", request.param == "nodes 2.0"),
        ("Comfy.TutorialCompleted", True),
        # The tours lie over the page.
        ("Comfy.OnboardingCoachmarks.Seen", ["appMode", "firstRun"]),
        ("Comfy.Minimap.Visible", False),
        ("Comfy.Workflow.Persist", True),
        ("Comfy.Locale", "en"),
    ):
        assert server.post(f"/settings/{setting}", value)[0] == 200
    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(MOST_MILLISECONDS)
    SHOTS.mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{server.port}/"
    opened = Frontend(context.new_page(), address, SHOTS, renderer=request.param)
    opened.open()
    yield opened
    context.close()


@pytest.fixture
def frontend(page):
    """The page with an empty graph; a console message of this pack fails the test."""
    page.clear()
    yield page
    complaints, page.complaints[:] = list(page.complaints), []
    assert not complaints
