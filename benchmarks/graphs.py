"""Convert public graphs and let ComfyUI validate the results.

Usage: python graphs.py stubs --graphs DIR --server URL --pack BASE/custom_nodes/stubs
       python graphs.py validate --graphs DIR --server URL --folder BASE

DIR holds the graphs that graphs.md lists, as .json files. BASE is the base directory of a running
ComfyUI with AnimateDiff-Evolved, Advanced-ControlNet, IPAdapter_plus, VideoHelperSuite, FizzNodes
and this pack. `stubs` writes a pack with a node for each type that this ComfyUI does not know: its
sockets are those that the graphs show, and it checks nothing; start ComfyUI again afterwards.
`validate` puts the miniature's files into BASE under the names that the graphs choose, lets ComfyUI
validate each graph before and after its conversion, and prints a line for each, with the errors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from animatediff_v2v.migrate import convert
from comfy_cli.workflow_to_api import convert_ui_to_api
from PIL import Image

DEMO = Path(__file__).resolve().parents[1] / "demo"
# Nodes of the frontend alone.
VIRTUAL = {"Reroute", "PrimitiveNode", "Note", "MarkdownNote", "GetNode", "SetNode"}
PICTURES = 250
# Inputs that choose files: their folder, and the file of the demo that takes each name.
FILES = {
    "ckpt_name": ("models/checkpoints", "models/checkpoints/miniature.safetensors"),
    "unet_name": ("models/diffusion_models", "models/checkpoints/miniature.safetensors"),
    "vae_name": ("models/vae", "models/checkpoints/miniature.safetensors"),
    "motion_module": (
        "models/animatediff_models",
        "models/animatediff_models/miniature_motion.safetensors",
    ),
    "motion_lora": ("models/animatediff_motion_lora", ""),
    "lora_name": ("models/loras", "models/loras/miniature_outlined.safetensors"),
    "control_net_name": ("models/controlnet", "models/controlnet/miniature_canny.safetensors"),
    "cnet": ("models/controlnet", "models/controlnet/miniature_canny.safetensors"),
    "sparsectrl_name": ("models/controlnet", "models/controlnet/miniature_canny.safetensors"),
    "clip_name": ("models/clip_vision", "models/clip_vision/miniature_vision.safetensors"),
    "ipadapter_file": ("models/ipadapter", "models/ipadapter/miniature_style.safetensors"),
    "model_name": ("models/upscale_models", ""),
    "image": ("input", "picture"),
    "video": ("input", "clip.mp4"),
    "directory": ("input", "pictures"),
}
# Names that mean another kind of file in nodes of AnimateDiff-Evolved.
EVOLVED = {"model_name": "motion_module", "name": "motion_lora"}
PACK = '''"""Nodes that stand for those of packs that are not installed."""
import json
from pathlib import Path

import execution
from aiohttp import web
from server import PromptServer


class Anything(str):
    def __eq__(self, _other):
        return True

    def __ne__(self, _other):
        return False

    __hash__ = str.__hash__


def kind(name):
    return Anything("*") if name in ("*", "COMBO") else name


def stub(entry):
    class Stub:
        RETURN_TYPES = tuple(map(kind, entry["outputs"]))
        FUNCTION, CATEGORY, OUTPUT_NODE = "run", "stubs", not entry["outputs"]

        @classmethod
        def INPUT_TYPES(cls):
            optional = {name: (kind(each), {}) for name, each in entry["inputs"].items()}
            return {"required": {}, "optional": optional}

        @classmethod
        def VALIDATE_INPUTS(cls, input_types):
            return True

    return Stub


STUBS = json.loads(Path(__file__).with_name("stubs.json").read_text(encoding="utf-8"))
NODE_CLASS_MAPPINGS = {name: stub(entry) for name, entry in STUBS.items()}


@PromptServer.instance.routes.post("/validate_only")
async def validate(request):
    data = PromptServer.instance.trigger_on_prompt(await request.json())
    is_valid, error, _, errors = await execution.validate_prompt("x", data["prompt"], None)
    return web.json_response({"valid": is_valid, "error": error, "errors": errors})
'''


class Server:
    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def ask(self, path: str, data: Any = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(f"{self._address}{path}", body) as answer:
            return json.load(answer)


def graphs(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        yield path.name, json.loads(path.read_text(encoding="utf-8"))


def nodes_of(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    definitions = graph.get("definitions") or {}
    for part in (graph, *definitions.get("subgraphs", ())):
        yield from part.get("nodes", ())


def stubs_of(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    stubs: dict[str, Any] = {}
    for _, graph in graphs(folder):
        ids = {each.get("id") for each in (graph.get("definitions") or {}).get("subgraphs", ())}
        for node in nodes_of(graph):
            if node["type"] in known or node["type"] in VIRTUAL | ids:
                continue
            entry = stubs.setdefault(node["type"], {"inputs": {}, "outputs": []})
            for slot in node.get("inputs") or ():
                is_widget = bool(slot.get("widget"))
                if not is_widget or slot.get("link") is not None:
                    plain = isinstance(slot["type"], str) and not is_widget
                    entry["inputs"].setdefault(slot["name"], slot["type"] if plain else "*")
            outputs = [each["type"] for each in node.get("outputs") or ()]
            outputs = [each if isinstance(each, str) else "*" for each in outputs]
            entry["outputs"] = max(entry["outputs"], outputs, key=len)
    return stubs


def place(folder: Path, kind: str, name: str, value: Any) -> None:
    """Put a file where a node looks for the one that it has chosen."""
    known = EVOLVED.get(name, name) if kind.startswith("ADE_") else name
    if known not in FILES or not isinstance(value, str) or not value:
        return
    below, source = FILES[known]
    path = folder / below / value.removesuffix(" [input]")
    if not path.resolve().is_relative_to(folder.resolve()):
        return
    is_folder = source == "pictures" or (known == "video" and not path.suffix)
    if is_folder:
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            for number in range(PICTURES):
                Image.new("RGB", (64, 64)).save(path / f"{number}.png")
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if source == "picture":
            Image.new("RGB", (64, 64)).save(path, "PNG")
        elif source:
            shutil.copy(DEMO / source, path)
        elif known == "motion_lora":
            write_motion_lora(path)
        else:
            path.touch()


def write_motion_lora(path: Path) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    base = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0."
    base += "attention_blocks.0.processor.to_q_lora"
    tensors = {f"{base}.down.weight": torch.zeros(4, 32), f"{base}.up.weight": torch.zeros(32, 4)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def supply_everywhere(graph: dict[str, Any], prompt: dict[str, Any], known: dict[str, Any]) -> None:
    """Connect what the frontend part of use-everywhere connects when a graph is queued."""
    links = {row[0]: row for row in graph["links"] if isinstance(row, list)}
    given: list[tuple[str, str, list[Any]]] = []
    for node in graph["nodes"]:
        if "verywhere" not in node["type"] or node.get("mode", 0) in (2, 4):
            continue
        for slot in node.get("inputs", ()):
            row = links.get(slot.get("link"))
            if row and str(row[1]) in prompt:
                by_name = slot["name"] if node["type"].startswith(("Prompts", "Seed")) else ""
                given.append((by_name, row[5], [str(row[1]), row[2]]))
    for each in prompt.values():
        required = known.get(each["class_type"], {"input": {}})["input"].get("required", {})
        for name, (kind, *_) in required.items():
            for by_name, carried, source in given:
                if name not in each["inputs"] and kind == carried and by_name in name:
                    each["inputs"][name] = source


def errors_of(
    server: Server, folder: Path, graph: dict[str, Any], known: dict[str, Any]
) -> list[str]:
    if "nodes" in graph:
        prompt = convert_ui_to_api(graph, known)
        supply_everywhere(graph, prompt, known)
    else:
        prompt = graph.get("prompt", graph)
    for node in prompt.values():
        if known.get(node["class_type"], {}).get("python_module", "").endswith("stubs"):
            values = node["inputs"].items()
            node["inputs"] = {name: value for name, value in values if isinstance(value, list)}
        for name, value in node["inputs"].items():
            place(folder, node["class_type"], name, value)
    answer = server.ask("/validate_only", {"prompt": prompt})
    if answer["valid"]:
        return []
    found = [
        f"{node['class_type']} {key}: {error['type']} {error['details'][:200]}"
        for key, node in answer["errors"].items()
        for error in node["errors"]
    ]
    return found or [str(answer["error"])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("stubs", "validate"))
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    server = Server(arguments.server)
    known = server.ask("/object_info")
    if arguments.action == "stubs":
        arguments.pack.mkdir(parents=True, exist_ok=True)
        stubs = stubs_of(arguments.graphs, known)
        (arguments.pack / "stubs.json").write_text(json.dumps(stubs), encoding="utf-8")
        (arguments.pack / "__init__.py").write_text(PACK, encoding="utf-8")
        print(f"{len(stubs)} stubs")
        return 0
    counts = dict.fromkeys(("valid", "not valid", "left"), 0)
    for name, graph in graphs(arguments.graphs):
        result = convert(graph)
        if result.graph is None:
            outcome, said = "left", [result.report.reason]
        else:
            said = errors_of(server, arguments.folder, result.graph, known)
            outcome = "not valid" if said else "valid"
        counts[outcome] += 1
        print(f"{outcome:9} {name}", *said, sep="\n          ", flush=True)
    print(counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
