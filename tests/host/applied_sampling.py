# ruff: noqa: E402, I001 (ComfyUI must be told what to do before its modules are imported)
"""Sample with KSampler through Apply AnimateDiff: run by ComfyUI's interpreter, not by pytest.

Usage: python applied_sampling.py CASES.json FOLDER

FOLDER holds checkpoint.safetensors, motion_module.safetensors, still.safetensors (a motion module
that changes nothing), controlnet.safetensors, lora.safetensors and inputs.safetensors. What a case
gives is written to results/<case>.safetensors: `samples`, and for a patch of ComfyUI's also
`expected`, which is ComfyUI's own sampling of the patched MODEL. Some cases are sampled by this
pack's Sampler instead of KSampler. results/said.json holds sentences: refusals and warnings.
"""

import importlib
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

# Older ComfyUIs put comfy/utils.py in front of it when their nodes are imported.
import utils.install_util  # noqa: F401

import comfy.options

comfy.options.args_parsing = False

import comfy.cli_args

comfy.cli_args.args.cpu = True

import asyncio
import logging

import comfy.gligen
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import nodes
import server
import torch

sys.path.insert(0, str(Path(__file__).parent))

from reference_models import load_control, load_model

PACK = Path(__file__).parents[2]
# Where the patches are; all of comfy_extras would take longer to import.
EXTRAS = (
    "attention_multiply",
    "differential_diffusion",
    "easycache",
    "freelunch",
    "hooks",
    "hypertile",
    "model_advanced",
)
EXTRAS += ("model_downscale", "pag", "sag", "tomesd")


def our_node():
    spec = spec_from_file_location(
        "animatediff_v2v", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    sys.modules["animatediff_v2v"] = module_from_spec(spec)
    return importlib.import_module("animatediff_v2v.nodes.apply_motion").ApplyMotion


class GivenLatents:
    """A VAE that encodes any frames as the latents that it was given."""

    latent_channels, latent_dim = 4, 2

    def __init__(self, latents):
        self.latents, self.device = list(latents), torch.device("cpu")

    def encode(self, pixels):
        return torch.stack([self.latents.pop(0) for _ in pixels])

    def decode(self, latents):
        return torch.zeros(len(latents), *(8 * side for side in latents.shape[2:]), 3)


def smoothed_energy_guidance(model, scale):
    """Blur the queries of the middle block, and guide away from the result (arXiv 2408.00760)."""

    def attention(query, key, value, extra):
        _, _, height, width = extra["original_shape"]
        pixels = query.shape[1]
        shape = tuple(round(side * (pixels / height / width) ** 0.5) for side in (height, width))
        image = query.transpose(1, 2).unflatten(2, shape)
        blurred = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
        query = blurred.flatten(2).transpose(1, 2)
        attend = comfy.ldm.modules.attention.optimized_attention
        return attend(query, key, value, extra["n_heads"], attn_precision=extra["attn_precision"])

    def guide(arguments):
        options = comfy.model_patcher.create_model_options_clone(arguments["model_options"])
        comfy.model_patcher.set_model_options_patch_replace(
            options, attention, "attn1", "middle", 0
        )
        (blurred,) = comfy.samplers.calc_cond_batch(
            arguments["model"],
            [arguments["cond"]],
            arguments["input"],
            arguments["sigma"],
            options,
        )
        return arguments["denoised"] + (arguments["cond_denoised"] - blurred) * scale

    model = model.clone()
    model.set_model_sampler_post_cfg_function(guide)
    return (model,)


def call(name, **inputs):
    if name == "SmoothedEnergyGuidance":
        return smoothed_energy_guidance(**inputs)
    node = nodes.NODE_CLASS_MAPPINGS[name]
    if hasattr(node, "define_schema"):
        outcome = node.execute(**inputs)
        return getattr(outcome, "result", outcome)
    return getattr(node(), node.FUNCTION)(**inputs)


class GivenPrompt:
    """A CLIP that encodes any text as the prompt that it was given."""

    def __init__(self, encoded):
        self._encoded = encoded

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, _tokens):
        return self._encoded


