"""The demo: draw a clip, make tiny random weights, restyle the clip with them.

Usage: python demo/run.py [FOLDER]   (demo/out if no folder is given)
"""

from __future__ import annotations

import sys
from pathlib import Path

from animatediff_v2v.pipeline.cli import main as animatediff_v2v
from random_weights import write_weights
from source_clip import write_clip


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "out"
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / "source.mp4")
    write_weights(folder)
    command = ["run", str(folder / "source.mp4"), str(folder / "restyled.mp4")]
    command += ["--checkpoint", str(folder / "checkpoint.safetensors")]
    command += ["--motion-module", str(folder / "motion_module.safetensors")]
    command += ["--lora", f"{folder / 'style_lora.safetensors'}:0.5"]
    command += ["--prompt", "a blue ball on a beach", "--steps", "8", "--seed", "7"]
    print("animatediff-v2v", *command)
    code = animatediff_v2v(command)
    if code == 0:
        print(
            "These weights are random, so the picture is noise: it shows that reading, encoding, "
            "sampling with context windows, decoding and writing work here, sound included.\n"
            f"source:   {folder / 'source.mp4'}\nrestyled: {folder / 'restyled.mp4'}"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
