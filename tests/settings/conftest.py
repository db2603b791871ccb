"""A model to plan with."""

from __future__ import annotations

import pytest


@pytest.fixture
def model(tmp_path):
    """A folder that counts as a local model."""
    for name in ("unet", "vae", "text_encoder"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "model.safetensors").write_bytes(name.encode())
    return tmp_path / "model"
