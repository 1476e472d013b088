"""Each family's formula gives the same result as LyCORIS, for linear layers and convolutions."""

import pytest
import torch
from animatediff_v2v.pipeline.files.lora_families import family_name, family_of
from animatediff_v2v.pipeline.files.lora_formulas import add_change
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lycoris")
from lycoris import functional
from lycoris.functional import boft, diag_oft, locon, loha, lokr
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule

OUT, IN, RANK, ALPHA = 16, 24, 4, 2.0
LAYERS = {
    "linear": torch.nn.Linear(IN, OUT),
    "convolution": torch.nn.Conv2d(IN, OUT, 3, padding=1),
    "1x1 convolution": torch.nn.Conv2d(IN, OUT, 1),
}
SCALE = ALPHA / RANK
ALPHA_TENSOR = torch.tensor(ALPHA)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_of(layer):
    return random(*LAYERS[layer].weight.shape, seed=99)


def lora(weight):
    kernel = weight.shape[2:]
    up = random(OUT, RANK, *[1] * len(kernel), seed=1)
    down = random(RANK, IN, *kernel, seed=2)
    delta = locon.diff_weight(down, up, None, gamma=SCALE)
    return {"lora_up": up, "lora_down": down, "alpha": ALPHA_TENSOR}, weight + delta


def lora_without_alpha(weight):
    parameters, _ = lora(weight)
    del parameters["alpha"]
    up, down = parameters["lora_up"], parameters["lora_down"]
    return parameters, weight + locon.diff_weight(down, up, None, gamma=1.0)


def tucker(weight):
    kernel = weight.shape[2:]
    up, down = random(OUT, RANK, 1, 1, seed=1), random(RANK, IN, 1, 1, seed=2)
    mid = random(RANK, RANK, *kernel, seed=3)
    parameters = {"lora_up": up, "lora_down": down, "lora_mid": mid, "alpha": ALPHA_TENSOR}
    return parameters, weight + locon.diff_weight(down, up, mid, gamma=SCALE)


def hada(weight):
    size = weight[0].numel()
    a1, b1 = random(OUT, RANK, seed=1), random(RANK, size, seed=2)
    a2, b2 = random(OUT, RANK, seed=3), random(RANK, size, seed=4)
    parameters = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}
    delta = loha.diff_weight(b1, a1, b2, a2, None, None, gamma=torch.tensor(SCALE))
    return parameters | {"alpha": ALPHA_TENSOR}, weight + delta.reshape(weight.shape)


def hada_tucker(weight):
    a1, b1 = random(RANK, OUT, seed=1), random(RANK, IN, seed=2)
    a2, b2 = random(RANK, OUT, seed=3), random(RANK, IN, seed=4)
    t1, t2 = (random(RANK, RANK, *weight.shape[2:], seed=seed) for seed in (5, 6))
    parameters = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}
    parameters |= {"hada_t1": t1, "hada_t2": t2, "alpha": ALPHA_TENSOR}
    return parameters, weight + loha.diff_weight(b1, a1, b2, a2, t1, t2, gamma=SCALE)


def kron(weight, *, first, second):
    kernel = weight.shape[2:]
    whole1, a1, b1 = random(4, 4, seed=1), random(4, RANK, seed=2), random(RANK, 4, seed=3)
    rows, columns = OUT // 4, IN // 4
    whole2 = random(rows, columns, *kernel, seed=4)
    a2 = random(rows, RANK, seed=5)
    b2 = random(RANK, columns * kernel.numel(), seed=6)
    core = None
    if second == "tucker":
        a2, b2 = random(RANK, rows, seed=5), random(RANK, columns, seed=6)
        core = random(RANK, RANK, *kernel, seed=7)
    parts = {
        "lokr_w1": whole1 if first == "whole" else None,
        "lokr_w1_a": None if first == "whole" else a1,
        "lokr_w1_b": None if first == "whole" else b1,
        "lokr_w2": whole2 if second == "whole" else None,
        "lokr_w2_a": None if second == "whole" else a2,
        "lokr_w2_b": None if second == "whole" else b2,
        "lokr_t2": core,
    }
    parameters = {name: tensor for name, tensor in parts.items() if tensor is not None}
    ranked = first != "whole" or second != "whole"
    delta = lokr.diff_weight(*parts.values(), gamma=ALPHA if ranked else 1.0)
    return parameters | {"alpha": ALPHA_TENSOR}, weight + delta.reshape(weight.shape)