class Run:
    """A case with the networks and inputs of all."""

    def __init__(self, folder):
        self.folder = folder
        self.inputs = comfy.utils.load_torch_file(str(folder / "inputs.safetensors"))
        self.model = load_model(str(folder / "checkpoint.safetensors"))
        self.control = load_control(str(folder / "controlnet.safetensors"))
        self.node = our_node()
        pipeline = importlib.import_module("animatediff_v2v.pipeline")
        self.contexts, self.curve = pipeline.ContextOptions, pipeline.Curve

    def patched(self, case):
        model = self.model
        for name, values in case["patches"]:
            model = call(name, model=model, **values)[0]
        # Patches that change nothing: the first needs the layers one by one.
        if case["idle_patch"] == "attention":
            model = model.clone()
            model.set_model_attn2_output_patch(lambda tokens, _extra: tokens)
        if case["idle_patch"] == "guidance":
            model = model.clone()
            model.set_model_sampler_post_cfg_function(lambda arguments: arguments["denoised"])
        return model

    def guides(self, case):
        """Return the named guides of this pack's own, as its nodes pass them on."""
        pack = importlib.import_module
        host, sampling = (
            pack(f"animatediff_v2v.{name}") for name in ("nodes.host", "pipeline.sampling")
        )
        cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
        found = {"control": [], "style": []}
        for name in case["guides"]:
            path = self.folder / f"{name}.safetensors"
            if name == "ip_adapter":
                load = pack("animatediff_v2v.pipeline.models.ip_adapter").load_ip_adapter_network
                images = {"embeddings": self.inputs["embeddings"], "arrangement": "travel"}
                empty = torch.zeros_like(images["embeddings"][:1])
                link = sampling.StyleImages(adapter=load(path, **cpu), empty=empty, **images)
                found["style"].append(link)
            else:
                load = pack("animatediff_v2v.pipeline.models.controlnet").load_control_network
                frames = self.inputs["frames"][: case["frames"]]
                link = sampling.Control(network=load(path, **cpu), frames=frames, strength=0.8)
                found["control"].append(link)
        return {kind: host.Chain(tuple(links), ()) for kind, links in found.items() if links}

    def by_our_sampler(self, case):
        """Return the latents of this pack's Sampler with the patched MODEL."""
        module = importlib.import_module("animatediff_v2v.nodes.model_from_comfy")
        latents = self.inputs["latents"][: case["frames"]]
        managed = module.ModelFromComfy.execute(
            model=self.patched(case),
            clip=GivenPrompt(self.inputs["negative"]),
            vae=GivenLatents(latents),
            motion_module=case["motion"],
        ).result[0]
        window = case["window"] and self.contexts(**case["window"])
        (positive, negative), pixels = self.prompts(case)[:2], 8 * latents.shape[-1]
        torch.manual_seed(0)
        return (
            importlib.import_module("animatediff_v2v.nodes.sampler")
            .Sampler.execute(
                model=managed,
                images=torch.zeros(len(latents), pixels, pixels, 3),
                positive="",
                negative="",
                positive_conditioning=positive,
                negative_conditioning=negative,
                steps=case["steps"],
                guidance_scale=case["cfg"],
                sampler=case["sampler"],
                scheduler=case["scheduler"],
                denoise=case["denoise"],
                seed=7,
                context_options=window or None,
                beta_schedule="linear",
                source_mask=self.inputs["masks"][: len(latents)] if case["masked"] else None,
                **case["sampler_options"],
                **self.guides(case),
            )
            .result[1]["samples"]
        )

    def samples(self, case, *, motion):
        model = self.patched(case)
        if motion is not None:
            window = case["window"] and self.contexts(**case["window"])
            options = case["options"] | {"context_options": window or None}
            options |= {name: self.curve(text) for name, text in case["curves"].items()}
            if case["motion_masks"]:
                masks = self.inputs["masks"][: case["frames"]]
                options |= {"motion_scale_mask": masks, "motion_effect_mask": masks[:1]}
            model = self.node.execute(model=model, motion_module=motion, **options).result[0]
        positive, negative = self.prompts(case)
        latents = self.inputs["latents"][: case["frames"]]
        mask = self.inputs["masks"][: case["frames"]] if case["masked"] else None
        torch.manual_seed(0)
        return comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(latents, 7),
            case["steps"],
            case["cfg"],
            case["sampler"],
            case["scheduler"],
            positive,
            negative,
            latents,
            denoise=case["denoise"],
            noise_mask=mask,
            disable_pbar=True,
            seed=7,
        )

    def prompts(self, case):
        positive, negative = ([[self.inputs[n], {}]] for n in ("positive", "negative"))
        kind = case["prompts"]
        if kind == "each frame":
            positive = [[self.inputs["each"][: case["frames"]], {}]]
        if kind == "control":
            frames = self.inputs["frames"][: case["frames"]]
            given = {"control_net": self.control, "image": frames, "strength": 0.8}
            given |= {"start_percent": 0.0, "end_percent": 1.0}
            return call("ControlNetApplyAdvanced", positive=positive, negative=negative, **given)
        if kind == "area":
            area = {"width": 32, "height": 64, "x": 24, "y": 0, "strength": 1.5}
            return positive + call("ConditioningSetArea", conditioning=negative, **area)[
                0
            ], negative
        if kind == "mask":
            given = {"strength": 1.0, "set_cond_area": "default"}
            masks = self.inputs["masks"][: case["frames"]]
            masked = call("ConditioningSetMask", conditioning=negative, mask=masks, **given)[0]
            return positive + masked, negative
        if kind == "time":
            parts = [
                call("ConditioningSetTimestepRange", conditioning=each, start=start, end=end)[0]
                for each, start, end in ((positive, 0.0, 0.5), (negative, 0.5, 1.0))
            ]
            return parts[0] + parts[1], negative
        if kind == "hooks":
            hooks = call("CreateHookLoraModelOnly", lora_name="lora.safetensors", strength_model=1)[
                0
            ]
            keyframes = call(
                "CreateHookKeyframe", strength_mult=0.2, start_percent=0.0, prev_hook_kf=None
            )[0]
            hooks = call("SetHookKeyframes", hooks=hooks, hook_kf=keyframes)[0]
            given = {"strength": 1.0, "set_cond_area": "default", "hooks": hooks}
            return call(
                "PairConditioningSetProperties",
                positive_NEW=positive,
                negative_NEW=negative,
                **given,
            )
        return positive, negative

    def said(self):
        """Return refusals and warnings by name."""
        still = {"motion_module": "still.safetensors"}
        applied = self.node.execute(model=self.model, **still).result[0]
        unknown = applied.clone()
        unknown.set_model_patch(lambda x: x, "double_block_patch")
        return {
            "applied twice": refusal(lambda: self.node.execute(model=applied, **still)),
            "gligen": refusal(lambda: self.with_gligen(applied)),
            **{
                f"not SD1.5: {kind}": refusal(
                    lambda model=model: self.node.execute(model=model, **still)
                )
                for kind, model in other_models().items()
            },
            "unknown patch": warnings(lambda: self.simply(unknown)),
            "masks of another count": refusal(lambda: self.simply(self.with_masks(3))),
            "stopped after": stopped_after(self.simply, applied),
            "beside injected": self.beside_injected(still),
            "means": self.means(),
            "room with ContextRef": self.room(memory="ContextRef"),
            "room with FeatureBank": self.room(memory="FeatureBank"),
        }

    def with_masks(self, count):
        motion = {"motion_module": "motion_module.safetensors"}
        masks = self.inputs["masks"][:count]
        return self.node.execute(model=self.model, motion_effect_mask=masks, **motion).result[0]

    def means(self):
        """Return what each public means of ComfyUI did while 8 frames were sampled by fours."""
        windows = self.contexts(length=4, overlap=2)
        applied = self.node.execute(
            model=self.model, motion_module="motion_module.safetensors", context_options=windows
        ).result[0]
        kinds = comfy.patcher_extension.WrappersMP
        known, found = {kinds.DIFFUSION_MODEL: [], kinds.PREPARE_SAMPLING: []}, {}
        found["wrappers"] = sorted(name for name, each in applied.wrappers.items() if any(each))
        found["object_patches"] = list(applied.object_patches)
        found["other_means"] = [
            *filter(None, (applied.callbacks, applied.injections, applied.hook_patches))
        ]
        (motion,) = applied.get_additional_models()
        levels = applied.get_model_object("model_sampling").sigmas
        found["highest_level"] = round(float(levels[-1]), 3)

        def prepare(execute, model, shape, *args, **kwargs):
            known[kinds.PREPARE_SAMPLING].append(shape[0])
            return execute(model, shape, *args, **kwargs)

        def see(tokens, _extra):
            known[kinds.DIFFUSION_MODEL].append(len(tokens))
            loaded = comfy.model_management.current_loaded_models
            found["motion_is_loaded"] = any(each.model is motion for each in loaded)
            return tokens

        applied.add_wrapper_with_key(kinds.PREPARE_SAMPLING, "test", prepare)
        applied.set_model_attn1_output_patch(see)
        self.simply(applied)
        found["rows"] = sorted(set(known[kinds.DIFFUSION_MODEL]))
        found["frames_to_make_room_for"] = known[kinds.PREPARE_SAMPLING]
        return found

    def room(self, **window):
        """Return the frames that ComfyUI makes room for, of 8 frames in windows of 4."""
        applied = self.node.execute(
            model=self.model,
            motion_module="motion_module.safetensors",
            context_options=self.contexts(length=4, overlap=2, **window),
        ).result[0]
        shapes = []

        def prepare(execute, model, shape, *args, **kwargs):
            shapes.append(shape[0])
            return execute(model, shape, *args, **kwargs)

        kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
        applied.add_wrapper_with_key(kind, "test", prepare)
        self.simply(applied)
        return shapes

    def simply(self, model, positive=None):
        """Sample 8 frames in 2 steps."""
        prompt = [[self.inputs["positive"], {}]]
        latents = torch.zeros(8, 4, 8, 8)
        noise = comfy.sample.prepare_noise(latents, 7)
        more = {"positive": positive or prompt, "negative": prompt, "disable_pbar": True}
        return comfy.sample.sample(
            model,
            noise,
            steps=2,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            latent_image=latents,
            **more,
        )

    def with_gligen(self, model):
        place = comfy.gligen.PositionNet(8, 8)
        patcher = comfy.model_patcher.ModelPatcher(
            comfy.gligen.Gligen([], place, 8), torch.device("cpu"), torch.device("cpu")
        )
        boxes = ("position", patcher, [(torch.zeros(1, 8), 4, 4, 0, 0)])
        return self.simply(model, [[self.inputs["positive"], {"gligen": boxes}]])

    def beside_injected(self, still):
        """Return the number of tensors that another pack's network adds while it is in the UNet."""
        blocks = self.model.model.diffusion_model.input_blocks
        injected = self.model.clone()
        injection = comfy.model_patcher.PatcherInjection(
            inject=lambda _patcher: blocks[1].append(torch.nn.Identity()),
            eject=lambda _patcher: blocks[1].pop(-1),
        )
        injected.set_injections("other", [injection])
        self.simply(injected)
        layers = len(blocks[1])
        self.simply(self.node.execute(model=self.model, **still).result[0])
        return [layers, len(blocks[1])]


