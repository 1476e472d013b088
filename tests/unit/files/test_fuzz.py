"""Corrupted and hostile files load or give the pack's own error, and never run code.

ADV2V_FUZZ_FILES sets how many corrupted files are tried; the suite takes a sample.
"""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import (
    LoraEntry,
    identify,
    load_checkpoint,
    load_control,
    load_ip_adapter,
    load_motion_module,
    load_text_encoder,
    load_vae,
    merge_loras,
    read_weights,
)
from animatediff_v2v.pipeline.prompts.embeddings import read_embedding
from safetensors.torch import save as safetensors_bytes

from . import miniatures as mini

FILES = int(os.environ.get("ADV2V_FUZZ_FILES", "200"))
BATCH = 50
LARGEST_GROWTH_BYTES = 1_000_000_000


def torch_bytes(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def scaled_checkpoint():
    """Return a checkpoint with every format of scaled weights."""
    tensors = {}
    formats = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "mxfp8")
    for index, (name, tensor) in enumerate(mini.tiny_checkpoint().items()):
        tensors[name] = tensor
        if name.endswith(".weight") and tensor.ndim == 2:
            layer, stored = name.removesuffix(".weight"), formats[index % 4]
            dtype = {"int8_tensorwise": torch.int8, "mxfp8": torch.float8_e4m3fn}.get(stored)
            tensors[name] = tensor.to(dtype or getattr(torch, stored))
            tensors[f"{layer}.weight_scale"] = torch.ones(())
            text = json.dumps({"format": stored}).encode()
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
            if stored == "mxfp8":
                tiles = -(-tensor.shape[0] // 128) * -(-(tensor.shape[1] // 32) // 4)
                tensors[f"{layer}.weight_scale"] = torch.full(
                    (tiles * 512,), 127, dtype=torch.uint8
                )
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def seeds():
    """Small files of each layout, as bytes."""
    half = {"dtype": torch.float16}
    checkpoint = {n: t.to(**half) for n, t in mini.tiny_checkpoint().items()}
    motion = mini.motion_to_original(mini.state(mini.motion_module(channels=(32,))))
    motion = {name: tensor.to(**half).contiguous() for name, tensor in motion.items()}
    lora = mini.every_lora_family()
    control = mini.control_to_ldm(mini.state(mini.control_module(channels=(32,), attends=(True,))))
    control = {name: tensor.to(**half).contiguous() for name, tensor in control.items()}
    adapter = {name: tensor.to(**half) for name, tensor in mini.adapter_to_original((32,)).items()}
    legacy = {"_use_new_zipfile_serialization": False}
    vectors = torch.zeros(4, 768)
    return [
        safetensors_bytes(scaled_checkpoint()),
        safetensors_bytes({f"module.{name}": tensor for name, tensor in lora.items()}),
        safetensors_bytes({"transformer_blocks.0.attn.add_k_proj.lora_A.weight": vectors}),
        torch_bytes({"string_to_param": torch.nn.ParameterDict({"*": vectors}), "step": 1}),
        torch_bytes([{"<cat>": vectors[0]}, {"<dog>": vectors}]),
        safetensors_bytes({"clip_l": vectors}),
        safetensors_bytes(checkpoint),
        safetensors_bytes(motion),
        safetensors_bytes(lora),
        safetensors_bytes(control),
        safetensors_bytes(adapter),
        safetensors_bytes(mini.ip_adapter("plus")),
        safetensors_bytes(mini.ip_adapter("base")),
        torch_bytes({"state_dict": motion, "epoch": 1}),
        torch_bytes(lora),
        torch_bytes(motion, **legacy),
        torch_bytes({"state_dict": checkpoint}),
    ]


def flip(data, rng):
    data = bytearray(data)
    first, last = rng.choice([(0, 16), (8, 200), (200, 20_000), (200, 20_000), (16, len(data))])
    last = min(len(data), last)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        position = rng.randrange(min(first, last - 1), last)
        data[position] = rng.choice([rng.randrange(256), data[position] ^ 1, ord("9")])
    return bytes(data)


def cut(data, rng):
    return data[: rng.choice([rng.randrange(len(data)), rng.randrange(200), len(data) - 1])]


def lengthen_header(data, rng):
    length = rng.choice([0, 1, 2**16, 99_999_999, 2**31, 2**63 - 1, 2**64 - 1, rng.getrandbits(24)])
    return struct.pack("<Q", length) + data[8:]


def rewrite_header(data, rng):
    """Change dtypes, shapes and offsets in a safetensors header that stays valid JSON."""
    length = struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0]
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:  # it is no safetensors file, or not any more
        return flip(data, rng)
    for name in rng.sample(sorted(header), min(5, len(header))):
        entry = header[name]
        change = rng.randrange(5)
        if change == 0:
            entry["dtype"] = rng.choice(["F8_E4M3", "F64", "BOOL", "I8", "F99", 3])
        elif change == 1:
            entry["shape"] = rng.choice([[], [2**62, 4], [-1], [0], [1, 1, 1, 1, 1, 1], "x"])
        elif change == 2:
            entry["data_offsets"] = rng.choice([[0, 2**63], [5, 1], [-1, 3], [0], None])
        elif change == 3:
            header[name + "\u0000x"] = header.pop(name)
        else:
            del header[name]
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data[8 + length :]


