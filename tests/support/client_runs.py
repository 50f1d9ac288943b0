"""Run the load client as a process, and read what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.right_client import client_command, make_settings, run_command
from support.streaming_server import Seen, StreamingServer
from tune.client.schedule import Schedule, draw_schedule
from tune.loadgen.log_reader import LoadGenFigures, read_logs
from tune.records.requests import RequestLog, read_requests


@dataclass
class Run:
    """Hold a finished run of the client, its output folder, and what the server saw."""

    process: subprocess.CompletedProcess[str]
    out: Path
    schedule: Schedule
    seen: list[Seen]

    @property
    def log(self) -> RequestLog:
        return read_requests(self.out / "requests.npz")

    @property
    def figures(self) -> LoadGenFigures:
        return read_logs(self.out)

    def detail(self, key: str) -> Any:
        text = (self.out / "mlperf_log_detail.txt").read_text()
        return json.loads(re.findall(rf':::MLLOG (.*"key": "{key}".*)', text)[-1])["value"]


def run(folder: Path, server: StreamingServer, **changes: Any) -> Run:
    """Run the client with these changes of its settings against `server`."""
    settings = make_settings(endpoint_urls=[server.url], **changes)
    process = run_command(client_command(folder, endpoint_urls=[server.url], **changes))
    return Run(process, folder / "out", draw_schedule(settings), server.seen)
