"""The socket types of this pack; comments name the Python types of their values."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "AnimateDiff V2V"

# host.ManagedModels
Model = io.Custom("ADV2V_MODEL")
# pipeline.sampling.ContextOptions
Context = io.Custom("ADV2V_CONTEXT_OPTIONS")
# pipeline.prompts.PromptSchedule
Schedule = io.Custom("ADV2V_PROMPT_SCHEDULE")
# list[tuple[str, float, float]]: name in models/loras, model strength, clip strength; the
# convention of many packs
LoraStackSocket = io.Custom("LORA_STACK")
# list[tuple[str, float]]: name in models/animatediff_motion_lora, strength
MotionLoraStackSocket = io.Custom("ADV2V_MOTION_LORA_STACK")
# host.Chain of pipeline.sampling.Control and Keyframes
ControlSocket = io.Custom("ADV2V_CONTROL")
# host.Chain of pipeline.sampling.StyleImages
StyleSocket = io.Custom("ADV2V_STYLE")
# pipeline.FreeInit
FreeInitSocket = io.Custom("ADV2V_FREE_INIT")
# pipeline.SpeedOptions
SpeedSocket = io.Custom("ADV2V_SPEED")
# ComfyUI's own: a ModelPatcher of torchvision's RAFT
OpticalFlow = io.Custom("OPTICAL_FLOW")
# dict of five source_ and five loaded_ values; the convention of VideoHelperSuite
VideoInfoSocket = io.Custom("VHS_VIDEOINFO")