def name_twice(data, rng):
    """Name a tensor of a safetensors header again, with its own entry or another's."""
    length = struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0]
    try:
        header = json.loads(data[8 : 8 + length])
        name, other = rng.choice(sorted(header)), rng.choice(sorted(header))
    except (ValueError, IndexError):  # it is no safetensors file, or not any more
        return flip(data, rng)
    again = json.dumps({name: header[other]}).encode()
    encoded = json.dumps(header).encode()
    pair = [encoded, again] if rng.random() < 0.5 else [again, encoded]
    return named_twice(*pair, data[8 + length :])


def named_twice(first, second, tensors):
    encoded = first[:-1] + b", " + second[1:]
    return struct.pack("<Q", len(encoded)) + encoded + tensors


def damage_pickle(data, rng):
    """Change the pickle inside an archive, so that the archive itself stays whole."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith("data.pkl"):
                    content = flip(content, rng)
                if entry.filename.endswith("/0") and rng.random() < 0.3:
                    content = content[: len(content) // 2]
                new.writestr(entry.filename, content)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):  # no whole archive
        return flip(data, rng)
    return out.getvalue()


CORRUPTIONS = [flip, cut, lengthen_header, rewrite_header, name_twice, damage_pickle]


def use(path):
    """Call every function that reads a file, including the merge."""
    tasks = (read_weights, load_checkpoint, load_vae, load_text_encoder, load_motion_module)
    tasks += (load_control, load_ip_adapter, read_embedding)
    unet = mini.state(mini.unet_module())

    def merge(path):
        merge_loras(unet=unet, text_encoder=None, loras=[LoraEntry(path)])

    report = identify(path)
    assert report.message
    for task in (*tasks, merge):
        try:
            task(path)
        except AnimateDiffV2VError as error:
            assert str(path) in str(error)


def peak_bytes():
    resource = pytest.importorskip("resource", reason="peak memory is read through Unix")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def test_the_files_are_whole_before_they_are_corrupted(seeds, tmp_path):
    path = tmp_path / "file.bin"
    for data in seeds:
        path.write_bytes(data)
        assert identify(path).kind not in ("not a model", "other model")
        assert read_weights(path)


@pytest.mark.parametrize("batch", range((FILES + BATCH - 1) // BATCH))
def test_corrupted_files(batch, seeds, tmp_path):
    before = peak_bytes()
    for number in range(batch * BATCH, min(FILES, (batch + 1) * BATCH)):
        rng = random.Random(number)
        data = seeds[number % len(seeds)]
        for _ in range(rng.choice([1, 1, 2])):
            data = rng.choice(CORRUPTIONS)(data, rng) or b"x"
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        use(path)
        path.unlink()
    assert peak_bytes() - before < LARGEST_GROWTH_BYTES


@pytest.mark.parametrize("entry", ["the same", "of the same size"])
def test_a_tensor_that_is_named_twice_is_refused(entry, tmp_path):
    dtype = {"the same": "F32", "of the same size": "I32"}[entry]
    first, second = (
        json.dumps({"blocks.0": {"dtype": each, "shape": [2], "data_offsets": [0, 8]}}).encode()
        for each in ("F32", dtype)
    )
    path = tmp_path / "twice.safetensors"
    path.write_bytes(named_twice(first, second, b"\0" * 8))
    sentence = "is a damaged safetensors file (its header names the tensor blocks.0 more than once)"
    assert sentence in identify(path).message
    with pytest.raises(AnimateDiffV2VError, match=r"blocks\.0 more than once"):
        read_weights(path)


class Runs:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


HOSTILE_CALLS = {
    "system": Runs(os.system, "exit 0"),
    "eval": Runs(eval, "print('executed')"),
    "exec": Runs(exec, "raise SystemExit"),
    "check_output": Runs(subprocess.check_output, [sys.executable, "-c", "pass"]),
    "__import__": Runs(__import__, "antigravity"),
    "getattr": Runs(getattr, "text", "join"),
    "torch.serialization.load": Runs(torch.load, "other.pt"),
    "bytearray": Runs(bytearray, 2**33),
}


@pytest.mark.parametrize("form", ["archive", "legacy", "bare", "inside state_dict"])
@pytest.mark.parametrize("call", HOSTILE_CALLS)
def test_nothing_is_executed(call, form, tmp_path):
    calls = []
    path = tmp_path / "model.ckpt"
    hostile = HOSTILE_CALLS[call]
    if form == "bare":
        path.write_bytes(pickle.dumps(hostile, protocol=4))
    elif form == "inside state_dict":
        torch.save({"state_dict": {"weight": torch.zeros(2), "x": hostile}}, path)
    else:
        torch.save({"x": hostile}, path, _use_new_zipfile_serialization=form == "archive")

    def note(event, arguments):
        if event in ("os.system", "subprocess.Popen", "exec", "compile"):
            calls.append((event, arguments))

    sys.addaudithook(lambda event, arguments: note(event, arguments) if armed else None)
    armed = True
    try:
        with pytest.raises(AnimateDiffV2VError, match="such classes") as raised:
            read_weights(path)
    finally:
        armed = False
    assert not calls
    assert call in str(raised.value)


def archive(path, pickled, data=b"\0" * 16):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/data/0", data)


def tensor_pickle(size, stride, *, numel=4, offset=0, key=b"0"):
    """Return the pickle that torch.save writes for {"a": tensor}, with any given numbers."""

    def integer(number):
        return b"\x8a\x08" + struct.pack("<q", number)

    def integers(numbers):
        return b"(" + b"".join(map(integer, numbers)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + key
    storage += b"X\x03\0\0\0cpu" + integer(numel) + b"tQ"
    arguments = storage + integer(offset) + integers(size) + integers(stride)
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments
    return b"\x80\x02}X\x01\0\0\0a" + rebuilt + b"\x89ccollections\nOrderedDict\n)RtRs."


def nested_tuples(levels):
    pairs = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(levels))
    return b"\x80\x02}K\x01\x85q\0" + pairs + b"K\x01s."


HOSTILE_ARCHIVES = {
    "a size beyond the data": tensor_pickle([2**33], [1]),
    "a storage beyond the data": tensor_pickle([2**33], [1], numel=2**33),
    "one number seen a trillion times": tensor_pickle([2**20, 2**20], [0, 0]),
    "a negative size": tensor_pickle([-4], [1]),
    "a negative stride": tensor_pickle([4], [-1]),
    "an offset beyond the data": tensor_pickle([4], [1], offset=2**40),
    "a stride beyond the data": tensor_pickle([2], [2**40]),
    "no such data": tensor_pickle([4], [1], key=b"7"),
    "tuples that double": nested_tuples(60),
    "pops from nothing": b"\x80\x02000000.",
    "no end": b"\x80\x02}",
    "nothing": b"",
    "bytes without end": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "an integer without end": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a memo without end": b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xfe.",
    "a set that is no state": b"\x80\x04\x8f.",
    "too long": b"\x80\x02" + b"N0" * 5_000_000 + b"}.",
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("case", HOSTILE_ARCHIVES)
def test_hostile_archive(case, tmp_path):
    before = peak_bytes()
    archive(tmp_path / "model.pt", HOSTILE_ARCHIVES[case])
    with pytest.raises(AnimateDiffV2VError, match="damaged"):
        read_weights(tmp_path / "model.pt")
    assert peak_bytes() - before < LARGEST_GROWTH_BYTES


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}q\0(X\x01\0\0\0ah\0X\x01\0\0\0bh\0u.",
        b"\x80\x02" + b"}X\x01\0\0\0a" * 200_000 + b"K\x01" + b"s" * 200_000 + b".",
    ],
    ids=["a dictionary inside itself", "200,000 dictionaries inside one another"],
)
def test_dictionaries_without_end_hold_no_tensors(pickled, tmp_path):
    archive(tmp_path / "model.pt", pickled)
    assert read_weights(tmp_path / "model.pt") == {}


def test_a_compressed_archive_is_not_unpacked(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(AnimateDiffV2VError, match="compressed"):
        read_weights(path)
