"""Test records of a capacity search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.errors import ResumableError
from tune.records.capacity_search import (
    CapacityRecord,
    ProbeRequest,
    read_capacity,
    read_probe_request,
    write_capacity,
    write_probe_request,
)

ASKED = ProbeRequest(target_qps=15.46, queries=1200, stopped=False)
CAPACITY = CapacityRecord(
    verified_qps=15.46, missed_qps=None, capacity_qps=15.7, fitted={"prefill_scale": 0.9}
)


def test_written_record_reads_back(tmp_path: Path) -> None:
    assert read_probe_request(tmp_path) is None
    assert read_capacity(tmp_path) is None
    write_probe_request(tmp_path, ASKED)
    write_capacity(tmp_path, CAPACITY)
    assert read_probe_request(tmp_path) == ASKED
    assert read_capacity(tmp_path) == CAPACITY


def test_torn_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "probe_request.json").write_text('{"target_qps": 1')
    with pytest.raises(ResumableError, match=r"probe_request\.json: not a readable probe_request\.json"):
        read_probe_request(tmp_path)
