"""Test that logs of several processes are followed as one stream."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from tune.core.log_tail import follow_logs
from tune.core.log_text import plain_text


def test_lines_are_grouped_under_the_name_of_their_file(tmp_path: Path) -> None:
    first, second = tmp_path / "one.out", tmp_path / "two.out"
    steps = iter(
        [
            lambda: first.write_text("a\nb\nhalf a li"),
            lambda: second.write_text("c\n"),
            lambda: first.write_text("a\nb\nhalf a line\nd"),
        ]
    )

    def ended() -> bool:
        step = next(steps, None)
        if step:
            step()
        return step is None

    lines = list(follow_logs(lambda: sorted(tmp_path.iterdir()), ended, pause_s=0))
    assert lines == [
        *("==> one.out <==", "a", "b", "==> two.out <==", "c", "==> one.out <==", "half a line", "d"),
    ]


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_every_line_is_yielded_once_however_it_was_written(parts: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.out"
        path.touch()
        left = iter(parts)

        def ended() -> bool:
            part = next(left, None)
            with path.open("ab") as file:
                file.write(part or b"")
            return part is None

        lines = list(follow_logs(lambda: [path], ended, pause_s=0))
    written = b"".join(parts).decode(errors="replace").splitlines()
    assert lines[1:] == [plain_text(line) for line in written]
