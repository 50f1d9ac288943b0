"""Let the time of day jump for single processes; the machine's clock stays."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("fake_clock.c")


def faked_clock(folder: Path) -> Mapping[str, str]:
    """Return the environment of processes whose time of day follows `set_clock` of `folder`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the clock that jumps")
    library = folder / "fake_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
    set_clock(folder, 0)
    return {"LD_PRELOAD": str(library), "FAKE_CLOCK": str(folder / "clock")}


def set_clock(folder: Path, ahead_s: int) -> None:
    """Let the time of day be ahead of the machine's."""
    with (folder / "clock").open("r+b" if (folder / "clock").exists() else "wb") as file:
        file.write(struct.pack("=q", ahead_s))
