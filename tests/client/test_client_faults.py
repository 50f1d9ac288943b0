"""Run `python -m tune.client` where something fails: it says so, and leaves what it knows."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.client_runs import run
from support.fake_clock import faked_clock
from support.right_client import client_command, run_command
from support.streaming_server import StreamingServer
from support.waiting import wait_for

from tune.records.requests import read_requests


@pytest.mark.slow
def test_exception_in_the_loadgen_thread_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "loadgen.tmp").write_text("a file where LoadGen's logs are to be collected")
    with StreamingServer() as server:
        result = run(tmp_path, server)
    assert result.process.returncode == 3
    assert "FileExistsError" in result.process.stderr
    assert len(result.log) == 0


BROKEN_CLOCK = """
import os, sys, threading, time
from pathlib import Path
from tune.client.client_settings import read_client_settings
from tune.client.request_dispatcher import THREAD_NAME
from tune.client.run import run_client

def clock():
    if threading.current_thread().name == THREAD_NAME:
        raise RuntimeError("the clock stopped")
    return time.monotonic_ns()

try:
    settings = read_client_settings(Path(sys.argv[1]), [sys.argv[2]])
    run_client(settings, Path(sys.argv[3]), clock, time.time, print)
except RuntimeError as error:
    print(f"raised: {error}", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_exception_in_the_dispatcher_ends_the_run_with_a_record(tmp_path: Path) -> None:
    """The run ends at the next line of progress; LoadGen would wait for ever."""
    with StreamingServer() as server:
        _, _, _, path, _, url, _, out = client_command(tmp_path, endpoint_urls=[server.url])
        result = run_command([sys.executable, "-c", BROKEN_CLOCK, path, url, out])
    assert "raised: the clock stopped" in result.stdout, result.stderr
    log = read_requests(tmp_path / "out" / "requests.npz")
    assert "interrupted" in log.error


SET_CLOCK = """
import os, sys, threading, time
from pathlib import Path
from support.fake_clock import set_clock
from tune.client import run
from tune.client.client_settings import read_client_settings

run.OVERDUE_S, run._PROGRESS_INTERVAL_S = 1.0, 0.2
settings, folder = read_client_settings(Path(sys.argv[1]), [sys.argv[2]]), Path(sys.argv[3])
ahead_s = int(sys.argv[4])

def print_line(line):
    print(line, flush=True)
    if "  issued " in line and "  issued 0/" not in line:
        set_clock(folder.parent, ahead_s)

try:
    run.run_client(settings, folder, time.monotonic_ns, time.time, print_line)
except run.ResumableError as error:
    print(f"raised: {error}", flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(7200, "s late, up to"), (-7200, r"has not issued query \d+, which was due 1 s ago")],
)
def test_a_clock_that_is_set_ends_the_run(tmp_path: Path, ahead_s: int, words: str) -> None:
    """LoadGen issues all at once, or waits for hours."""
    environment = os.environ | faked_clock(tmp_path) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with StreamingServer() as server:
        _, _, _, path, _, url, _, out = client_command(
            tmp_path, endpoint_urls=[server.url], load__target_qps=10.0, load__min_duration_s=6.0
        )
        command = [sys.executable, "-c", SET_CLOCK, path, url, out, str(ahead_s)]
        said = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert re.search(f"raised: LoadGen .*{words}.*the clock of this host was set", said.stdout), said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_records_what_is_known(tmp_path: Path, sent: signal.Signals) -> None:
    with StreamingServer(first_token_s=0.05, fault_of=lambda n: "hang" if n % 2 else None) as server:
        command = client_command(tmp_path, endpoint_urls=[server.url], load__min_duration_s=600.0)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mlperf_log_summary.txt").write_text("of an earlier run")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(server.seen) > 80)  # of 64 at once: some have been answered
        process.send_signal(sent)
        _, stderr_text = process.communicate(timeout=120)
    assert process.returncode == 130, stderr_text
    assert "interrupted" in stderr_text
    log = read_requests(tmp_path / "out" / "requests.npz")
    assert len(log) > 40
    assert set(log.error) == {"", "interrupted"}
    assert not (tmp_path / "out" / "mlperf_log_summary.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "code", "stderr_text"),
    [
        ({"load__target_qps": "fast"}, 2, "load.target_qps"),
        ({"load__dataset__path": "/nowhere.csv"}, 2, r"nowhere\.csv"),
        ({"load__client_concurrency": 2**40}, 2, "client_concurrency needs"),
        (
            {"endpoint_urls": ["http://127.0.0.1:9/v1"]},
            3,
            "expected the model 'llama' at http://127.0.0.1:9/v1",
        ),
    ],
)
def test_wrong_settings_are_reported_without_traceback(
    tmp_path: Path, changes: dict[str, Any], code: int, stderr_text: str
) -> None:
    process = run_command(client_command(tmp_path, **changes))
    assert process.returncode == code, process.stderr
    assert re.search(stderr_text, process.stderr)
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out" / "requests.npz").exists()


@pytest.mark.slow
def test_file_in_place_of_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    process = run_command(client_command(tmp_path))
    assert process.returncode == 2
    assert "--out" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["client.json"], ["a", "b", "--out", "c"]])
def test_wrong_command_line_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    command = client_command(tmp_path)[:3]
    assert run_command([*command, *arguments]).returncode == 2
