"""Test the compilation of numeric loops, with and without a cache on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

from tune.core import jit
from tune.core.jit import compiled, is_cold


def twice(number: int) -> int:
    return 2 * number


def test_functions_compile_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_FOLDER", None)
    function = compiled(twice)
    assert function(21) == 42
    assert is_cold(function)


def test_changed_sources_get_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    denied = tmp_path / "file"
    denied.touch()
    first = jit.keep_machine_code((denied, tmp_path), "a" * 64)
    assert first == tmp_path / ("compiled-" + "a" * 16)
    assert str(first) == numba.config.CACHE_DIR
    (first / "code.nbi").touch()
    assert jit.keep_machine_code((tmp_path,), "a" * 64) == first
    assert (first / "code.nbi").exists(), "equal sources keep their machine code"
    second = jit.keep_machine_code((tmp_path,), "b" * 64)
    assert second is not None
    assert (first / "code.nbi").exists(), "a study of the earlier sources may still run"
    unused_since = time.time() - jit.UNUSED_S - 60
    os.utime(first, (unused_since, unused_since))
    os.utime(second, (unused_since, unused_since))
    assert jit.keep_machine_code((tmp_path,), "b" * 64) == second
    third = jit.keep_machine_code((tmp_path,), "c" * 64)
    assert third is not None
    assert not first.exists(), "what nobody has used for long is removed"
    assert second.exists(), "a start counts as use"
    assert jit.keep_machine_code((denied,), "b" * 64) is None


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_a_compiled_function_is_cold_only_once(tmp_path: Path) -> None:
    code = (
        "from tune.core.jit import is_cold\n"
        "from tune.sim.queues import empty_queues\n"
        "cold = is_cold(empty_queues); empty_queues(2); print(cold, is_cold(empty_queues))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    printed = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert printed == ["True False\n", "False False\n"]


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_numba_learns_of_no_blas_and_scipy_is_left_as_it_was() -> None:
    code = (
        "import sys, tune.core.jit\n"
        "assert 'numba.np.arraymath' in sys.modules and 'scipy.linalg' not in sys.modules\n"
        "import scipy.linalg, numba, numpy\n"
        "assert numba.njit(lambda a: numpy.dot(a, a))(numpy.ones(3)) == 3"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
