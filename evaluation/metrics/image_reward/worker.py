"""ImageReward by the image-reward package; `official.py` starts this in the package's environment.

    python worker.py CHECKPOINT VOCABULARY DEVICE

Reads one JSON line per request, {"prompt": ..., "pictures": [path, ...]}, and writes {"rewards": [...]} or
{"error": ...}. Once ready it writes {"rewards": []}, or the error. It imports nothing from this project,
because its environment has an older transformers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

#: med_config.json of the hub repository; the package would download it.
MED_CONFIG = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 0, "add_type_embeddings": False, "vocab_size": 30524,
    "encoder_width": 768, "add_cross_attention": True,
}  # fmt: skip


def use_vocabulary(path: Path) -> None:
    """Build the package's BERT tokenizer with BLIP's two tokens from a file instead of the hub."""
    from ImageReward.models.BLIP import blip_pretrain
    from transformers import BertTokenizer

    def init_tokenizer() -> Any:
        tokenizer = BertTokenizer(str(path))
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        return tokenizer

    blip_pretrain.init_tokenizer = init_tokenizer


def load(checkpoint: Path, vocabulary: Path, device: str) -> Any:
    """The package's model, from local files only."""
    import ImageReward

    use_vocabulary(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "med_config.json")
        config.write_text(json.dumps(MED_CONFIG))
        return ImageReward.load(str(checkpoint), device=device, med_config=str(config))


def answer(out: TextIO, content: dict[str, Any]) -> None:
    out.write(json.dumps(content) + "\n")
    out.flush()


def main(checkpoint: str, vocabulary: str, device: str) -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the package's prints out of the answers
    try:
        import torch

        model = load(Path(checkpoint), Path(vocabulary), device)
    except Exception as error:  # noqa: BLE001 - report any error
        answer(out, {"error": f"{type(error).__name__}: {error}"})
        return
    answer(out, {"rewards": []})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            with torch.no_grad():
                rewards = [model.score(asked["prompt"], path) for path in asked["pictures"]]
            answer(out, {"rewards": rewards})
        except Exception as error:  # noqa: BLE001 - as above
            answer(out, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(*sys.argv[1:])
