import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tune.loadgen.latencies import percentiles_s


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300))
@example([0] * 15 + [1] + [2] * 14)  # 15 / 29 x 29 is a little more than 15
def test_percentiles_equal_numpy_where_both_are_defined(values):
    """Where n x share is whole, LoadGen takes the next entry; else both take one entry."""
    figures = percentiles_s(np.array(values))
    n = len(values)
    for name, share in (
        ("p50", 0.5),
        ("p90", 0.9),
        ("p95", 0.95),
        ("p97", 0.97),
        ("p99", 0.99),
        ("p99_9", 0.999),
    ):
        method = "inverted_cdf" if n * share % 1 else "nearest"
        position = share if n * share % 1 else n * share / (n - 1) if n > 1 else 0.0
        assert getattr(figures, name) == np.quantile(values, min(position, 1.0), method=method) / 1e9
    assert figures.max == max(values) / 1e9
    assert figures.mean == pytest.approx(np.mean(values) / 1e9)
