"""Compile numeric loops with Numba; the machine code is cached on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


@contextmanager
def _without_blas() -> Iterator[None]:
    """Keep SciPy's linear algebra from being imported, so that what is imported in the block does without.

    Numba imports it to learn whether there is a BLAS, of which it makes use in np.convolve and np.correlate
    alone: a tenth of the time that one simulated trial takes as a command.
    """
    hidden = "scipy.linalg" not in sys.modules
    if hidden:
        sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # an import then raises ImportError
    try:
        yield
    finally:
        if hidden:
            del sys.modules["scipy.linalg"]


with _without_blas():
    import numba.np.arraymath  # noqa: F401  (Numba imports it when a function is first called)


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called; its type stays that of the function.

    Without fastmath, results have the bits that plain Python (NUMBA_DISABLE_JIT=1) gives, except that a
    division by zero gives NumPy's result instead of an error: the check alone takes most of the time of a
    short function. The interpreter lock is released, so threads may run it in parallel. A function whose
    name begins with an underscore is `inlined`.
    """
    return inlined(function) if function.__name__.startswith("_") else _jit(function)


def inlined(function: Function) -> Function:
    """Compile `function` into its callers, as a part that several loops share.

    It must create no array: it counts no references to arrays, which would take two thirds of the time of the
    serving loops.
    """
    return _jit(function, forceinline=True, _nrt=False)


def _jit(function: Function, **inner: bool) -> Function:
    """Return `function` compiled without fastmath, its machine code kept on disk."""
    decorate = partial(njit, nogil=True, error_model="numpy", **inner)
    try:
        return cast(Function, decorate(cache=True)(function))
    except RuntimeError:  # no folder that a cache could be written to, as in a read-only container
        return cast(Function, decorate()(function))


def is_cold(function: Callable[..., object]) -> bool:
    """Return whether the first call of a compiled function has to compile it, which takes seconds."""
    stats = getattr(function, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT=1
        return False
    return not (stats.cache_path and any(Path(stats.cache_path).glob(f"*.{function.__name__}-*.nbi")))
