"""ImageReward by the image-reward package, in a separate process because it needs an older transformers.

The environment is the dependency group `imagereward` of pyproject.toml:

    uv venv .venv-imagereward && uv pip install -p .venv-imagereward --group imagereward
    python -m evaluation.score metrics.image_reward.official_python=.venv-imagereward/bin/python
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics.renders import open_rgb
from trace_bench.system.errors import TraceBenchError, Unavailable

WORKER = Path(__file__).with_name("worker.py")


class OfficialImageReward:
    """Rewards of pictures for a prompt, from a worker process that ends with this one.

    Args:
        python: interpreter of an environment with image-reward.
        checkpoint: ImageReward.pt.
        vocabulary: BERT's, word to number.
        device: cpu or cuda.
    """

    def __init__(self, python: str, checkpoint: Path, vocabulary: Mapping[str, int], device: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="image-reward-")
        words = Path(self._folder.name, "vocab.txt")
        words.write_text("".join(f"{word}\n" for word in sorted(vocabulary, key=vocabulary.__getitem__)))
        self._errors = Path(self._folder.name, "stderr.txt")
        command = [python, "-I", str(WORKER), str(Path(checkpoint).resolve()), str(words), device]
        try:
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
                )
        except OSError as error:
            raise Unavailable(
                f"metrics.image_reward.official_python={python} cannot be started ({error.strerror}): "
                "use the Python of an environment with image-reward (docs/evaluation.md)."
            ) from error
        try:
            self._answer()
        except TraceBenchError as error:
            raise Unavailable(
                f"image-reward does not work under {python} ({error}): recreate its environment "
                "(docs/evaluation.md)."
            ) from error

    def __call__(self, prompt: str, pictures: Sequence[Path]) -> list[float]:
        """Rewards [N] of RGB pictures [N], as float32 values."""
        assert self._process.stdin is not None
        for path in pictures:
            open_rgb(path)  # refuse transparency: the package would ignore alpha
        asked = {"prompt": prompt, "pictures": [str(path.resolve()) for path in pictures]}
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its error message is raised below
        return self._answer()["rewards"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            raise TraceBenchError(f"its process ended: {said[-1] if said else 'no error message'}")
        content = json.loads(line)
        if "error" in content:
            raise TraceBenchError(content["error"])
        return content
