"""Test locks on files, folders and names."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from tune.core.locks import is_file_locked, lock_file, lock_name, try_lock
from tune.errors import ConfigurationError, ResumableError


def test_lock_file_is_held_as_long_as_the_block(tmp_path: Path) -> None:
    path = tmp_path / "study" / ".lock"
    assert not is_file_locked(path), "there is no file yet"
    with lock_file(path, "in use"):
        assert is_file_locked(path)
        with pytest.raises(ConfigurationError, match=r"^in use$"), lock_file(path, "in use"):
            pass
        assert is_file_locked(path)
    assert not is_file_locked(path)
    with lock_file(path, "in use"):
        pass


def test_a_lock_that_was_removed_is_held_again(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock_file(path, "in use") as held:
        path.unlink()
        held.require()
        with pytest.raises(ConfigurationError, match=r"^in use$"), lock_file(path, "in use"):
            pass
    with lock_file(path, "in use"):
        pass


def test_a_lock_that_another_process_took_is_lost(tmp_path: Path) -> None:
    path, owner = tmp_path / ".lock", tmp_path / ".lock.owner"
    with lock_file(path, "in use") as first:
        path.unlink()
        with lock_file(path, "in use"):
            owner.write_text("host 4711\n")
            with pytest.raises(ResumableError, match=r"\.lock: was removed .*; expected .* Wait for it"):
                first.require()
    assert owner.read_text() == "host 4711\n", "the other one stays the owner"


@pytest.mark.parametrize("another", [False, True])
def test_a_folder_that_was_moved_is_named(another: bool, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with lock_file(folder / ".lock", "in use") as held:
        folder.rename(tmp_path / "elsewhere")
        if another:
            folder.mkdir()
        with pytest.raises(ResumableError, match=r"study: was moved or removed .*; expected .* Move it back"):
            held.require()
        assert folder.exists() == another
        assert not another or not list(folder.iterdir())


def test_shared_probes_do_not_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    with path.open() as first, path.open() as second:
        assert try_lock(first, shared=True)
        assert try_lock(second, shared=True)
        assert not is_file_locked(path)


def test_folder_is_locked_by_its_descriptor(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    assert try_lock(first)
    assert not try_lock(second)
    os.close(first)
    assert try_lock(second)
    os.close(second)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_is_one_clear_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / ".lock"
    with pytest.raises(ConfigurationError, match=r"\.lock: cannot be locked \(no locks here\)"):
        lock_file(path, "in use").__enter__()
    with pytest.raises(ConfigurationError, match="expected a file system with flock"):
        is_file_locked(path)


def test_name_is_free_again_when_every_holder_closed_it(tmp_path: Path) -> None:
    holder = lock_name(str(tmp_path))
    inherited = holder.dup()
    holder.close()
    with pytest.raises(OSError, match="in use"):
        lock_name(str(tmp_path))
    inherited.close()
    lock_name(str(tmp_path)).close()
