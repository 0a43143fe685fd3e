"""A vocabulary as the files of Hugging Face's CLIPTokenizer.

The ids are the same but for what that tokenizer leaves out: it mends no mojibake, unescapes no
HTML, and takes `<|endoftext|>` inside a text for the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.interchange.weights import words
from wit.config import write_json
from wit.tokenizer import END, PATTERN, START, SUFFIX, Tokenizer


def write_tokenizer(tokenizer: Tokenizer, context_length: int, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, and vocab.json with merges.txt for old versions."""
    model = words(tokenizer)
    vocab, merges = model["vocab"], model["merges"]
    write_json(_fast(tokenizer, vocab, merges), folder / "tokenizer.json")
    write_json(vocab, folder / "vocab.json")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(special, folder / "special_tokens_map.json")
    about = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "do_lower_case": True,
        "clean_up_tokenization_spaces": False,
    }
    write_json(special | about, folder / "tokenizer_config.json")


def _fast(tokenizer: Tokenizer, vocab: dict[str, int], merges: list[Any]) -> dict[str, Any]:
    """The content of tokenizer.json."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": token, "special": True, **plain}
        for token, number in ((START, tokenizer.sot), (END, tokenizer.eot))
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Removed",
                    "invert": True,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": True,
                },
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, tokenizer.eot],
            "cls": [START, tokenizer.sot],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": SUFFIX,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
