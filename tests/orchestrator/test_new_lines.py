"""Test which lines of a log are progress."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.orchestrator.new_lines import NewLines, shape_of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("waiting for rank 3, 12.5 s", "waiting for rank 4, 14.5 s"),
        ("[2026-11-30T18:24:46.498Z] still waiting", "[2026-11-30T18:26:02.113Z] still waiting"),
        ("retry of 7f00beef", "retry of 1e5"),
        ("\x1b[32mINFO\x1b[0m waiting 1", "INFO waiting 2"),
    ],
)
def test_numbers_make_no_new_line(before: str, after: str) -> None:
    assert shape_of(before) == shape_of(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Loading weights: 12%", "Loading weights: 13%"),
        ("shard 3/16", "shard 4/16"),
        ("shard 3 / 16 in 2 s", "shard 4 / 16 in 2 s"),
        ("captured", "registered"),
    ],
)
def test_what_is_done_of_all_makes_a_new_line(before: str, after: str) -> None:
    assert shape_of(before) != shape_of(after)


def test_lines_count_when_they_end_and_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = NewLines(log)
    assert lines.count() == 0, "no log yet"
    counts = []
    for text in ("a", " b\n", "waiting 1\nwaiting 2\n", "bar 1%\rbar 2%\r", "bar 2%\r", "waiting 3\n\xff\n"):
        with log.open("ab") as file:
            file.write(text.encode("latin-1"))
        counts.append(lines.count())
    assert counts == [0, 1, 2, 4, 4, 5]


def test_few_lines_are_remembered_and_those_that_repeat_stay(tmp_path: Path) -> None:
    log = tmp_path / "log"
    names = [f"{'x' * (index % 100)}y{'z' * (index // 100)}" for index in range(5000)]
    log.write_text("".join(f"{name}\nwaiting\n" for name in names))
    lines = NewLines(log)
    assert lines.count() == 5001
    with log.open("a") as file:
        file.write(f"waiting\n{names[-1]}\n{names[0]}\n")
    assert lines.count() == 5002, "the first one is forgotten"


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_read_and_the_count_never_falls(pieces: list[bytes]) -> None:
    seen = []
    with NamedTemporaryFile() as log:
        lines = NewLines(Path(log.name))
        for piece in pieces:
            log.write(piece)
            log.flush()
            seen.append(lines.count())
    assert seen == sorted(seen)
    assert not seen or seen[-1] <= b"".join(pieces).count(b"\n") + b"".join(pieces).count(b"\r")
