"""Keep simulated prefill pools in files, so that the next search of equal pools need not simulate them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.caches import source_digest, user_cache_folder
from tune.core.files import make_folder, open_atomic
from tune.errors import TuneError
from tune.spec.trial import TrialSpec
from tune.surrogate.kv_transfer import LINK_UTILISATION
from tune.surrogate.pool_limits import FirstTokenLimit
from tune.surrogate.prefill_latency import UTILISATION, Workload
from tune.surrogate.prefill_tables import Simulate

MAX_FILES = 4000
"""Number of files that are kept, the latest used first: some 30 MB, and the pools of some fifty studies."""

_CODE = ("core", "sim", "surrogate", "workload")
"""Packages whose code a simulated pool depends on."""

_READING = Lock()
"""Held while an entry is read: NumPy parses its header as Python, and threads of Python 3.11 that do so at
once disturb each other (SystemError). Source: CPython, issue 106905."""

_NAME = re.compile(r"[0-9a-f]{64}\.npz")


def cache_folder() -> Path | None:
    """Return the folder of the cache; None for a user without a home."""
    return user_cache_folder("prefill-pools")


def content_key(parts: Iterable[object]) -> str:
    """Return a digest of `parts`: arrays and bytes by their content, all else by its repr."""
    digest = hashlib.sha256()
    for part in parts:
        match part:
            case np.ndarray():
                content = str((part.dtype, part.shape)).encode() + part.tobytes()
            case bytes():
                content = part
            case _:
                content = repr(part).encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


class PoolCache:
    """Read and write arrays by the key of what they depend on; without a folder nothing is kept.

    An entry that is damaged, foreign or of another shape counts as missing. A folder that cannot be written
    keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: str, shapes: Sequence[tuple[int, ...]]) -> list[FloatArray] | None:
        """Return the arrays of the entry `key`, each of its shape in `shapes`; None where there are none."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}.npz"
        try:
            with _READING, np.load(path, allow_pickle=False) as entry:
                arrays = [entry[f"arr_{index}"] for index in range(len(shapes))]
            os.utime(path)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        fits = [array.shape for array in arrays] == list(shapes)
        return arrays if fits and all(array.dtype == np.float64 for array in arrays) else None

    def write(self, key: str, arrays: Sequence[FloatArray]) -> None:
        """Keep `arrays` under `key`."""
        if self._folder is not None:
            with suppress(TuneError):
                make_folder(self._folder, parents=True)
                with open_atomic(self._folder / f"{key}.npz") as file:
                    np.savez(file, *arrays)

    def prune(self, max_files: int = MAX_FILES) -> None:
        """Remove all but the `max_files` entries that were used last; other files stay."""
        if self._folder is None:
            return
        with suppress(OSError):
            entries = [entry for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name)]
            entries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
            for entry in entries[max_files:]:
                Path(entry.path).unlink(missing_ok=True)


class KeptPools:
    """Simulate prefill pools, or read from files what was simulated of equal pools and equal code."""

    def __init__(
        self,
        simulate: Simulate,
        describe: Callable[[TrialSpec], object],
        runs: Sequence[Workload],
        limits: Sequence[FirstTokenLimit],
        *,
        routers: Sequence[float],
        head_scales: Sequence[float],
    ) -> None:
        """Keep the results of `simulate`.

        Parameters
        ----------
        simulate
            Simulates the pool of a trial, and the links behind it.
        describe
            Returns what the latency of a trial's prefill pool depends on besides the other arguments.
        runs
            The requests.
        limits
            The limits on first tokens, each of which has a curve.
        routers, head_scales
            The routers and the slowdowns of the frontend's node that are simulated.
        """
        self._simulate, self._describe = simulate, describe
        requests = [part for run in runs for part in vars(run).values()]
        code = (np.__version__, source_digest(*_CODE))
        self._common = content_key([*code, *requests, *limits, tuple(routers), tuple(head_scales)])
        variants = len(limits) * len(routers) * len(head_scales)
        self._latency_shape = (len(runs), variants, len(UTILISATION))
        self._delays_shape = (len(routers), len(UTILISATION), len(LINK_UTILISATION))
        self._cache = PoolCache(cache_folder())
        self._cache.prune()

    def __call__(self, spec: TrialSpec, behind: Sequence[TrialSpec]) -> tuple[FloatArray, FloatArray]:
        """Return what `simulate` returns for the pool of `spec` and the links to those of `behind`."""
        links = [
            (pair.stack, pair.split, pair.load.shuffle_seed, pair.prefill.gpus, pair.decode.gpus)
            for pair in behind
        ]
        key = content_key([self._common, self._describe(spec), spec.split, links])
        entry = self._cache.read(key, [self._latency_shape, (len(behind), *self._delays_shape)])
        if entry is None:
            entry = list(self._simulate(spec, behind))
            self._cache.write(key, entry)
        latency_s, delays = entry
        return latency_s, delays
