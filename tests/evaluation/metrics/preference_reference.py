"""Scores by the authors' packages with random weights; runs in a separate environment.

    python preference_reference.py hps FOLDER          hpsv2 (dependency group `hps`)
    python preference_reference.py pick_score FOLDER   transformers 4.27.3 (group `pick_score`)
    python preference_reference.py aesthetic FOLDER    OpenAI's clip (group `pick_score`)

FOLDER holds pictures 0.png, 1.png, ... and prompt.txt; scores go to expected.npy, weights beside it.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def pictures(folder: Path) -> list[Image.Image]:
    return [Image.open(folder / f"{i}.png") for i in range(len(list(folder.glob("[0-9]*.png"))))]


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights as they were initialised, plus noise, so that no part is zero or one."""
    rng = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        value.data += 0.02 * torch.randn(value.shape, generator=rng)


def hps(folder: Path) -> list[float]:
    import importlib.util
    import shutil

    # The wheel lacks its vocabulary.
    place = Path(importlib.util.find_spec("hpsv2").submodule_search_locations[0]) / "src" / "open_clip"
    shutil.copy(folder / "bpe_simple_vocab_16e6.txt.gz", place)
    from hpsv2 import img_score
    from hpsv2.src.open_clip import create_model_and_transforms

    network, _, preprocess = create_model_and_transforms(
        "ViT-H-14", None, precision="fp32", device="cpu", jit=False, force_quick_gelu=False,
        force_custom_text=False, force_patch_dropout=False, force_image_size=None, pretrained_image=False,
        image_mean=None, image_std=None, light_augmentation=True, aug_cfg={}, output_dict=True,
        with_score_predictor=False, with_region_predictor=False,
    )  # fmt: skip
    randomise(network)
    torch.save({"state_dict": network.state_dict()}, folder / "hps.pt")
    img_score.model_dict = {"model": network, "preprocess_val": preprocess}
    prompt = (folder / "prompt.txt").read_text()
    return [float(value) for value in img_score.score(pictures(folder), prompt, cp=str(folder / "hps.pt"))]


def pick_score(folder: Path) -> list[float]:
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    network = CLIPModel.from_pretrained(folder / "model").eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "model")
    prompt = (folder / "prompt.txt").read_text()
    words = tokenizer(prompt, padding=True, truncation=True, max_length=77, return_tensors="pt")
    found = []
    with torch.no_grad():
        text = network.get_text_features(**words)
        text = text / torch.norm(text, dim=-1, keepdim=True)
        for picture in pictures(folder):
            pixels = CLIPImageProcessor()(images=picture, return_tensors="pt")
            image = network.get_image_features(**pixels)
            image = image / torch.norm(image, dim=-1, keepdim=True)
            found.append(float(network.logit_scale.exp() * (text @ image.T)[0, 0]))
    return found


def aesthetic(folder: Path) -> list[float]:
    from clip.clip import _transform
    from clip.model import CLIP

    torch.manual_seed(0)
    network = CLIP(768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12).float().eval()
    randomise(network)
    torch.save(network.state_dict(), folder / "clip.pt")
    sizes = [768, 1024, 128, 64, 16, 1]
    linear = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    head = torch.nn.Sequential(
        linear[0], torch.nn.Dropout(0.2), linear[1], torch.nn.Dropout(0.2), linear[2], torch.nn.Dropout(0.1),
        linear[3], linear[4],
    ).eval()  # fmt: skip
    torch.save({f"layers.{key}": value for key, value in head.state_dict().items()}, folder / "head.pth")
    found = []
    with torch.no_grad():
        for picture in pictures(folder):
            features = network.encode_image(_transform(224)(picture)[None])
            features = features / features.norm(dim=-1, keepdim=True)
            found.append(float(head(features.float())[0, 0]))
    return found


if __name__ == "__main__":
    where = Path(sys.argv[2])
    np.save(
        where / "expected.npy",
        {"hps": hps, "pick_score": pick_score, "aesthetic": aesthetic}[sys.argv[1]](where),
    )
