"""Find the known names that are most like a misspelt or shortened one."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

NEAR_NAME_SIMILARITY = 0.78
"""Least similarity of a name that is proposed for an unknown one: 2 x matching / all characters of both.

Chosen here: `modle` leads to `model` (0.8), `bogus` not to `logs` (0.67).
"""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is most like `name`; None where none is near."""
    return next(iter(get_close_matches(name, known, n=1, cutoff=NEAR_NAME_SIMILARITY)), None)


def nearest_settings(path: str, known: Sequence[str]) -> list[str]:
    """Return the settings that `path` may mean: those that end with it, else those most like it.

    `n_trials` is the end of `study.n_trials`; `cuda_graph_config.batch_sizes` is the end of two paths.
    """
    ends = [name for name in known if name.endswith(f".{path}")]
    if ends:
        return ends
    near = nearest(path, known)
    if near:
        return [near]
    leaf = nearest(path.rpartition(".")[2], [name.rpartition(".")[2] for name in known])
    return [name for name in known if name.rpartition(".")[2] == leaf][:3]
