"""Files of the published tournament that are downloaded once."""

from __future__ import annotations

import hashlib

import pytest

from evaluation.gpteval3d import published
from evaluation.gpteval3d.published import Published

CONTENT = b'["a crab"]'


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-2], b'["a crap"]'])
def test_a_damaged_download_is_downloaded_again(tmp_path, monkeypatch, damaged):
    asked = []

    def fetch(url, sha256, path):
        asked.append(url)
        path.write_bytes(CONTENT)

    monkeypatch.setattr(published, "fetch", fetch)
    sha256 = {"prompts.json": hashlib.sha256(CONTENT).hexdigest()}
    files = Published(None, tmp_path, "nowhere", sha256)
    (tmp_path / "prompts.json").write_bytes(damaged)
    assert files.prompts() == ["a crab"]
    assert files.prompts() == ["a crab"]
    assert asked == ["nowhere/prompts.json"]
