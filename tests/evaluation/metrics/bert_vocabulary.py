"""A vocabulary in BERT's format for tests: BERT's special tokens, our own words."""

from __future__ import annotations

from pathlib import Path

WORDS = [
    "a",
    "the",
    "red",
    "blue",
    "cube",
    "duck",
    "tree",
    "on",
    "photo",
    "of",
    "detailed",
    "highly",
    "cat",
    "with",
    "many",
    "candles",
    "velvet",
    "tablecloth",
    "ocean",
]


def vocabulary() -> list[str]:
    """30522 entries: [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103, letters, WORDS, and fillers."""
    entries = [f"[unused{i}]" for i in range(30522)]
    entries[0], entries[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(ord("a") + i) for i in range(26)]
    rest = [*WORDS[1:], *letters, *(f"##{letter}" for letter in letters), ",", "."]
    entries[1000 : 1000 + len(rest)] = rest
    return entries


def save_vocabulary(folder: Path) -> Path:
    """Write only vocab.txt, as read by the package's environment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    return folder


def save_tokenizer(folder: Path) -> Path:
    """The same as a folder for transformers' auto class."""
    from transformers import BertTokenizer

    BertTokenizer({word: i for i, word in enumerate(vocabulary())}).save_pretrained(folder)
    return folder
