"""What each probe of several was, on record."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.errors import RunAgain
from tune.results.asked import Asked, Capacity, read_asked, read_capacity, write_asked, write_capacity

ASKED = Asked(target_qps=15.46, queries=1200, stopped=False)
CAPACITY = Capacity(confirmed_qps=15.46, missed_qps=None, boundary_qps=15.7, fitted={"prefill_scale": 0.9})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_asked(tmp_path) is None
    assert read_capacity(tmp_path) is None
    write_asked(tmp_path, ASKED)
    write_capacity(tmp_path, CAPACITY)
    assert read_asked(tmp_path) == ASKED
    assert read_capacity(tmp_path) == CAPACITY


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "asked.json").write_text('{"target_qps": 1')
    with pytest.raises(RunAgain, match=r"asked\.json: not a readable asked\.json"):
        read_asked(tmp_path)
