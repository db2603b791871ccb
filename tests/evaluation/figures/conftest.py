from pathlib import Path

import pytest
from real_runs import Figures


@pytest.fixture(scope="session")
def methods():
    return Figures(Path("/tmp/e14/fx/methods/outputs"))


@pytest.fixture(scope="session")
def others():
    return Figures(Path("/tmp/e14/fx/others/outputs"))
