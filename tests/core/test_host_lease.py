"""Test a file that a process of another host owns, where locks do not reach that host."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tune.core import host_lease as lease
from tune.core.locks import lock_file
from tune.errors import ConfigurationError

BEAT_S = 0.02


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.owner_elsewhere, "__defaults__", (BEAT_S,))


@contextmanager
def owned_by(path: Path, host: str) -> Iterator[None]:
    """Have a process of `host` own the file: its name is in it, and it changes."""
    owner = path.with_name(".lock.owner")
    owner.write_text(f"{host} 4711\n")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S / 4):
            with suppress(FileNotFoundError):
                os.utime(owner)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_living_process_of_another_host_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        owned_by(path, "login2"),
        pytest.raises(ConfigurationError, match=r"^in use It is process 4711 on host login2\.$"),
        lock_file(path, "in use"),
    ):
        pass
    assert path.with_name(".lock.owner").read_text() == "login2 4711\n", "it stays the owner"


def test_a_dead_process_of_another_host_is_succeeded(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    owner = path.with_name(".lock.owner")
    owner.write_text("login2 4711\n")
    with lock_file(path, "in use"):
        assert owner.read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    assert not owner.exists()


def test_on_the_same_host_the_lock_decides(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with owned_by(path, socket.gethostname()), lock_file(path, "in use"):
        pass


def test_the_owner_touches_its_file(tmp_path: Path) -> None:
    owner = tmp_path / ".lock.owner"
    changed = threading.Event()

    def watch(before: int) -> None:
        while owner.stat().st_mtime_ns == before:
            pass
        changed.set()

    with lease.host_lease(tmp_path / ".lock", BEAT_S):
        watcher = threading.Thread(target=watch, args=(owner.stat().st_mtime_ns,), daemon=True)
        watcher.start()
        assert changed.wait(30)
