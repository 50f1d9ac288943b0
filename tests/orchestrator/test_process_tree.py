from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support.waiting import wait_for

from tune.orchestrator.supervision.process_tree import descendants

ORPHANS = """
import subprocess, sys
from tune.orchestrator.supervision.process_tree import become_subreaper, descendants, kill_descendants
become_subreaper()
# A daemon: its parent ends at once, and it has a session of its own.
subprocess.run(["bash", "-c", "for i in 1 2 3; do setsid sleep 1000 & done; exec true"], check=True)
print(kill_descendants(), kill_descendants())
"""


def test_descendants_are_exactly_the_processes_below() -> None:
    nested = "sleep 1000 & sleep 1000 & wait"
    with subprocess.Popen(
        ["bash", "-c", f"bash -c '{nested}' & echo; wait"], stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        wait_for(lambda: len(descendants(shell.pid)) >= 3)
        found = descendants(shell.pid)
        assert len(found) == 3
        assert shell.pid not in found
        assert {shell.pid, *found} <= set(descendants(os.getpid()))
        for process in found:
            os.kill(process, 9)
    assert descendants(shell.pid) == ()


def test_orphans_become_children_and_are_killed() -> None:
    printed = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["3", "0"]


INTERRUPTED_POLLS = """
import signal, subprocess, sys, time
from tune.orchestrator.supervision.process_tree import exit_code

child = subprocess.Popen(["sleep", "60"])
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupts = 0
while interrupts < 2000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            exit_code(child)
    except KeyboardInterrupt:
        interrupts += 1
child.kill()
while exit_code(child) is None:
    time.sleep(0.01)
print(child.wait())
"""


@pytest.mark.slow
def test_interrupted_poll_keeps_the_exit_code() -> None:
    command = [sys.executable, "-c", INTERRUPTED_POLLS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == -signal.SIGKILL
