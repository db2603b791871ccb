"""A CLIP with random weights in open_clip's folder format, and in-process calls of the commands."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def save_clip(folder: Path, seed: int = 0, **changes) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = TINY | changes
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """`command("score", "force=true")` -> (exit code, stdout, stderr), run in an empty folder on
    tmp_path/outputs.
    """
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def call(name: str, *overrides: str) -> tuple[int, str, str]:
        arguments = [f"evaluation.{name}", f"output_root={tmp_path / 'outputs'}", *overrides]
        monkeypatch.setattr(sys, "argv", arguments)
        code = 0
        try:
            module = importlib.import_module(f"evaluation.{name}")
            if not hasattr(module, "main"):  # a package
                module = importlib.import_module(f"evaluation.{name}.__main__")
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert list(Path.cwd().iterdir()) == []  # the working folder stays empty
        return code, out, err

    return call
