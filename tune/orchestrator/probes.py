"""Run the load client on one live deployment: once, or repeatedly in search of its capacity."""

from __future__ import annotations

import math
import time
from itertools import count
from pathlib import Path

from tune.capacity.search import CapacityResult, ProbeVerdict
from tune.client.client_settings import STOPPED_EXIT_CODE, ClientRun, ClientSettings
from tune.core.files import make_folder, read_record, write_text
from tune.core.log_text import plain_text
from tune.core.threads import available_cores
from tune.errors import ResumableError
from tune.manifest.process import Process, client_of
from tune.manifest.process_manifest import CALIBRATION_FILE
from tune.orchestrator.benchmark_logs import write_benchmark_log
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.gpu_sampling import sampled_gpus
from tune.orchestrator.managed_process import POLL_S, ManagedProcess, PrintLine, describe_exit, is_signal
from tune.orchestrator.phases import PhaseTimer
from tune.orchestrator.readiness import ProgressDeadline
from tune.orchestrator.scraper import Scraper
from tune.orchestrator.worker_load import require_all_workers_used, wait_until_drained, worker_request_counts
from tune.records.accuracy import ACCURACY_FOLDER
from tune.records.folders import trial_of
from tune.spec.cluster import Calibration
from tune.spec.trial import PROBE_FOLDER, TrialSpec


class ProbeRunner:
    """Run the load client on `deployment`, which is warm, with a folder in `attempt` for each run."""

    def __init__(
        self, deployment: Deployment, attempt: Path, timer: PhaseTimer, print_line: PrintLine
    ) -> None:
        self._deployment, self._attempt = deployment, attempt
        self._timer, self._print_line = timer, print_line
        self._full_runs: dict[float, tuple[Process, Path]] = {}

    def run_once(self, settings: ClientSettings) -> float | None:
        """Run the load of the plan once and return its rate, None in a closed loop. Raises AttemptFailed."""
        client, folder = self._deployment.client(), self._attempt / PROBE_FOLDER
        self._run(client, folder, None)
        target_qps = settings.load.target_qps
        if target_qps is not None:
            self._full_runs[target_qps] = client, folder
        return target_qps

    def run_accuracy(self, settings: ClientSettings, target_qps: float) -> None:
        """Run the accuracy run at the rate of a full run, and write the benchmark's logs of both.

        `settings` are those of the plan's accuracy run. Raises AttemptFailed.
        """
        folder = self._attempt / ACCURACY_FOLDER
        make_folder(folder)
        load = settings.load.model_copy(update={"target_qps": target_qps})
        _write_client_settings(folder, settings.model_copy(update={"load": load}))
        self._print_line(f"accuracy: {load.dataset.samples} samples at {target_qps:g} queries/s")
        client = client_of(self._deployment.client(), folder.name)
        self._run(client, folder, None)
        runs = {"performance": self._full_runs[target_qps], "accuracy": (client, folder)}
        for kind, (process, logs) in runs.items():
            write_benchmark_log(self._attempt, kind, self._deployment.log_of(process), logs)

    def find_capacity(self, settings: ClientSettings) -> float | None:
        """Run the client until the highest rate that holds the SLO is known; return it, None if none held.

        `settings` are those of the plan.
        A plan without calibration.json is one that nothing can forecast. Raises AttemptFailed;
        ResumableError where the trial's spec.json is missing.
        """
        trial, earlier_runs = trial_of(self._attempt), count()
        full_spec, calibration = trial.read_spec(), read_record(trial.plan / CALIBRATION_FILE, Calibration)
        if full_spec is None:
            raise ResumableError(
                f"{trial.root}: found no spec.json; expected one of a trial with load.mode=capacity. Run the "
                "trial again."
            )

        def run(spec: TrialSpec, folder: Path, *, full: bool) -> bool:
            """Run `spec` with its record in `folder`; return whether the run was stopped as futile."""
            changes = {"load": spec.load, "stop_when_futile": full, "earlier_runs": next(earlier_runs)}
            make_folder(folder)
            _write_client_settings(folder, settings.model_copy(update=changes))
            length_text = "at full length" if full else f"{spec.load.min_queries} requests"
            self._print_line(f"{folder.name}: {spec.load.offered_qps:g} queries/s, {length_text}")
            client = client_of(self._deployment.client(), folder.name)
            stopped = self._run(client, folder, spec.load.response_timeout_s)
            if full and not stopped:
                self._full_runs[spec.load.offered_qps] = client, folder
            return stopped

        verified_qps = None
        with self._timer.phase("search_s"):
            self._print_line(
                "the simulated rack cannot time this model: the rate is found by bisection"
                if calibration is None
                else "loading the simulated rack, which forecasts the rate; its first use compiles it"
            )
            from tune.capacity.runner import find_capacity  # noqa: PLC0415  (numba takes seconds)

            for step in find_capacity(full_spec, calibration, self._attempt, run, threads=available_cores()):
                self._print_line(_describe_step(step))
                verified_qps = step.verified_qps if isinstance(step, CapacityResult) else None
        return verified_qps

    def _run(self, client: Process, folder: Path, drained_within_s: float | None) -> bool:
        """Run `client`; return whether it stopped because the run could no longer hold its SLO.

        `drained_within_s` is the limit of tune.orchestrator.worker_load.wait_until_drained.
        """
        before = worker_request_counts(self._deployment)
        with (
            sampled_gpus(self._deployment, folder, self._print_line),
            Scraper(self._deployment.servers(), self._deployment.nodes, folder),
        ):
            with self._timer.phase("probes_s"):
                code = _wait_for_client(self._deployment, self._deployment.start(client), self._print_line)
            with self._timer.phase("drain_s"):
                uncounted = wait_until_drained(self._deployment, self._print_line, drained_within_s)
                if uncounted and code == STOPPED_EXIT_CODE:
                    self._wait_for_uncounted()
        require_all_workers_used(self._deployment, before, self._print_line)
        return code == STOPPED_EXIT_CODE

    def _wait_for_uncounted(self) -> None:
        """Wait until the requests of a stopped run are dropped where no counter shows them."""
        wait_s = self._deployment.manifest.deadlines.stop_s
        self._print_line(
            f"requests of the stopped run are not counted: waiting {wait_s:g} s (cluster.deadlines.stop_s)"
        )
        deadline_s = time.monotonic() + wait_s
        while time.monotonic() < deadline_s:
            self._deployment.require_alive()
            time.sleep(POLL_S)


