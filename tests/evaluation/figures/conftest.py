"""Real runs, made once for all figures."""

from __future__ import annotations

import pytest
from real_runs import Figures, methods_beside_each_other, other_sweeps


@pytest.fixture(scope="session")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    root = tmp_path_factory.mktemp("methods") / "outputs"
    methods_beside_each_other(root)
    return Figures(root)


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    root = tmp_path_factory.mktemp("others") / "outputs"
    other_sweeps(root)
    return Figures(root)