def module_case(module_class, layer_weight, **options):
    """Fill one of LyCORIS' modules with random numbers; return its state and its merged weight."""
    shape = layer_weight.shape
    layer = torch.nn.Linear(IN, OUT) if len(shape) == 2 else torch.nn.Conv2d(IN, OUT, shape[2:])
    layer.weight.data.copy_(layer_weight)
    module = module_class("case", layer, 1.0, RANK, ALPHA, **options)
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = random(*parameter.shape, seed=seed) + (parameter.ndim == 1)
    with torch.no_grad():
        merged = module.get_merged_weight(1.0)[0]
    names = {name: name.removesuffix(".weight") for name in module.state_dict()}
    state = {names[name]: tensor.detach() for name, tensor in module.state_dict().items()}
    return state, merged.detach()


def dora(weight, *, on_out):
    return module_case(LoConModule, weight, weight_decompose=True, wd_on_out=on_out)


def dora_peft(weight):
    parameters, merged = dora(weight, on_out=True)
    return parameters | {"dora_scale": parameters["dora_scale"].flatten()}, merged


def dora_on_hada(weight):
    parameters, _ = hada(weight)
    magnitude = random(1, IN, *[1] * (weight.ndim - 2), seed=9).abs() + 1
    change = torch.zeros_like(weight)
    add_change(change, parameters, strength=1.0)
    merged = functional.apply_dora_scale(weight, change, magnitude, 1.0)
    return parameters | {"dora_scale": magnitude}, merged


def ia3(weight, *, on_input):
    return module_case(IA3Module, weight, train_on_input=on_input)


def whole_difference(weight):
    diff = random(*weight.shape, seed=1)
    return {"diff": diff}, functional.add_scaled(weight, diff)


def oft(weight, *, limit, rescale, stages=None):
    blocks = random(*[stages] * bool(stages), OUT // 4, 4, 4, seed=1)
    parameters = {"oft_blocks": blocks, "alpha": torch.tensor(limit)}
    factor = random(OUT, *[1] * (weight.ndim - 1), seed=2) if rescale else None
    if rescale:
        parameters["rescale"] = factor
    module = boft if stages else diag_oft
    return parameters, weight + module.diff_weight(weight, blocks, factor, constraint=limit * OUT)


EVERY = ("linear", "convolution", "1x1 convolution")
CASES = {
    "LoRA": (lora, EVERY),
    "LoRA without alpha": (lora_without_alpha, EVERY),
    "LoCon (Tucker)": (tucker, EVERY[1:]),
    "LoHa": (hada, EVERY),
    "LoHa (Tucker)": (hada_tucker, EVERY[1:]),
    "LoKr": (lambda w: kron(w, first="whole", second="whole"), EVERY),
    "LoKr, first in low rank": (lambda w: kron(w, first="low rank", second="whole"), EVERY),
    "LoKr, second in low rank": (lambda w: kron(w, first="whole", second="low rank"), EVERY),
    "LoKr, both in low rank": (lambda w: kron(w, first="low rank", second="low rank"), EVERY),
    "LoKr (Tucker)": (lambda w: kron(w, first="whole", second="tucker"), EVERY[1:]),
    "DoRA": (lambda w: dora(w, on_out=True), EVERY),
    "DoRA by input": (lambda w: dora(w, on_out=False), EVERY),
    "DoRA as PEFT writes it": (dora_peft, EVERY),
    "LoHa with DoRA": (dora_on_hada, EVERY),
    "GLoRA": (lambda w: module_case(GLoRAModule, w), EVERY),
    "(IA)^3 on input": (lambda w: ia3(w, on_input=True), EVERY),
    "(IA)^3 on output": (lambda w: ia3(w, on_input=False), EVERY),
    "full difference": (whole_difference, EVERY),
    "OFT": (lambda w: oft(w, limit=0.0, rescale=False), EVERY),
    "OFT, limited": (lambda w: oft(w, limit=0.1, rescale=False), EVERY),
    "OFT, rescaled": (lambda w: oft(w, limit=0.0, rescale=True), EVERY),
    "BOFT": (lambda w: oft(w, limit=0.0, rescale=False, stages=3), EVERY),
    "BOFT, limited and rescaled": (lambda w: oft(w, limit=0.1, rescale=True, stages=3), EVERY),
}
TABLE = [(case, layer) for case, (_, layers) in CASES.items() for layer in layers]


@pytest.mark.parametrize(("case", "layer"), TABLE)
def test_equals_lycoris(case, layer):
    weight = weight_of(layer)
    parameters, expected = CASES[case][0](weight)
    merged = add_change(weight.clone(), parameters, strength=1.0)
    error = (merged - expected).norm() / (expected - weight).norm()
    assert error < 1e-5
    assert (expected - weight).norm() > 0.1


@pytest.mark.parametrize(("case", "layer"), TABLE)
def test_strength_scales_the_change(case, layer):
    """W + strength * delta, for all but BOFT, whose stages are blended one by one."""
    weight = weight_of(layer)
    parameters, expected = CASES[case][0](weight)
    merged = add_change(weight.clone(), parameters, strength=0.3)
    if case.startswith("BOFT"):
        limit = float(parameters["alpha"]) * OUT
        blocks, rescale = parameters["oft_blocks"], parameters.get("rescale")
        delta = boft.diff_weight(weight, blocks, rescale, constraint=limit, scale=0.3)
    else:
        delta = 0.3 * (expected - weight)
    torch.testing.assert_close(merged, weight + delta, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "layer"), TABLE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_precision_is_widened_first(case, layer, dtype):
    weight = weight_of(layer)
    parameters, _ = CASES[case][0](weight)
    stored = {
        name: tensor.to(dtype) if tensor.ndim else tensor for name, tensor in parameters.items()
    }
    wide = {name: tensor.float() for name, tensor in stored.items()}
    found = add_change(weight.clone(), stored, strength=0.5)
    torch.testing.assert_close(found, add_change(weight.clone(), wide, strength=0.5))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    rank=st.integers(1, 6),
    strength=st.floats(-2, 2),
    alpha=st.floats(0.125, 64),
)
def test_low_rank_of_any_shape(rows, columns, rank, strength, alpha):
    weight = random(rows, columns, seed=1)
    up, down = random(rows, rank, seed=2), random(rank, columns, seed=3)
    parameters = {"lora_up": up, "lora_down": down, "alpha": torch.tensor(alpha)}
    merged = add_change(weight.clone(), parameters, strength=strength)
    expected = weight + strength * alpha / rank * (up @ down)
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["LoRA", "LoHa", "LoKr, both in low rank", "GLoRA"])
def test_an_alpha_of_zero_changes_nothing(case):
    """As in ComfyUI, for every family that scales by alpha over rank."""
    weight = weight_of("linear")
    parameters, _ = CASES[case][0](weight)
    found = add_change(weight.clone(), parameters | {"alpha": torch.tensor(0.0)}, strength=1.0)
    assert torch.equal(found, weight)


