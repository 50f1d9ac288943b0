"""Write the two logs by which the benchmark's own scripts show a run: of performance and of accuracy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tune.core.files import write_text
from tune.loadgen.log_writer import SUMMARY_LOG


def write_benchmark_log(attempt: Path, kind: str, client_log: Path, folder: Path) -> None:
    """Write mlperf_benchmark_KIND_TIMESTAMP.log into `attempt`: the client's output and LoadGen's summary.

    Parameters
    ----------
    attempt
        Folder of the attempt.
    kind
        performance or accuracy.
    client_log
        Output of the load client, which ends with the figures of an accuracy run.
    folder
        Folder with LoadGen's logs; TIMESTAMP, in UTC, is when its summary was written.
    """
    summary = folder / SUMMARY_LOG
    ended = datetime.fromtimestamp(summary.stat().st_mtime, UTC)
    text = f"{client_log.read_text('utf-8', 'replace')}\n{summary.read_text('utf-8', 'replace')}"
    write_text(attempt / f"mlperf_benchmark_{kind}_{ended:%Y%m%d_%H%M%S}.log", text)
