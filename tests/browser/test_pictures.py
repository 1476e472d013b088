"""The typical graph of each help page can be built, and looks like its picture.

The pictures go into `shots`; WRITE_PICTURES=1 puts them into the help pages.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from ..host.comfy_server import PACK
from .conftest import SHOTS

PICTURES = PACK / "web" / "docs" / "pictures"
LORA, OTHER = "add_detail.safetensors", "style_lora.safetensors"
CLIP = {"video": "picture.mp4"}
LOAD, SELECT, ENCODE = "ADV2V_LoadVideo", "ADV2V_SelectFrames", "ADV2V_EncodeVideo"
STACK, MOTION, MODEL = "ADV2V_LoraStack", "ADV2V_MotionLoraStack", "ADV2V_LoadModel"
CORE, WINDOWS, TRAVEL = "ADV2V_ModelFromComfy", "ADV2V_ContextOptions", "ADV2V_PromptSchedule"
SAMPLER, JOB = "ADV2V_Sampler", "ADV2V_VideoToVideo"
FRAMES, CONTROL, STYLE = "ADV2V_ControlFrames", "ADV2V_ControlNet", "ADV2V_IPAdapter"
SPEED, APPLY, BATCH = "ADV2V_Speed", "ADV2V_ApplyMotion", "ADV2V_Batch"
MATCH, RESTORE = "ADV2V_MatchSource", "ADV2V_RestoreFrames"
# A second node of a kind.
LOAD_ALL = f"{LOAD}#all"
KEYFRAMES = "ADV2V_Keyframes"
FREE_INIT = "ADV2V_FreeInit"
CURVE = "ADV2V_StrengthCurve"
CHECKPOINT = {"checkpoint": "v1-5-pruned-emaonly-fp16.safetensors"}
CHECKPOINT |= {"motion_module": "mm_sd_v15_v2.ckpt"}
CANNY = {"control_net": "control_v11p_sd15_canny_fp16.safetensors"}
PROMPT = {"positive": "anime style, a red star over the sea, detailed, masterpiece"}
SEASONS = "0: a forest in spring\n16: a forest in summer\n32: a forest in autumn\n48: snow"
# Columns of nodes with the values that differ from the defaults, and links.
GRAPHS = {
    "load_video": ([[(LOAD, CLIP)]], []),
    "select_frames": (
        [[("LoadVideo", {"file": CLIP["video"]})], [(SELECT, {})]],
        [("LoadVideo", 0, SELECT, "video")],
    ),
    "lora_stack": (
        [
            [(STACK, {"lora_1": LORA, "model_strength_1": 0.7, "lora_2": OTHER})],
            [(MODEL, CHECKPOINT)],
        ],
        [(STACK, 0, MODEL, "lora_stack")],
    ),
    "motion_lora_stack": (
        [[(MOTION, {"motion_lora": "v2_lora_ZoomIn.ckpt"})], [(MODEL, CHECKPOINT)]],
        [(MOTION, 0, MODEL, "motion_lora_stack")],
    ),
    "load_model": (
        [[(STACK, {"lora_1": LORA})], [(MODEL, CHECKPOINT)], [(SAMPLER, PROMPT)]],
        [(STACK, 0, MODEL, "lora_stack"), (MODEL, 0, SAMPLER, "model")],
    ),
    "model_from_comfy": (
        [
            [("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT["checkpoint"]})],
            [("LoraLoader", {"lora_name": LORA})],
            [(CORE, {"motion_module": "mm_sd_v15_v2.ckpt"})],
        ],
        [
            ("CheckpointLoaderSimple", 0, "LoraLoader", "model"),
            ("CheckpointLoaderSimple", 1, "LoraLoader", "clip"),
            ("CheckpointLoaderSimple", 2, CORE, "vae"),
            ("LoraLoader", 0, CORE, "model"),
            ("LoraLoader", 1, CORE, "clip"),
        ],
    ),
    "context_options": (
        [[(WINDOWS, {})], [(SAMPLER, PROMPT)]],
        [(WINDOWS, 0, SAMPLER, "context_options")],
    ),
    "prompt_schedule": (
        [[(TRAVEL, {"schedule": SEASONS})], [(SAMPLER, {})]],
        [(TRAVEL, 0, SAMPLER, "positive_schedule")],
    ),
    "control_frames": (
        [[(LOAD, CLIP)], [(FRAMES, {})], [(CONTROL, CANNY)]],
        [(LOAD, 0, FRAMES, "images"), (FRAMES, 0, CONTROL, "images")],
    ),
    "controlnet": (
        [[(FRAMES, {})], [(CONTROL, CANNY | {"end": 0.8})], [(SAMPLER, PROMPT)]],
        [(FRAMES, 0, CONTROL, "images"), (CONTROL, 0, SAMPLER, "control")],
    ),
    "keyframes": (
        [
            [("LoadImage", {})],
            [(KEYFRAMES, {"sparsectrl": "v3_sd15_sparsectrl_rgb.ckpt"})],
            [(SAMPLER, PROMPT)],
        ],
        [("LoadImage", 0, KEYFRAMES, "images"), (KEYFRAMES, 0, SAMPLER, "control")],
    ),
    "ip_adapter": (
        [
            [("CLIPVisionLoader", {}), ("LoadImage", {})],
            [(STYLE, {"ip_adapter": "ip-adapter-plus_sd15.safetensors"})],
            [(SAMPLER, PROMPT)],
        ],
        [
            ("LoadImage", 0, STYLE, "images"),
            ("CLIPVisionLoader", 0, STYLE, "clip_vision"),
            (STYLE, 0, SAMPLER, "style"),
        ],
    ),
    "speed": (
        [[(SPEED, {"deep_cache_interval": 2})], [(SAMPLER, PROMPT)]],
        [(SPEED, 0, SAMPLER, "speed")],
    ),
    "free_init": (
        [[(FREE_INIT, {"iterations": 3})], [(SAMPLER, PROMPT)]],
        [(FREE_INIT, 0, SAMPLER, "free_init")],
    ),
    "strength_curve": (
        [[(CURVE, {"curve": "0: 0.2, 12: 0.3, 24: 1.0 ease"})], [(SAMPLER, PROMPT)]],
        [(CURVE, 0, SAMPLER, "denoise")],
    ),
    "sampler": (
        [[(LOAD, CLIP)], [(MODEL, CHECKPOINT)], [(SAMPLER, PROMPT)], [(ENCODE, {})]],
        [
            (LOAD, 0, SAMPLER, "images"),
            (MODEL, 0, SAMPLER, "model"),
            (SAMPLER, 0, ENCODE, "images"),
            (LOAD, 1, ENCODE, "audio"),
            (LOAD, 2, ENCODE, "fps"),
        ],
    ),
    "match_source": (
        [[(LOAD, CLIP)], [(SAMPLER, PROMPT)], [(MATCH, {})], [(ENCODE, {})]],
        [
            (LOAD, 0, SAMPLER, "images"),
            (LOAD, 0, MATCH, "source"),
            (SAMPLER, 0, MATCH, "images"),
            (MATCH, 0, ENCODE, "images"),
        ],
    ),
    "restore_frames": (
        [
            [(LOAD_ALL, CLIP | {"select_every_nth_frame": 1})],
            [(LOAD, CLIP)],
            [(SAMPLER, PROMPT)],
            [(RESTORE, {})],
            [(ENCODE, {})],
        ],
        [
            (LOAD, 0, SAMPLER, "images"),
            (LOAD_ALL, 0, RESTORE, "source_frames"),
            (SAMPLER, 0, RESTORE, "images"),
            (RESTORE, 0, ENCODE, "images"),
            (LOAD_ALL, 2, ENCODE, "fps"),
        ],
    ),
    "encode_video": (
        [[(LOAD, CLIP)], [(ENCODE, {})]],
        [
            (LOAD, 0, ENCODE, "images"),
            (LOAD, 1, ENCODE, "audio"),
            (LOAD, 2, ENCODE, "fps"),
        ],
    ),
    "apply_motion": (
        [
            [("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT["checkpoint"]}), (WINDOWS, {})],
            [(APPLY, {"motion_module": "mm_sd_v15_v2.ckpt"})],
            [("KSampler", {})],
        ],
        [
            ("CheckpointLoaderSimple", 0, APPLY, "model"),
            (WINDOWS, 0, APPLY, "context_options"),
            (APPLY, 0, "KSampler", "model"),
        ],
    ),
    "batch": ([[(BATCH, {"clips": "clips", "prompt": PROMPT["positive"]})]], []),
    "video_to_video": ([[(JOB, CLIP | {"prompt": PROMPT["positive"]})]], []),
}
BUILD = """async ([columns, links, scale, corner]) => {
  const nodes = {};
  for (const [type, values] of columns.flat()) {
    const node = nodes[type] = LiteGraph.createNode(type.split("#")[0]);
    app.graph.add(node);
    for (const widget of node.widgets ?? []) {
      if (!(widget.name in values)) continue;
      widget.value = values[widget.name];
      widget.callback?.(widget.value, app.canvas, node);
    }
  }
  for (const [from, output, to, input] of links)
    nodes[from].connect(output, nodes[to], nodes[to].findInputSlot(input));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = corner;
  // Videos arrive, and make their nodes grow.
  await new Promise((resolve) => setTimeout(resolve, 4000));
  // Links that skip a column pass above it.
  const columnOf = (type) => columns.findIndex((column) => column.some(([each]) => each === type));
  const ends = links.map(([from, , to]) => [columnOf(from), columnOf(to)]);
  const tops = columns.map(() => 0);
  for (let column = columns.length - 1; column >= 0; column -= 1)
    for (const [from, to] of ends)
      if (from < column && column < to) tops[column] = Math.max(tops[column], tops[to] + 160);
  let x = 0;
  for (const [number, column] of columns.entries()) {
    let y = tops[number], width = 0;
    for (const [type] of column) {
      nodes[type].pos = [x, y];
      y += nodes[type].size[1] + 70;
      width = Math.max(width, nodes[type].size[0]);
    }
    x += width + 70;
  }
  app.canvas.setDirty(true, true);
}"""
# Left, top, right and bottom of all nodes in the page; Nodes 2.0 are elements, others are painted.
EDGES = """() => {
  const page = app.canvas.canvas.getBoundingClientRect();
  const { scale, offset } = app.canvas.ds;
  const painted = ({ pos, size }) => new DOMRect(
    page.x + (pos[0] + offset[0]) * scale,
    page.y + (pos[1] + offset[1] - LiteGraph.NODE_TITLE_HEIGHT) * scale,
    size[0] * scale,
    (size[1] + LiteGraph.NODE_TITLE_HEIGHT) * scale,
  );
  const cards = [...document.querySelectorAll('[data-node-id]')];
  const boxes = cards.length
    ? cards.map((card) => card.getBoundingClientRect())
    : app.graph.nodes.map(painted);
  return [
    Math.min(...boxes.map(({ left }) => left)),
    Math.min(...boxes.map(({ top }) => top)),
    Math.max(...boxes.map(({ right }) => right)),
    Math.max(...boxes.map(({ bottom }) => bottom)),
  ];
}"""
# In pixels of the page; the graph begins beside and below the buttons and figures of the page.
MARGIN, SCALE, CORNER = 24, 0.75, (180, 240)


@pytest.mark.parametrize("name", GRAPHS)
def test_typical_graph(frontend, name):
    columns, links = GRAPHS[name]
    frontend.page.evaluate(BUILD, [columns, links, SCALE, CORNER])
    linked = frontend.page.evaluate("app.graph.links.size")
    assert linked == len(links)
    if name == "encode_video":
        frontend.page.get_by_test_id("queue-button").click()
        frontend.page.wait_for_function(
            "() => [...document.querySelectorAll('video')].some("
            "(video) => video.src.includes('AnimateDiffV2V') && video.readyState >= 2)"
        )
    frontend.page.wait_for_timeout(1500)
    left, top, right, bottom = frontend.page.evaluate(EDGES)
    area = {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }
    path = Path(SHOTS, f"page {name} - {frontend.renderer}.png")
    frontend.page.screenshot(path=path, clip=area)
    if os.environ.get("WRITE_PICTURES") and frontend.renderer == "nodes 2.0":
        with Image.open(path) as shot:
            shot.convert("RGB").save(PICTURES / f"{name}.jpg", quality=88, optimize=True)
