"""Test differences of nested mappings."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tune.core.differences import leaf_differences

trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
    lambda children: st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(0, 3), children)),
)


def test_leaves_that_differ_are_named_by_their_path() -> None:
    left = {"load": {"target_qps": 14, "mode": "fixed"}, "slo": 1}
    right = {"load": {"target_qps": 15, "mode": "fixed"}, "split": 2}
    assert list(leaf_differences(left, right)) == [
        ("load.target_qps", 14, 15),
        ("slo", 1, None),
        ("split", None, 2),
    ]


@given(trees, trees)
def test_differences_are_real_complete_and_symmetric(left: dict[str, Any], right: dict[str, Any]) -> None:
    different = list(leaf_differences(left, right))
    assert (different == []) == (left == right)
    assert all(
        a != b and value_at(left, path) == a and value_at(right, path) == b for path, a, b in different
    )
    backwards = [(path, a, b) for path, b, a in leaf_differences(right, left)]
    assert sorted(map(repr, different)) == sorted(map(repr, backwards))


def value_at(tree: Any, path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