def other_models():
    """Return MODELs that are not of Stable Diffusion 1.5, as far as the node looks at them."""
    sizes = {"image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32}
    sizes |= {"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1]}
    sizes |= {"transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1}
    sizes |= {"num_head_channels": 32, "use_spatial_transformer": True, "context_dim": 768}
    unet = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel
    networks = {
        "Flux": torch.nn.Linear(2, 2),
        "SDXL": unet(**sizes | {"context_dim": 2048}),
        "SD20": unet(**sizes | {"context_dim": 1024}),
        "inpainting": unet(**sizes | {"in_channels": 9}),
    }
    models = {}
    for kind, network in networks.items():
        named = type(kind, (torch.nn.Module,), {})()
        named.diffusion_model = network
        cpu = torch.device("cpu")
        models[kind] = comfy.model_patcher.ModelPatcher(named, cpu, cpu)
    return models


def refusal(run):
    try:
        run()
    except sys.modules["animatediff_v2v.pipeline"].AnimateDiffV2VError as error:
        return str(error)
    return None


def warnings(run):
    """Return the warnings of the pack during a run."""
    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger("animatediff_v2v").addHandler(handler)
    run()
    logging.getLogger("animatediff_v2v").removeHandler(handler)
    return found


def stopped_after(sample, model):
    """Return how many passes of a layer there are after Cancel in the first one."""
    passes = []

    def cancel(tokens, _extra):
        passes.append(tokens.shape[0])
        comfy.model_management.interrupt_current_processing(True)
        return tokens

    model = model.clone()
    model.set_model_attn1_output_patch(cancel)
    try:
        sample(model)
    except comfy.model_management.InterruptProcessingException:
        return len(passes)
    return None


def main():
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for name in EXTRAS:
        path = Path.cwd() / "comfy_extras" / f"nodes_{name}.py"
        assert asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras")), name
    (folder / "results").mkdir(exist_ok=True)
    for kind in ("animatediff_models", "animatediff_motion_lora", "loras"):
        folder_paths.add_model_folder_path(kind, str(folder))
    folder_paths.set_user_directory(str(folder))
    server.PromptServer(asyncio.new_event_loop())
    run = Run(folder)
    for name, case in cases.items():
        with torch.inference_mode():
            if case["by_our_sampler"]:
                found = {"samples": run.by_our_sampler(case)}
            else:
                found = {"samples": run.samples(case, motion=case["motion"])}
                if case["motion"] == "still.safetensors":
                    found["expected"] = run.samples(case, motion=None)
        found = {key: each.contiguous() for key, each in found.items()}
        comfy.utils.save_torch_file(found, str(folder / "results" / f"{name}.safetensors"))
    with torch.inference_mode():
        said = run.said()
    (folder / "results" / "said.json").write_text(json.dumps(said))


main()
