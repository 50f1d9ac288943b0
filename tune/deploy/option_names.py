"""Read the names of long options as Slurm's programs do.

They use getopt_long: a name may be shortened as long as only one option begins with it, and `_` does not
stand for `-`. Source: Slurm 26.05, src/common/slurm_opt.c, slurm_option_table_create.
"""

from __future__ import annotations

from collections.abc import Collection


def meant_options(name: str, options: Collection[str], others: Collection[str]) -> list[str]:
    """Return those of `options` that `name` is, or may be short for.

    Parameters
    ----------
    name
        A name without dashes.
    options
        Whole names to compare it with.
    others
        Further names that begin some of `options`, and are meant by their own name.

    Returns
    -------
    list[str]
        Whole names, empty where none is meant.
    """
    if name in options:
        return [name]
    if name in others:
        return []
    return sorted(option for option in options if option.startswith(name))
