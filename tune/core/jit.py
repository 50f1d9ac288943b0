"""Compile numeric loops with Numba; the machine code is cached on disk."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import config

from tune.core.caches import ROOT, source_digest, user_cache_folder

Function = TypeVar("Function", bound=Callable[..., object])

UNUSED_S = 30 * 86_400
"""Seconds after which machine code counts as unused. Chosen here: a study lasts days, and its machine
code takes a few megabytes."""

_COMPILED = ("core", "sim", "surrogate")
"""Packages with compiled functions, and with the functions and constants that these contain."""


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


def keep_machine_code(folders: Iterable[Path], digest: str) -> Path | None:
    """Make the folder of the machine code of sources with `digest`, and have Numba use it.

    Numba compares machine code with the file of its function alone. A function that is inlined there, or a
    constant, may be of another file and have changed since. Therefore other sources get another folder; one
    that no program has begun with for UNUSED_S is removed. A study that runs keeps its own, whose sources
    may change meanwhile.

    Parameters
    ----------
    folders
        Folders that may hold it, in order of preference.
    digest
        Digest of all sources that the machine code depends on.

    Returns
    -------
    Path | None
        The folder, in the first of `folders` that can be written; None where none can, and Numba keeps
        nothing.
    """
    name = f"compiled-{digest[:16]}"
    for parent in folders:
        folder = parent / name
        is_new = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
        except OSError:
            continue
        if not os.access(folder, os.W_OK):
            continue
        if is_new:
            _remove_unused(parent)
        vars(config)["CACHE_DIR"] = str(folder)
        return folder
    return None


def _remove_unused(parent: Path) -> None:
    """Remove the folders of machine code in `parent` that no program has begun with for UNUSED_S."""
    for folder in parent.glob("compiled-*"):
        try:
            is_unused = time.time() - folder.stat().st_mtime > UNUSED_S
        except OSError:  # another program removes it
            continue
        if is_unused:
            shutil.rmtree(folder, ignore_errors=True)


def _cache_folders() -> tuple[Path, ...]:
    """Return NUMBA_CACHE_DIR, or a folder beside the bytecode and one of the user."""
    if users_own := vars(config)["CACHE_DIR"]:
        return (Path(users_own),)
    users = user_cache_folder("machine-code")
    return (ROOT / "__pycache__", *([users] if users else []))


_FOLDER = keep_machine_code(_cache_folders(), source_digest(*_COMPILED))

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


def _jit(function: Function, **inner: Any) -> Function:
    """Return `function` compiled without fastmath, its machine code kept on disk where there is a folder."""
    is_kept = _FOLDER is not None
    return cast(Function, njit(nogil=True, error_model="numpy", cache=is_kept, **inner)(function))


def is_cold(function: Callable[..., object]) -> bool:
    """Return whether the first call of a compiled function has to compile it, which takes seconds."""
    stats = getattr(function, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT=1
        return False
    return not (stats.cache_path and any(Path(stats.cache_path).glob(f"*.{function.__name__}-*.nbi")))
