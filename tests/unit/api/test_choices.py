"""The files that hosted names refer to, and the settings that owners may use."""

from __future__ import annotations

import json

import pytest
from animatediff_v2v.api.intake.model_choice import (
    checkpoint_for,
    default_checkpoint,
    motion_lora_for,
    motion_module_for,
)
from animatediff_v2v.api.settings import Settings, load_settings
from animatediff_v2v.api.wire.problems import RequestRefused
from animatediff_v2v.pipeline import AnimateDiffV2VError


class Library:
    def __init__(self, **names):
        self._names = names

    def names(self, folder):
        return self._names.get(folder, [])

    def folders(self, folder):
        raise AssertionError


CHECKPOINTS = [
    "anything.ckpt",
    "sd15/cardosAnime_v20.safetensors",
    "darkSushiMixMix_colorful.safetensors",
    "darkSushiMixMix_colorfulPruned.safetensors",
]


@pytest.mark.parametrize(
    ("base_model", "mapping", "expected"),
    [
        ("cardosAnimev20", {}, "sd15/cardosAnime_v20.safetensors"),
        ("sd15/cardosAnime_v20.safetensors", {}, "sd15/cardosAnime_v20.safetensors"),
        ("darkSushiMixMix_colorful", {}, "darkSushiMixMix_colorful.safetensors"),
        ("DARKSUSHIMIXMIX-colorful", {}, "darkSushiMixMix_colorful.safetensors"),
        ("darkSushiMixMix", {}, None),  # a beginning is no name
        ("c", {}, None),
        ("cardosAnimev20", {"cardosAnimev20": "anything.ckpt"}, "anything.ckpt"),
        ("mine", {"mine": "anything"}, "anything.ckpt"),
        ("mine", {"mine": "gone.ckpt"}, None),
        ("unheardOf", {}, None),
        ("...", {}, None),
    ],
)
def test_base_models(base_model, mapping, expected):
    library, settings = Library(checkpoints=CHECKPOINTS), Settings(base_models=mapping)
    if expected is None:
        with pytest.raises(RequestRefused, match=r"base_models in api\.json") as caught:
            checkpoint_for(base_model, library, settings)
        (detail,) = caught.value.answer.body["detail"]
        assert detail["ctx"]["expected"] == sorted({*CHECKPOINTS, *mapping})
    else:
        assert checkpoint_for(base_model, library, settings) == expected


def test_a_name_that_matches_two_files_matches_none():
    library = Library(checkpoints=["a/real-V2.ckpt", "b/realv2.safetensors"])
    with pytest.raises(RequestRefused, match=r"can mean a/real-V2\.ckpt or b/realv2"):
        checkpoint_for("realV2", library, Settings())
    assert checkpoint_for("a/real-V2.ckpt", library, Settings()) == "a/real-V2.ckpt"


def test_endpoints_without_base_model_use_an_installed_checkpoint():
    settings = Settings()
    favourite = default_checkpoint(Library(checkpoints=CHECKPOINTS), settings)
    assert favourite == "sd15/cardosAnime_v20.safetensors"
    assert default_checkpoint(Library(checkpoints=["x.ckpt"]), settings) == "x.ckpt"
    with pytest.raises(AnimateDiffV2VError, match="No checkpoint is installed"):
        default_checkpoint(Library(), settings)


MODULES = ["AnimateLCM_sd15_t2v.ckpt", "mm_sd_v14.ckpt", "mm_sd_v15_v2.ckpt", "odd.ckpt"]


@pytest.mark.parametrize(
    ("names", "is_turbo", "values", "expected"),
    [
        (MODULES, False, {}, "mm_sd_v15_v2.ckpt"),
        (MODULES, True, {}, "AnimateLCM_sd15_t2v.ckpt"),
        ([*MODULES, "v3_sd15_mm.ckpt"], False, {}, "v3_sd15_mm.ckpt"),
        (MODULES[1:], True, {}, "mm_sd_v15_v2.ckpt"),
        (["lightning_4step.ckpt", *MODULES[1:]], True, {}, "lightning_4step.ckpt"),
        (["z.ckpt", "a.ckpt"], False, {}, "a.ckpt"),
        (MODULES, False, {"motion_module": "odd"}, "odd.ckpt"),
        (MODULES, True, {"turbo_motion_module": "mm_sd_v14.ckpt"}, "mm_sd_v14.ckpt"),
        (MODULES, True, {"turbo_motion_module": "gone"}, "turbo_motion_module of api.json, 'gone'"),
        (MODULES, False, {"motion_module": "mm_sd_v15"}, "'mm_sd_v15' .* is not installed"),
        (["a/x.ckpt", "b/x.ckpt"], False, {"motion_module": "x"}, "can mean a/x.ckpt or b/x.ckpt."),
        ([], False, {}, "No motion module is installed"),
    ],
)
def test_motion_modules(names, is_turbo, values, expected):
    library, settings = Library(animatediff_models=names), Settings(**values)
    if expected.endswith(".ckpt"):
        assert motion_module_for(library, settings, is_turbo=is_turbo) == expected
    else:
        with pytest.raises(AnimateDiffV2VError, match=expected):
            motion_module_for(library, settings, is_turbo=is_turbo)


def test_motions_are_motion_loras():
    library = Library(animatediff_motion_lora=["v2_lora_PanLeft.ckpt", "v2_lora_ZoomIn.ckpt"])
    assert motion_lora_for("zoom-in", library) == "v2_lora_ZoomIn.ckpt"
    with pytest.raises(RequestRefused, match="'tilt-up' is not installed"):
        motion_lora_for("tilt-up", library)


@pytest.mark.parametrize(
    ("content", "switch", "expected"),
    [
        (None, None, False),
        ({}, None, False),
        ({"enabled": True}, None, True),
        ({"enabled": True}, "0", False),
        (None, "1", True),
        (None, "", False),
        (None, "yes", "ANIMATEDIFF_V2V_API is 'yes'; it can be 1"),
        ({"enable": True}, None, "there is no setting enable, only enabled, "),
        ({"max_queued": 0}, None, "max_queued: Input should be greater than or equal to 1"),
        ([], None, "cannot be used"),
        ("{", None, "cannot be read as JSON"),
        (b'\xef\xbb\xbf{"enabled": true}', None, True),  # as editors on Windows begin a file
        ('{"enabled": true}'.encode("utf-16"), None, "is not UTF-8: save it as UTF-8"),
    ],
)
def test_settings(tmp_path, monkeypatch, content, switch, expected):
    monkeypatch.delenv("ANIMATEDIFF_V2V_API", raising=False)
    if switch is not None:
        monkeypatch.setenv("ANIMATEDIFF_V2V_API", switch)
    if content is not None:
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (tmp_path / "api.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(expected, bool):
        assert load_settings(tmp_path).enabled is expected
    else:
        with pytest.raises(AnimateDiffV2VError, match=expected):
            load_settings(tmp_path)
