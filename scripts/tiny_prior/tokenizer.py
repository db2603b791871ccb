"""A CLIPTokenizer in which every word of the toy grammar is exactly one token.

Letters are in the vocabulary too, so an unknown word becomes several tokens (or the unknown token): a word is
known if and only if it is one token.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from transformers import CLIPTokenizer

from trace_bench.toyworld import vocabulary

MAX_LENGTH = 16  # the longest caption has 11 tokens plus start and end


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, by frequency and then by name, until every word is one token."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in pieces:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1


def new_tokenizer() -> CLIPTokenizer:
    """The tokenizer of both tiny models; pads with "!" (id 0) as SD 2.1; the end token has the top id."""
    words = vocabulary()
    merges = learn_merges(words)
    letters = sorted({letter for word in words for letter in word} | set("abcdefghijklmnopqrstuvwxyz"))
    tokens = dict.fromkeys(["!", *letters, *(letter + "</w>" for letter in letters), *map("".join, merges)])
    ids = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=ids, merges=merges, pad_token="!", model_max_length=MAX_LENGTH)
