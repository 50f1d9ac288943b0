"""Numba's njit with its type kept: the serving loops are compiled once and cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Machine code of `function`, without fastmath: the same bits as NUMBA_DISABLE_JIT=1 gives."""
    return cast(Function, njit(cache=True)(function))
