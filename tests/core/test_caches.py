"""Test what tells kept results from those of changed code."""

from __future__ import annotations

from pathlib import Path

from tune.core.caches import source_digest


def test_a_digest_is_that_of_names_and_contents(tmp_path: Path) -> None:
    package = tmp_path / "sim" / "ranks"
    package.mkdir(parents=True)

    def digest(name: str, text: str) -> str:
        source_digest.cache_clear()
        for path in package.iterdir():
            path.unlink()
        (package / name).write_text(text)
        (tmp_path / "other.py").write_text(text)
        return source_digest("sim", root=tmp_path)

    assert digest("a.py", "x = 1") == digest("a.py", "x = 1")
    assert len({digest("a.py", "x = 1"), digest("a.py", "x = 2"), digest("b.py", "x = 1")}) == 3
