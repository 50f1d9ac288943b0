"""Test atomic files, and links in their way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tune.core.files import no_link, write_text
from tune.core.locks import lock_file
from tune.errors import ConfigurationError, ResumableError
from tune.records.proposals import Proposal, append_proposal


def write_record(path: Path) -> None:
    write_text(path, "new")


def lock(path: Path) -> None:
    with lock_file(path, "in use"):
        pass


def append(path: Path) -> None:
    append_proposal(path, Proposal(number=0, params={}, source="random", trial_id="t0"))


def open_log(path: Path) -> None:
    open(path, "wb", opener=no_link).close()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return the file of somebody else that links lead to."""
    file = tmp_path / "somebody" / "important"
    file.parent.mkdir()
    file.write_text("important")
    return file


@pytest.mark.parametrize("write", [lock, append])
def test_a_link_in_place_of_a_file_is_refused(
    write: Callable[[Path], None], victim: Path, tmp_path: Path
) -> None:
    link = tmp_path / "study-file"
    link.symlink_to(victim)
    with pytest.raises(ConfigurationError, match=r"study-file: is a link; .* remove it"):
        write(link)
    assert victim.read_text() == "important"


@pytest.mark.parametrize("write", [lock, append, write_record])
def test_a_folder_in_place_of_a_file_is_named_and_stays(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "study-file" / "kept").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"study-file: is a folder; .* Move the folder away"):
        write(tmp_path / "study-file")
    assert (tmp_path / "study-file" / "kept").is_dir()


def test_a_log_is_opened_through_no_link(victim: Path, tmp_path: Path) -> None:
    link = tmp_path / "worker.log"
    link.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        open_log(link)
    assert victim.read_text() == "important"


def test_a_link_in_place_of_a_record_is_replaced(victim: Path, tmp_path: Path) -> None:
    link = tmp_path / "outcome.json"
    link.symlink_to(victim)
    write_record(link)
    assert victim.read_text() == "important"
    assert not link.is_symlink()
    assert link.read_text() == "new"


def test_a_link_in_place_of_the_temporary_file_is_replaced(victim: Path, tmp_path: Path) -> None:
    (tmp_path / f"outcome.json.{os.getpid()}.tmp").symlink_to(victim)
    write_record(tmp_path / "outcome.json")
    assert victim.read_text() == "important"
    assert (tmp_path / "outcome.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir() if path != victim.parent] == ["outcome.json"]


def test_a_dangling_link_makes_no_file_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    for name, write in (("lock", lock), ("proposals", append)):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ConfigurationError, match="is a link"):
            write(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("write", [append, write_record])
def test_a_folder_that_was_moved_away_does_not_grow_again(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(ResumableError, match=r"file: cannot be written, as its folder is gone; .* Move it"):
        write(tmp_path / "study" / "trial" / "file")
    assert not (tmp_path / "study").exists()


def test_a_lock_file_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("kept")
    lock(path)
    assert path.read_text() == "kept"


def test_a_durable_file_is_on_the_disk_before_and_after_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loss of power keeps cannot be tried here; the order of the calls that promise it can."""
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(f"sync {target.name.partition('.')[0]}")
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        calls.append(f"rename to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "study" / "record", "durable", durable=True)
    assert calls == ["sync record", "rename to record", "sync study"]
    calls.clear()
    write_text(tmp_path / "study" / "record", "plain")
    assert calls == ["rename to record"]
