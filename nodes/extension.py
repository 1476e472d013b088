"""The extension that ComfyUI loads, with the list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply_motion import ApplyMotion
from .batch import Batch
from .context_options import ContextWindows
from .control_frames import ControlFrames
from .control_net import ControlNet
from .convert_route import add_convert_routes
from .encode_video import EncodeVideo
from .free_init import FreeInitOptions
from .host import register_model_folders, remember_submitted_prompts
from .hosted_api.mount import add_hosted_api
from .ip_adapter import IPAdapter
from .keyframes import KeyframePictures
from .load_model import LoadModel
from .load_video import LoadVideo
from .lora_stack import LoraStack
from .match_source import MatchSource
from .miniature_route import add_miniature_route
from .model_from_comfy import ModelFromComfy
from .motion_lora import MotionLoraStack
from .prompt_schedule import PromptSchedule
from .prompt_travel import PromptTravel
from .replacements import register_replacements
from .restore_frames import RestoreFrames
from .sampler import Sampler
from .select_frames import SelectFrames
from .selection_route import add_selection_route
from .speed import Speed
from .strength_curve import StrengthCurve, add_curve_route
from .video_info import VideoInfo
from .video_to_video import VideoToVideo


class AnimateDiffV2VExtension(ComfyExtension):
    """AnimateDiff video-to-video."""

    async def on_load(self) -> None:
        """Register model folders, before combos list them, and the routes and handlers."""
        register_model_folders()
        remember_submitted_prompts()
        add_selection_route()
        add_curve_route()
        add_miniature_route()
        add_convert_routes()
        add_hosted_api()
        await register_replacements()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return all nodes, in the order of a typical graph."""
        return [
            LoadVideo,
            SelectFrames,
            LoraStack,
            MotionLoraStack,
            LoadModel,
            ModelFromComfy,
            ContextWindows,
            PromptSchedule,
            ControlFrames,
            ControlNet,
            KeyframePictures,
            IPAdapter,
            Speed,
            FreeInitOptions,
            StrengthCurve,
            Sampler,
            MatchSource,
            RestoreFrames,
            EncodeVideo,
            VideoToVideo,
            ApplyMotion,
            PromptTravel,
            VideoInfo,
            Batch,
        ]
