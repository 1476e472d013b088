"""A folder of videos in one node: what is done is skipped, what fails is put aside."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io

from ..batch.unit import Shots
from . import host
from .batch_jobs import batch_jobs
from .checks import CheckedNode, Problem, problem_of
from .encode_video import shown
from .inputs import seed_input, steps_problem, style_input
from .job_inputs import FORMAT, JobInputs, frame_inputs, setting_inputs, speed_socket
from .loading import named
from .model_checks import file_problem
from .sockets import CATEGORY

OUTPUT_FOLDER = "video/batch"


class Batch(CheckedNode):
    """Restyles a folder of videos."""

    wider_than_widget = ("num_inference_steps",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_Batch",
            display_name="AnimateDiff Batch of Videos",
            category=CATEGORY,
            description="Restyle all videos of a folder, one after another. Run again, it goes on "
            "where it was: what is done and unchanged is skipped. A page shows sources and results "
            "side by side.",
            search_aliases=[
                "animatediff",
                "batch video",
                "folder of videos",
                "restyle folder",
                "vid2vid",
                "v2v",
                "vhs",
                "evolved",
                "batch manager",
            ],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=_inputs(),
            outputs=[
                io.String.Output(
                    display_name="folder", tooltip="The path of the folder with the results."
                ),
                io.Int.Output(display_name="done", tooltip="Number of clips that are done."),
                io.Int.Output(
                    display_name="failed",
                    tooltip="Number of clips that were put aside; the page says why.",
                ),
                io.String.Output(
                    display_name="page",
                    tooltip="The path of index.html, which plays sources and results together.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        clips: str,
        output_folder: str = OUTPUT_FOLDER,
        shots: Shots = "scenes",
        style: host.Chain | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Restyle the clips; `settings` are as in VideoToVideo."""
        from .batch_work import restyle_clips  # noqa: PLC0415 - loads the networks

        folder, chain = host.batch_folder(output_folder), style or host.Chain()
        metadata = host.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        jobs = batch_jobs(clips, folder, JobInputs(**settings), style=chain, metadata=metadata)
        with host.warnings_on_node() as say:
            made = restyle_clips(jobs, folder, shots=shots, style=chain, say=say)
        results = [host.batch_file(path) for path in made.done]
        return io.NodeOutput(
            str(folder),
            len(made.done),
            made.failed,
            str(made.page),
            ui=shown(results, FORMAT, path=made.page),
        )

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        num_inference_steps: int | None = None,
        clips: str | None = None,
        output_folder: str | None = None,
        base_model: str | None = None,
        motion_module: str | None = None,
    ) -> Problem | None:
        """Find clips and folders that cannot be used, and wrong files and numbers of steps."""
        found = None
        if clips is not None:
            found = problem_of(lambda: host.clips_path(clips), "clips")
        if output_folder is not None:
            found = found or problem_of(lambda: host.batch_folder(output_folder), "output_folder")
        return (
            found
            or steps_problem("num_inference_steps", num_inference_steps)
            or file_problem(
                base_model=("checkpoints", base_model),
                motion_module=(host.MOTION_MODULES, named(motion_module)),
            )
        )

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> int:
        """Always run again: clips come and go, and a run in which all is done takes a moment."""
        return time.time_ns()


def _inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "clips",
            default="",
            tooltip="A folder in ComfyUI's input folder, at any depth; a pattern such as "
            "shots/*.mp4; or a table (.csv, .jsonl) with a column input, and columns for the "
            "settings of each clip.",
        ),
        *setting_inputs(seed_input(control_after_generate=False)),
        io.String.Input(
            "output_folder",
            default=OUTPUT_FOLDER,
            optional=True,
            tooltip="The folder below ComfyUI's output folder for the results. The same folder "
            "and settings go on where an earlier run ended.",
        ),
        io.Combo.Input(
            "shots",
            options=["scenes", "whole"],
            default="scenes",
            optional=True,
            advanced=True,
            tooltip="scenes: cut clips at scene changes, restyle each shot on its own, and join "
            "them again. whole: cut only clips of more than 256 frames, into parts that overlap.",
        ),
        speed_socket(),
        style_input(),
        *frame_inputs(),
    ]