NO_RANK = {
    "LoRA": {"lora_up": (OUT, 0), "lora_down": (0, IN)},
    "LoCon": {"lora_up": (OUT, 0, 1, 1), "lora_down": (0, IN, 3, 3)},
    "LoCon (Tucker)": {
        "lora_up": (OUT, 0, 1, 1),
        "lora_down": (0, IN, 1, 1),
        "lora_mid": (0, 0, 3, 3),
    },
    "LoHa": {
        "hada_w1_a": (OUT, 0),
        "hada_w1_b": (0, IN),
        "hada_w2_a": (OUT, 0),
        "hada_w2_b": (0, IN),
    },
    "LoKr": {
        "lokr_w1_a": (4, 0),
        "lokr_w1_b": (0, 4),
        "lokr_w2_a": (OUT // 4, 0),
        "lokr_w2_b": (0, IN // 4),
    },
    "GLoRA": {"a1": (IN, 0), "a2": (0, IN), "b1": (OUT, 0), "b2": (0, IN)},
}


@pytest.mark.parametrize("alpha", [None, 0.0, 8.0])
@pytest.mark.parametrize("case", NO_RANK)
def test_a_rank_of_zero_changes_nothing(case, alpha):
    weight = weight_of("convolution" if case.startswith("LoCon") else "linear")
    parameters = {name: torch.zeros(shape) for name, shape in NO_RANK[case].items()}
    if alpha is not None:
        parameters["alpha"] = torch.tensor(alpha)
    assert torch.equal(add_change(weight.clone(), parameters, strength=1.0), weight)


@pytest.mark.parametrize("case", ["LoRA", "LoHa", "LoKr", "GLoRA", "OFT", "full difference"])
def test_wrong_shapes_are_refused(case):
    parameters, _ = CASES[case][0](weight_of("linear"))
    with pytest.raises((ValueError, RuntimeError)):
        add_change(torch.zeros(OUT + 1, IN + 1), parameters, strength=1.0)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"lora_up": (4, 2), "lora_down": (2, 4)}, "LoRA"),
        ({"lora_up": (4, 2, 1, 1), "lora_down": (2, 4, 3, 3)}, "LoCon"),
        ({"lora_up": (4, 2), "lora_down": (2, 4), "dora_scale": (4, 1)}, "DoRA"),
        ({"oft_blocks": (2, 4, 4)}, "OFT"),
        ({"oft_blocks": (2, 2, 4, 4)}, "BOFT"),
        ({"weight": (4,), "on_input": ()}, "(IA)^3"),
        ({"weight": (4,)}, ""),
        ({"lora_up": (4, 2)}, ""),
        ({"hada_w1_a": (4, 2), "hada_w1_b": (2, 4), "hada_w2_a": (4, 2)}, ""),
    ],
)
def test_names(parameters, name):
    assert family_name(parameters) == name
    assert (family_of(parameters) is None) == (name == "")
