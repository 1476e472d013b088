"""CLIP's byte pair tokenizer, built from the merges in this package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

START_TOKEN = 49_406
END_TOKEN = 49_407

_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def tokenize(text: str) -> list[int]:
    """Return the token ids of `text` without start and end tokens; none for an empty text."""
    ids: list[int] = _tokenizer().encode(text, add_special_tokens=False).ids
    return ids


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    merges_file = Path(__file__).parent / "clip_vocabulary" / "merges.txt"
    lines = merges_file.read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    # The order of CLIP's token ids: bytes, bytes that end a word, merges, two special tokens.
    words = [*_byte_symbols(), *(symbol + "</w>" for symbol in _byte_symbols())]
    words += ["".join(merge) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = Tokenizer(
        BPE(
            vocab={word: index for index, word in enumerate(words)},
            merges=merges,
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return tokenizer


def _byte_symbols() -> list[str]:
    """Return the symbols by which byte-level BPE writes the 256 bytes, printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
