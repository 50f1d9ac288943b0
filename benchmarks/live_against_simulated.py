"""Compare real Dynamo with mock engines, in real time, with the simulator on identical requests.

    python benchmarks/live_against_simulated.py
    python benchmarks/live_against_simulated.py 15P3D@13 --duration-s 180

Each case is a trial of the default configuration at another split and rate, shortened: arrivals last
--duration-s and no whole pass over the dataset. `live` is `python -m tune cluster=local
stack=dynamo_v1_mocker` with ports of its own and a temporary runs_dir; `sim` serves the recorded arrivals,
prompt and answer tokens on the simulator, whose frontend and whose latency of KV transfers are off: the live
frontend takes its own time, and mock engines have no latency. Decode workers reserve KV blocks for the answer
that the load client requests, which is the drawn one, not the dataset's longest. One judge evaluates both
runs; `bottleneck` is its verdict on the simulated one.

Client, Dynamo and mock engines share the machine, so on a busy one live times are waits for a core: `load` is
the load average before the run, `busy` the fraction of the CPUs in use during it (bring-up and warm-up
included), `hog` the fraction that others used. Needs `make dynamo`.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from machine import busy_s, children_cpu_s, cpus

from tune.analysis.measure import REQUESTS_FILE, measure
from tune.config import compose_overrides
from tune.records.folders import PROBE_FOLDER
from tune.records.outcome import Probe
from tune.records.requests import RequestLog, read_requests, write_requests
from tune.sim.simulator import simulate_requests
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

ROOT = Path(__file__).parents[1]

OFF = {"ttft_overhead_s": 0.0, "frontend_message_s": 0.0, "kv_transfer_latency_s": 0.0}
"""Parameters that are off: the mock engines lack them, or the live frontend takes its own time."""

FIRST_PORT, LAST_PORT = 20_000, 32_000
"""Below the ports that the system hands out by itself, and below the last that Dynamo reads (32,767)."""


class Case(NamedTuple):
    """Hold one split, with one node of four GPUs a worker, and its rate."""

    prefill_workers: int
    decode_workers: int
    target_qps: float

    @property
    def workers(self) -> int:
        """Return the number of workers of both pools."""
        return self.prefill_workers + self.decode_workers

    def overrides(self, duration_s: float, first_port: int) -> tuple[str, ...]:
        """Return the overrides of `python -m tune`; its servers take ports from `first_port` on."""
        names = ("frontend_port", "etcd_client_port", "etcd_peer_port", "nats_port", "system_port")
        return (
            *("cluster=local", "stack=dynamo_v1_mocker", f"hardware.nodes={self.workers}"),
            f"split.prefill_workers={self.prefill_workers}",
            f"split.decode_workers={self.decode_workers}",
            *(
                f"load.target_qps={self.target_qps}",
                f"load.min_duration_s={duration_s}",
                "load.min_queries=1",
            ),
            "load.concatenate_permutation=false",
            *(f"stack.{name}={first_port + index}" for index, name in enumerate(names)),
        )


CASES = ("14P4D@15.75", "12P6D@13.5", "15P3D@14")


def parse_case(text: str) -> Case:
    """Parse a case such as `14P4D@15.75`. Raises ValueError."""
    match = re.fullmatch(r"(\d+)P(\d+)D@(\d+(?:\.\d+)?)", text)
    if not match:
        raise ValueError(text)
    return Case(int(match[1]), int(match[2]), float(match[3]))


class Machine(NamedTuple):
    """Hold the load average before a run, and the fractions of the CPUs in use and in use by others."""

    load: float
    busy_frac: float
    hog_frac: float


def free_ports(count: int) -> int:
    """Return the first of `count` ports in a row on which nothing listens."""
    for first in range(FIRST_PORT, LAST_PORT - count, count):
        if all(_free(first + index) for index in range(count)):
            return first
    raise OSError(f"no {count} free ports in a row between {FIRST_PORT} and {LAST_PORT}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def run_live(words: tuple[str, ...], runs_dir: Path) -> Machine:
    """Run the trial of these overrides; where it was not measured, end with its exit code."""
    load, own_s, all_s, began_s = os.getloadavg()[0], children_cpu_s(), busy_s(), time.monotonic()
    command = [sys.executable, "-m", "tune", *words, f"runs_dir={runs_dir}"]
    code = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode
    if code:
        sys.exit(code)
    own_s, all_s = children_cpu_s() - own_s, busy_s() - all_s
    could_s = cpus() * (time.monotonic() - began_s)
    return Machine(load, all_s / could_s, max(0.0, all_s - own_s) / could_s)


def run_simulated(spec: TrialSpec, calibration: Calibration, live: RequestLog, folder: Path) -> Probe:
    """Simulate the requests of `live`; write the record into the new folder `folder`."""
    folder.mkdir()
    answers = live.output_tokens
    lengths = live.input_tokens, answers
    log = simulate_requests(
        spec, calibration.model_copy(update=OFF), live.scheduled_ns, lengths, max_answer=answers
    )
    write_requests(folder / REQUESTS_FILE, log)
    return measure(folder, spec, folder.name)


def compare(case: Case, duration_s: float, folder: Path) -> str:
    """Run one case both ways and render rows of the table."""
    words = case.overrides(duration_s, free_ports(4 + case.workers))
    settings = compose_overrides(words).settings
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    assert calibration is not None
    machine = run_live(words, folder)
    (probe,) = folder.glob(f"*/{spec.trial_id}/raw/1/{PROBE_FOLDER}")
    live = measure(probe, spec, PROBE_FOLDER)
    simulated = run_simulated(spec, calibration, read_requests(probe / REQUESTS_FILE), folder / "simulated")
    return lines(spec.split.label, live, simulated, machine)


TITLE = (
    "split  queries/s queries  bottleneck             "
    "TTFT p50, s  p99, s TPOT p50, ms  p99, ms   load  busy   hog"
)


def lines(split: str, live: Probe, simulated: Probe, machine: Machine) -> str:
    """Render both probes and their ratio, a line each."""
    kind = simulated.bottleneck.kind if simulated.bottleneck else "unknown"
    head = f"{split:6} {live.target_qps:9g} {live.queries:7}  {kind:16}"
    busy = f"  {machine.load:5.1f} {machine.busy_frac:5.0%} {machine.hog_frac:5.0%}"
    live_figures, simulated_figures = _figures(live), _figures(simulated)
    ratios = (a / b for a, b in zip(live_figures, simulated_figures, strict=True))
    blank = " " * len(head)
    return "\n".join(
        (
            f"{head} live  {_row(live_figures, (2, 2, 1, 1))}{busy}",
            f"{blank} sim   {_row(simulated_figures, (2, 2, 1, 1))}",
            f"{blank} ratio {_row(ratios, (2, 2, 2, 2))}",
        )
    )


def _figures(probe: Probe) -> tuple[float, ...]:
    """Return p50 and p99 of TTFT in seconds, then of TPOT in milliseconds."""
    ttft, tpot = probe.ttft_s, probe.tpot_s
    assert ttft is not None
    assert tpot is not None
    return ttft.p50, ttft.p99, tpot.p50 * 1e3, tpot.p99 * 1e3


def _row(values: Iterable[float], digits: tuple[int, ...]) -> str:
    widths = (11, 7, 12, 8)
    return " ".join(f"{v:{w}.{d}f}" for v, w, d in zip(values, widths, digits, strict=True))


def main() -> None:
    """Run the cases that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", type=parse_case, default=[parse_case(text) for text in CASES])
    parser.add_argument("--duration-s", type=float, default=150.0, help="how long queries arrive")
    options = parser.parse_args()
    print(f"{cpus()} CPUs, arrivals for {options.duration_s:g} s\n{TITLE}", flush=True)
    for each in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            print(compare(each, options.duration_s, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
