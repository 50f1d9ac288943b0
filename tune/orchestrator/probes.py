"""Runs of the load client on one live deployment: the one of a trial, or several in search of a rate."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

from tune.capacity.search import CapacityResult, ProbeVerdict
from tune.client.client_settings import STOPPED, ClientRun, ClientSettings
from tune.core.files import make_folder, read_record, write_text
from tune.errors import ResumableError
from tune.manifest.process import Process, client_of
from tune.manifest.process_manifest import CALIBRATION_FILE
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.managed_process import POLL_S, ManagedProcess, PrintLine, describe_exit
from tune.orchestrator.phases import PhaseTimer
from tune.orchestrator.scraper import Scraper
from tune.orchestrator.warm_up import require_all_workers_used, wait_until_drained, worker_request_counts
from tune.records.folders import trial_of
from tune.spec.cluster import Calibration
from tune.spec.trial import PROBE_FOLDER, TrialSpec


class ProbeRunner:
    """Runs on `deployment`, which is warm, each with a folder of its own in the folder `attempt`."""

    def __init__(self, deployment: Deployment, attempt: Path, stopwatch: PhaseTimer, say: PrintLine) -> None:
        self._deployment, self._attempt = deployment, attempt
        self._stopwatch, self._say = stopwatch, say

    def run_once(self) -> None:
        """The run that the plan asks for. Raises Broken."""
        self._run(self._deployment.client(), self._attempt / PROBE_FOLDER, None)

    def find_capacity(self, settings: ClientSettings) -> None:
        """Run after run until the highest rate that holds the SLO is known. `settings`: those of the plan.

        Raises Broken; ResumableError where the trial's spec.json or the plan's calibration.json is missing.
        """
        trial, earlier = trial_of(self._attempt), count()
        whole, calibration = trial.read_spec(), read_record(trial.plan / CALIBRATION_FILE, Calibration)
        if whole is None or calibration is None:
            missing = "spec.json" if whole is None else f"plan/{CALIBRATION_FILE}"
            raise ResumableError(
                f"{trial.root}: found no {missing}; expected one of a trial with load.mode=capacity. Run the "
                "trial again."
            )

        def run(spec: TrialSpec, folder: Path, *, full: bool) -> bool:
            changes = {"load": spec.load, "stop_when_hopeless": full, "earlier_runs": next(earlier)}
            make_folder(folder)
            _write_asked(folder, settings.model_copy(update=changes))
            how = "at full length" if full else f"{spec.load.min_queries} requests"
            self._say(f"{folder.name}: {spec.load.target_qps:g} queries/s, {how}")
            client = client_of(self._deployment.client(), folder.name)
            return self._run(client, folder, spec.load.response_timeout_s)

        with self._stopwatch.phase("search_s"):
            self._say("loading the simulated rack, which forecasts the rate; its first use compiles it")
            from tune.capacity.runner import find_capacity  # noqa: PLC0415  (numba takes seconds)

            for step in find_capacity(whole, calibration, self._attempt, run):
                self._say(_told(step))

    def _run(self, client: Process, folder: Path, drained_within_s: float | None) -> bool:
        """Whether the client stopped a run that could hold its SLO no more; `drained_within_s`: see drain."""
        before = worker_request_counts(self._deployment)
        with Scraper(self._deployment.servers(), self._deployment.nodes, folder):
            with self._stopwatch.phase("probes_s"):
                code = _follow(self._deployment, self._deployment.start(client), self._say)
            with self._stopwatch.phase("drain_s"):
                wait_until_drained(self._deployment, self._say, drained_within_s)
                if code == STOPPED:
                    self._settle()
        require_all_workers_used(self._deployment, before)
        return code == STOPPED

    def _settle(self) -> None:
        """Where workers tell no counters, nobody knows when they are rid of the requests of a stopped run."""
        if all(worker.metrics_port is not None for worker in self._deployment.workers()):
            return
        wait_s = self._deployment.launch.deadlines.stop_s
        self._say(f"workers do not tell what they hold: waiting {wait_s:g} s (cluster.deadlines.stop_s)")
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s:
            self._deployment.require_alive()
            time.sleep(POLL_S)


def _write_asked(folder: Path, settings: ClientSettings) -> None:
    asked = settings.model_dump_json(include=set(ClientRun.model_fields), indent=2)
    write_text(folder / "client.json", asked + "\n")


def _told(step: ProbeVerdict | CapacityResult) -> str:
    if isinstance(step, ProbeVerdict):
        verdict = {True: "held", False: "missed", None: "cannot be trusted at"}[step.held]
        return f"the deployment {verdict} {step.ask.target_qps:g} queries/s"
    if step.censored:
        return f"about {step.capacity_qps:.4g} queries/s at most, clearly below the rate to beat: given up"
    if step.verified_qps is None:
        return "no run of full length held its SLO"
    return f"the highest rate that held is {step.verified_qps:g} queries/s"


def _follow(deployment: Deployment, client: ManagedProcess, say: PrintLine) -> int:
    """Wait for the client's end, passing on what it says; its exit code, of those that leave a record.

    Raises Broken where it or anything else fails.
    """
    with client.log.open(encoding="utf-8", errors="replace") as log:
        code, begun = None, ""
        while code is None:
            deployment.require_alive()
            code = client.started.poll()
            *lines, begun = (begun + log.read()).split("\n")
            for line in lines:
                say(f"client  {line}")
            time.sleep(POLL_S)
    if code not in (0, STOPPED):
        deployment.require_lent()
        raise AttemptFailed(
            f"the load client ended {describe_exit(code)}; the last lines of its log:\n{last_lines(client.log)}"
        )
    return code