def _write_client_settings(folder: Path, settings: ClientSettings) -> None:
    """Write the client.json of one run."""
    text = settings.model_dump_json(include=set(ClientRun.model_fields), indent=2)
    write_text(folder / "client.json", text + "\n")


def _describe_step(step: ProbeVerdict | CapacityResult) -> str:
    """Return a line about one step of the capacity search."""
    if isinstance(step, ProbeVerdict):
        verdict = {True: "held", False: "missed", None: "shows no verdict at"}[step.slo_met]
        return f"the deployment {verdict} {step.plan.target_qps:g} queries/s"
    if step.stopped_early:
        return (
            f"about {step.capacity_qps:.4g} queries/s at most, clearly below the rate to beat: stopped early"
        )
    if step.verified_qps is None:
        return "no run of full length held its SLO"
    return f"the highest rate that held is {step.verified_qps:g} queries/s"


def _wait_for_client(deployment: Deployment, client: ManagedProcess, print_line: PrintLine) -> int:
    """Pass on the client's lines until it ends with a record; return its exit code.

    Raises AttemptFailed where the client or any other process fails, and where the client, which prints its
    progress every few seconds, prints nothing for cluster.deadlines.quiet_s: something stopped it.
    """
    silence = ProgressDeadline(deployment.manifest.deadlines.quiet_s, math.inf)
    with client.log.open(encoding="utf-8", errors="replace") as log:
        code, partial_line = None, ""
        while code is None:
            if over := silence.over(log.tell()):
                raise AttemptFailed(
                    f"the load client hangs: {over}; the last lines of its log:\n{last_lines(client.log)}"
                )
            deployment.require_alive()
            code = client.handle.poll()
            *lines, partial_line = (partial_line + log.read()).split("\n")
            for line in lines:
                print_line(f"client  {plain_text(line)}")
            time.sleep(POLL_S)
    if code not in (0, STOPPED_EXIT_CODE):
        raise AttemptFailed(
            f"the load client ended {describe_exit(code)}; the last lines of its log:\n"
            f"{last_lines(client.log)}",
            "infrastructure" if is_signal(code) else "harness",
            evidence=deployment.evidence(client),
        )
    return code
