"""R-Precision by hand-computed values."""

import numpy as np
import pytest

from evaluation.metrics.retrieval import r_precision

COSINES = np.array([[0.31, 0.30, 0.20, 0.10], [0.25, 0.27, 0.26, 0.10], [0.40, 0.10, 0.20, 0.30]])


def test_hits_by_view_and_by_mean():
    assert r_precision(COSINES, "view") == pytest.approx(2 / 3)
    assert r_precision(COSINES, "mean") == 1.0


def test_a_tie_is_no_hit():
    assert r_precision(np.array([[0.3, 0.3, 0.1]]), "view") == 0.0


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(ValueError, match="view or mean"):
        r_precision(COSINES, "max")
