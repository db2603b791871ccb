"""Reference outputs of the image-reward package; runs in a separate environment, not in that of the tests.

    python image_reward_reference.py full FOLDER    the whole network with random weights: FOLDER/weights.pt,
                                                    features and rewards in FOLDER/expected.npz
    python image_reward_reference.py small FILE     a shrunken network: weights, inputs, outputs as one .npz

FOLDER holds vocab.txt (BERT's format), prompts.json and pictures 0.png, 1.png, ... The package would
download its tokenizer and med_config.json from the hub; local replacements are used instead.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ImageReward.ImageReward import ImageReward
from ImageReward.models.BLIP.med import BertConfig, BertModel
from ImageReward.models.BLIP.vit import VisionTransformer
from PIL import Image

sys.path.append(str(Path(__file__).parents[3] / "evaluation" / "metrics" / "image_reward"))
from worker import MED_CONFIG, use_vocabulary


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Weights ~ N(0, 1/fan-in), norms 1 + N(0, 0.1^2), biases and embeddings N(0, 0.1^2)."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in module.named_parameters():
        noise = torch.randn(value.shape, generator=rng)
        norm = "norm" in name.lower() and name.endswith("weight")
        dense = value.ndim >= 2 and "embed" not in name.lower() and "token" not in name
        scale = value[0].numel() ** -0.5 if dense else 0.1
        value.data = noise * scale + (1.0 if norm else 0.0)


@torch.no_grad()
def read(text, head, ids, mask, image):
    """Feature and head output as in the package's score_gard, from image features [B, N, D]."""
    states = text(
        ids.expand(len(image), -1), attention_mask=mask.expand(len(image), -1), encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long), return_dict=True,
    ).last_hidden_state  # fmt: skip
    return states[:, 0], head(states[:, 0])


def full(folder: Path) -> None:
    use_vocabulary(folder / "vocab.txt")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    model = ImageReward(str(folder / "med_config.json")).eval()
    randomise(model, 1234)
    torch.save(model.state_dict(), folder / "weights.pt")
    prompts = json.loads((folder / "prompts.json").read_text())
    pictures = [Image.open(path) for path in sorted(folder.glob("*.png"))]
    with torch.no_grad():
        images = [model.blip.visual_encoder(model.preprocess(picture)[None]) for picture in pictures]
    found = {f"image_{j}": image.numpy() for j, image in enumerate(images)}
    for i, prompt in enumerate(prompts):
        tokens = model.blip.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        for j, image in enumerate(images):
            text, out = read(
                model.blip.text_encoder, model.mlp, tokens.input_ids, tokens.attention_mask, image
            )
            found |= {
                f"text_{i}_{j}": text.numpy(),
                f"reward_{i}_{j}": ((out - model.mean) / model.std).numpy()[0, 0],
            }
        with torch.no_grad():
            found[f"score_{i}"] = np.array(
                model.score(prompt, pictures[i])
            )  # all of it, as the package does it
    np.savez(folder / "expected.npz", **found)


def small(path: Path) -> None:
    """Two layers of width 32 and 24, 48 words, pictures of 48 pixels."""
    config = MED_CONFIG | {
        "hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2,
        "vocab_size": 48, "max_position_embeddings": 16, "encoder_width": 32,
    }  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        text = BertModel(config=BertConfig.from_json_file(file.name), add_pooling_layer=False).eval()
    vision = VisionTransformer(img_size=48, patch_size=16, embed_dim=32, depth=2, num_heads=4).eval()
    head = torch.nn.Module()
    head.layers = torch.nn.Sequential(
        torch.nn.Linear(24, 16), torch.nn.Dropout(), torch.nn.Linear(16, 8), torch.nn.Dropout(),
        torch.nn.Linear(8, 8), torch.nn.Dropout(), torch.nn.Linear(8, 4), torch.nn.Linear(4, 1),
    ).eval()  # fmt: skip
    state = {}
    for i, (prefix, part) in enumerate(
        {"blip.visual_encoder.": vision, "blip.text_encoder.": text, "mlp.": head}.items()
    ):
        randomise(part, i)
        state |= {prefix + key: value.numpy() for key, value in part.state_dict().items()}
    rng = torch.Generator().manual_seed(9)
    pixels = torch.randn(3, 3, 48, 48, generator=rng)
    ids = torch.tensor([[41, 7, 19, 33, 2, 42, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        image = vision(pixels)
    feature, reward = read(text, head.layers, ids, mask, image)
    known = {"ids": ids, "mask": mask, "pixels": pixels, "image": image, "text": feature, "reward": reward}
    np.savez_compressed(path, **state, **{f"case_{key}": value.numpy() for key, value in known.items()})


if __name__ == "__main__":
    {"full": full, "small": small}[sys.argv[1]](Path(sys.argv[2]))
